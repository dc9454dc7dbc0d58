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

/// How many bytes from the start of `bytes` may stand in a field value: `HTAB`, `SP`, visible ASCII and obs-text. What stops the run
/// is the end of the line or a fault.
///
/// Eight bytes at a time. In `below_space` and `delete` the lowest byte with its top bit set is exact: a borrow only ever marks bytes
/// above a true one.
pub(super) fn value_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    const SPACES: u64 = ONES * 0x20;
    const DELETES: u64 = ONES * 0x7f;

    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let flipped = word ^ DELETES;
        let below_space = word.wrapping_sub(SPACES) & !word & TOPS;
        let delete = flipped.wrapping_sub(ONES) & !flipped & TOPS;
        let stops = below_space | delete;
        if stops == 0 {
            at += 8;
            continue;
        }
        at += (stops.trailing_zeros() / 8) as usize;
        if bytes[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    at + bytes[at..].iter().take_while(|&&byte| is_value_byte(byte)).count()
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
    fn a_value_run_stops_at_the_first_control_byte_wherever_it_lies() {
        for stop in (0..=255u8).filter(|&byte| !is_value_byte(byte)) {
            for position in 0..40 {
                let mut bytes = vec![b'a'; 40];
                bytes[position / 2] = b'\t';
                bytes[39 - position / 2] = 0xff;
                bytes[position] = stop;
                assert_eq!(value_run(&bytes), position, "byte {stop:#04x}");
            }
        }
    }

    #[test]
    fn a_value_run_covers_every_byte_that_a_value_may_hold() {
        let bytes: Vec<u8> = (0..=255).filter(|&byte| is_value_byte(byte)).collect();
        assert_eq!(value_run(&bytes), bytes.len());
        assert_eq!(bytes.len(), 256 - 32 - 1 + 1);
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
