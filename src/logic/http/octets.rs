//! Byte classes of RFC 9110 section 5.6 and the scans over them.

/// May be part of a token (RFC 9110 section 5.6.2).
pub(super) const TOKEN: u8 = 1;
/// The token byte that CGI-like backends cannot tell from `-`.
pub(super) const UNDERSCORE: u8 = 2;
/// May be part of a request target: visible ASCII without `#`, which begins a fragment.
pub(super) const TARGET: u8 = 4;
/// May be part of a host name or an IPv4 address.
pub(super) const HOST: u8 = 8;

pub(super) static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        let alphanumeric = c.is_ascii_alphanumeric();
        if alphanumeric
            || matches!(c, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        {
            table[byte] |= TOKEN;
        }
        if c == b'_' {
            table[byte] |= UNDERSCORE;
        }
        if c > b' ' && c < 0x7f && c != b'#' {
            table[byte] |= TARGET;
        }
        if alphanumeric || matches!(c, b'-' | b'.' | b'_' | b'~') {
            table[byte] |= HOST;
        }
        byte += 1;
    }
    table
}

pub(super) fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// One or more token bytes.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is(byte, TOKEN))
}

/// Where the run of bytes that may stand in a field value ends that begins at `start`: `HTAB`, `SP`, visible ASCII and obs-text. What stops
/// it is the end of the line or a fault.
#[inline]
pub(super) fn value_end(bytes: &[u8], start: usize) -> usize {
    let stops = |word: u64| between(word, 0, 0x1f) & !between(word, b'\t', b'\t') | between(word, 0x7f, 0x7f);
    run_end(bytes, start, stops, is_value_byte)
}

/// Where the run of letters, digits and `-` ends that begins at `start`: most field names are such a run.
#[inline]
pub(super) fn word_end(bytes: &[u8], start: usize) -> usize {
    let goes_on = |word: u64| {
        // Other bytes change with the letters' case, but none becomes a letter.
        between(word | ONES << 5, b'a', b'z') | between(word, b'0', b'9') | between(word, b'-', b'-')
    };
    run_end(bytes, start, |word| !goes_on(word) & TOPS, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Where the run of bytes that may stand in a request target ends that begins at `start`.
#[inline]
pub(super) fn target_end(bytes: &[u8], start: usize) -> usize {
    let stops = |word: u64| !between(word, 0x21, 0x7e) & TOPS | between(word, b'#', b'#');
    run_end(bytes, start, stops, |byte| is(byte, TARGET))
}

/// Whether `bytes` are `lower`, which has no capital letters, in any case of letters. Names are compared for each field: so eight bytes at a time.
#[inline]
pub(super) fn is_in_any_case(bytes: &[u8], lower: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<WORD_BYTES>();
    let (lower_words, lower_rest) = lower.as_chunks::<WORD_BYTES>();
    bytes.len() == lower.len()
        && words
            .iter()
            .zip(lower_words)
            .all(|(word, lower)| to_lower(u64::from_le_bytes(*word)) == u64::from_le_bytes(*lower))
        && rest.iter().zip(lower_rest).all(|(byte, lower)| byte.to_ascii_lowercase() == *lower)
}

#[inline]
fn to_lower(word: u64) -> u64 {
    word | between(word, b'A', b'Z') >> 2
}

/// Bytes that are looked at together.
const WORD_BYTES: usize = 8;
const ONES: u64 = u64::from_ne_bytes([1; WORD_BYTES]);
const TOPS: u64 = ONES << 7;

/// The top bit of every byte of `word` that lies in `low..=high`, which are ASCII. Each byte is treated by itself: seven bits and a constant of
/// at most 128 carry nowhere.
#[inline]
fn between(word: u64, low: u8, high: u8) -> u64 {
    let sevens = word & !TOPS;
    let at_least_low = sevens + ONES * u64::from(0x80 - low);
    let above_high = sevens + ONES * u64::from(0x7f - high);
    at_least_low & !above_high & !word & TOPS
}

/// The first byte from `start` on that `stops` marks by its top bit, or the end of `bytes`. `goes_on` says the same of one byte.
#[inline]
fn run_end(bytes: &[u8], start: usize, stops: impl Fn(u64) -> u64, goes_on: impl Fn(u8) -> bool) -> usize {
    let mut at = start;
    while let Some(word) = bytes[at..].first_chunk() {
        let marks = stops(u64::from_le_bytes(*word));
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += WORD_BYTES;
    }
    at + bytes[at..].iter().take_while(|&&byte| goes_on(byte)).count()
}

pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// `value` without optional white space (`SP`, `HTAB`) at both ends.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The members of a comma-separated list, trimmed; empty ones are skipped, as RFC 9110 section 5.6.1.2 asks of recipients.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_any_case_and_differ_by_any_other_byte() {
        for lower in ["", "te", "host", "connection", "content-length", "x-forwarded-proto"] {
            for spelling in [lower.to_owned(), lower.to_uppercase(), lower.replacen('o', "O", 1)] {
                assert!(is_in_any_case(spelling.as_bytes(), lower.as_bytes()), "{spelling}");
            }
            for place in 0..lower.len() {
                for byte in 0..=255 {
                    let mut other = lower.as_bytes().to_vec();
                    other[place] = byte;
                    let expected = other.eq_ignore_ascii_case(lower.as_bytes());
                    assert_eq!(is_in_any_case(&other, lower.as_bytes()), expected, "{}", other.escape_ascii());
                }
            }
            assert!(!is_in_any_case(format!("{lower}s").as_bytes(), lower.as_bytes()), "longer than {lower}");
        }
    }

    /// A scan from `start` on.
    type Scan = fn(&[u8], usize) -> usize;
    /// Whether it goes on behind a byte.
    type GoesOn = fn(u8) -> bool;

    const SCANS: [(Scan, GoesOn); 3] = [
        (value_end, is_value_byte),
        (word_end, |byte| byte.is_ascii_alphanumeric() || byte == b'-'),
        (target_end, |byte| is(byte, TARGET)),
    ];

    #[test]
    fn a_run_ends_at_the_first_byte_of_another_class_wherever_it_lies() {
        for (scan, goes_on) in SCANS {
            let inside: Vec<u8> = (0..=255).filter(|&byte| goes_on(byte)).collect();
            for stop in (0..=255).filter(|&byte| !goes_on(byte)) {
                for len in [1, 7, 8, 9, 40] {
                    for position in 0..len {
                        let mut bytes: Vec<u8> = inside.iter().copied().cycle().skip(position).take(len).collect();
                        bytes[position] = stop;
                        bytes[..position / 2].fill(stop);
                        assert_eq!(scan(&bytes, position / 2), position, "{stop:#04x} in {len} bytes");
                        assert_eq!(scan(&bytes, position), position);
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_without_a_stop_ends_with_the_bytes() {
        for (scan, goes_on) in SCANS {
            let inside: Vec<u8> = (0..=255).filter(|&byte| goes_on(byte)).collect();
            for len in 0..inside.len() {
                for start in [0, len / 2, len] {
                    assert_eq!(scan(&inside[..len], start), len);
                }
            }
        }
    }

    #[test]
    fn token_bytes_are_those_of_rfc_9110() {
        let tokens: String = (0..=255u8).filter(|&byte| is(byte, TOKEN)).map(char::from).collect();
        assert_eq!(tokens, "!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~");
    }

    #[test]
    fn lists_skip_empty_members() {
        let members: Vec<&[u8]> = list(b" ,a,\t, b c ,,").collect();
        assert_eq!(members, [b"a".as_slice(), b"b c"]);
    }
}
