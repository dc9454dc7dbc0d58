//! Durations and sizes as text: a whole number and a unit, nothing else.
//!
//! `"1.5s"` and `"1m30s"` are refused on purpose: one way to write a value is one way to read it, and `"1500ms"` is as
//! short.

use std::time::Duration;

/// Units of time in microseconds, longest first.
const TIME_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// Units of size in bytes, largest first.
const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `250ms`; `None` if it is not a duration or beyond what 64 bits of microseconds hold.
pub(super) fn read_time(text: &str) -> Option<Duration> {
    read(text, &TIME_UNITS).map(Duration::from_micros)
}

/// Writes a duration in the longest unit in which it is whole.
pub(super) fn write_time(time: Duration) -> String {
    let micros = u64::try_from(time.as_micros()).expect("bounds are days at most");
    if micros == 0 { "0s".to_owned() } else { write(micros, &TIME_UNITS) }
}

/// Reads `64KiB` into bytes; `None` if it is not a size or beyond 64 bits.
pub(super) fn read_size(text: &str) -> Option<u64> {
    read(text, &SIZE_UNITS)
}

/// Writes a number of bytes in the largest unit in which it is whole.
pub(super) fn write_size(bytes: u64) -> String {
    if bytes == 0 { "0B".to_owned() } else { write(bytes, &SIZE_UNITS) }
}

fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn write(amount: u64, units: &[(&str, u64)]) -> String {
    let (unit, factor) =
        units.iter().find(|(_, factor)| amount.is_multiple_of(*factor)).expect("the last unit divides everything");
    format!("{}{unit}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_whole_number_and_a_unit() {
        for (text, expected) in [
            ("0s", Some(Duration::ZERO)),
            ("50us", Some(Duration::from_micros(50))),
            ("250ms", Some(Duration::from_millis(250))),
            ("30s", Some(Duration::from_secs(30))),
            ("5m", Some(Duration::from_secs(300))),
            ("2h", Some(Duration::from_secs(7200))),
            ("30d", Some(Duration::from_secs(2_592_000))),
            ("", None),
            ("30", None),
            ("s", None),
            ("1.5s", None),
            ("1m30s", None),
            ("-1s", None),
            ("30 s", None),
            ("30S", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(read_time(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_units_only() {
        for (text, expected) in [
            ("0B", Some(0)),
            ("100B", Some(100)),
            ("64KiB", Some(65_536)),
            ("1MiB", Some(1_048_576)),
            ("2GiB", Some(2_147_483_648)),
            ("1TiB", Some(1_099_511_627_776)),
            ("64KB", None),
            ("64k", None),
            ("64", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(read_size(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_as_the_same() {
        for text in ["0s", "50us", "250ms", "90s", "5m", "1h", "7d"] {
            assert_eq!(write_time(read_time(text).expect("it is a duration")), text);
        }
        for text in ["0B", "100B", "64KiB", "3MiB", "1TiB"] {
            assert_eq!(write_size(read_size(text).expect("it is a size")), text);
        }
    }
}
