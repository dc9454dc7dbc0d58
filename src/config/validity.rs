//! When a certificate ends: the one fact of an X.509 certificate that no library in use here tells.
//!
//! An upstream's certificate comes from the network, so nothing in it makes this panic; what cannot be read ends never.

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// A certificate is valid throughout the second that its `notAfter` names (RFC 5280 section 4.1.2.5).
pub const LAST_SECOND: Duration = Duration::from_secs(1);

/// The `notAfter` of a certificate in DER (RFC 5280 section 4.1.2.5); `None` of what is none.
pub fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (certificate, _) = element_of(SEQUENCE, certificate)?;
    let (mut fields, _) = element_of(SEQUENCE, certificate)?;
    if fields.first() == Some(&EXPLICIT_VERSION) {
        fields = element(fields)?.rest;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.rest;
    }
    let (validity, _) = element_of(SEQUENCE, fields)?;
    let end = element(element(validity)?.rest)?;
    let seconds = match end.tag {
        UTC_TIME => {
            let (year, rest) = number(end.content, 2)?;
            seconds(if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = number(end.content, 4)?;
            seconds(year, rest)
        }
        _ => None,
    }?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

struct Element<'d> {
    tag: u8,
    content: &'d [u8],
    /// What comes behind it.
    rest: &'d [u8],
}

/// The first element of `der`, of a length that is written in four bytes at most.
fn element(der: &[u8]) -> Option<Element<'_>> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Element { tag, content, rest })
}

/// Content and rest of an element that must be of this kind.
fn element_of(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    element(der).filter(|element| element.tag == tag).map(|element| (element.content, element.rest))
}

/// A decimal number of so many digits, and what comes behind it.
fn number(text: &[u8], digits: usize) -> Option<(u64, &[u8])> {
    let (digits, rest) = text.split_at_checked(digits)?;
    let number = digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')));
    Some((number?, rest))
}

/// Seconds from 1970 to `MMDDHHMMSSZ` of this year; zero for what lies before.
fn seconds(year: u64, text: &[u8]) -> Option<u64> {
    let (month, text) = number(text, 2)?;
    let (day, text) = number(text, 2)?;
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text, 2)?;
    let (second, text) = number(text, 2)?;
    let is_time = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if text != b"Z" || !is_time {
        return None;
    }
    // Years begin in March, so that a leap day is the last of one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days_before_1970 = 719_468;
    Some(days.checked_sub(days_before_1970).map_or(0, |days| days * 86_400 + hour * 3600 + minute * 60 + second))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1950, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_told_in_either_form() {
        for (year, month, day) in [
            (1969, 12, 31),
            (1970, 1, 1),
            (1999, 12, 31),
            (2000, 2, 29),
            (2024, 2, 29),
            (2024, 3, 1),
            (2049, 12, 31),
            (2050, 1, 1),
            (2100, 3, 1),
            (9999, 12, 31),
        ] {
            let expected = date_time_ymd(year, month, day).unix_timestamp().max(0) as u64;
            let end = not_after(&certificate(year, month, day));
            assert_eq!(end, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(expected)), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn a_damaged_certificate_is_none_or_another_and_nothing_worse() {
        let whole = certificate(2049, 12, 31);
        for cut in 0..200 {
            not_after(&whole[..cut]);
        }
        for at in 0..200 {
            for byte in [0x00, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                not_after(&damaged);
            }
        }
        assert_eq!(not_after(&[]), None);
        assert_eq!(not_after(&whole[..60]), None);
    }

    #[test]
    fn what_is_no_time_is_not_taken_for_one() {
        assert_eq!(seconds(2026, b"1125000000Z"), Some(1_795_564_800));
        for text in
            ["1325000000Z", "0025000000Z", "1100000000Z", "1125240000Z", "1125006000Z", "1125000000", "11250000x0Z"]
        {
            assert_eq!(seconds(2026, text.as_bytes()), None, "{text}");
        }
    }
}
