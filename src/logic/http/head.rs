//! What request and response heads have in common: bounds, versions, and knowing cheaply when all of a head is here.

use memchr::memchr_iter;

use super::fields::MAX_FIELDS;
use super::octets;

/// Bounds on one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, from the first line to the empty one.
    pub bytes: usize,
    /// Field lines; more than [`MAX_FIELDS`] counts as [`MAX_FIELDS`].
    pub fields: usize,
    /// Bytes of a request target; responses have none.
    pub target: usize,
}

impl HeadLimits {
    /// The part of `bytes` that may belong to the head. Whatever lies beyond is never looked at, so the verdict on an oversize head does
    /// not depend on how much of it has come.
    pub(super) fn window<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let limit = self.bytes.min(u32::MAX as usize);
        &bytes[..bytes.len().min(limit)]
    }

    /// A head that needs more than `window` is too large.
    pub(super) fn is_exhausted(&self, window: &[u8]) -> bool {
        window.len() >= self.bytes.min(u32::MAX as usize)
    }

    pub(super) fn field_count(&self) -> usize {
        self.fields.min(MAX_FIELDS)
    }
}

/// What the sender of a message speaks. A minor version of HTTP/1 above 1 is read as 1.1 (RFC 9110 section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    Http11,
    /// Its messages come to this room as HTTP/1.1 heads: see [`h2`](super::h2).
    Http2,
}

impl Version {
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

/// The outcome of parsing what has come so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    Complete(T),
    /// Nothing wrong yet, and not all here.
    Partial,
}

/// Looks for the end of a head that comes in pieces, each byte once. A peer that sends a byte at a time would otherwise have its head
/// parsed anew for each.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Bytes that were already looked at.
    seen: usize,
}

impl HeadScan {
    /// Whether parsing `bytes`, all that has come of this head, would give more than [`Parsed::Partial`] because the head ends, cannot
    /// grow any more, or holds a line end that will be refused. `bytes` must begin with what was passed the last time.
    pub fn complete(&mut self, bytes: &[u8], limits: &HeadLimits) -> bool {
        let window = limits.window(bytes);
        let fresh = self.seen.min(window.len());
        let ends = memchr_iter(b'\n', &window[fresh..]).any(|found| {
            let end = fresh + found;
            !window[..end].ends_with(b"\r") || window[..end].ends_with(b"\r\n\r")
        });
        self.seen = window.len();
        ends || limits.is_exhausted(window)
    }
}

/// What the version at the start of `bytes` is.
pub(super) enum VersionToken {
    Known(Version),
    /// `HTTP/` digit `.` digit with another major version.
    Foreign,
    Malformed,
    Partial,
}

/// Length of `HTTP/1.1`.
pub(super) const VERSION_BYTES: usize = 8;

pub(super) fn version(bytes: &[u8]) -> VersionToken {
    let token = &bytes[..bytes.len().min(VERSION_BYTES)];
    if token == b"HTTP/1.1" {
        return VersionToken::Known(Version::Http11);
    }
    let well_formed = token.iter().zip(b"HTTP/1.1").all(|(&byte, &model)| match model {
        b'1' => byte.is_ascii_digit(),
        _ => byte == model,
    });
    match token {
        _ if !well_formed => VersionToken::Malformed,
        [_, _, _, _, _, b'1', _, b'0'] => VersionToken::Known(Version::Http10),
        [_, _, _, _, _, b'1', _, _] => VersionToken::Known(Version::Http11),
        [_, _, _, _, _, _, _, _] => VersionToken::Foreign,
        _ => VersionToken::Partial,
    }
}

/// What stands where a line has to end.
pub(super) enum LineEnd {
    Ended,
    Partial,
    BareCarriageReturn,
    BareLineFeed,
    /// Something that is no line end at all.
    Other,
}

pub(super) fn line_end(bytes: &[u8]) -> LineEnd {
    match bytes {
        [b'\r', b'\n', ..] => LineEnd::Ended,
        [] | [b'\r'] => LineEnd::Partial,
        [b'\r', ..] => LineEnd::BareCarriageReturn,
        [b'\n', ..] => LineEnd::BareLineFeed,
        _ => LineEnd::Other,
    }
}

/// `1*DIGIT` that fits 64 bits (RFC 9110 section 8.6): no sign, no space, no list.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// The token at the start of `bytes`.
pub(super) fn token_run(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|&&byte| octets::is(byte, octets::TOKEN)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 40, fields: 8, target: 16 };

    #[test]
    fn a_scan_finds_the_end_whatever_the_pieces() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for first in 0..=head.len() {
            for second in first..=head.len() {
                let mut scan = HeadScan::default();
                for upto in [first, second, head.len()] {
                    assert_eq!(scan.complete(&head[..upto], &LIMITS), upto == head.len(), "{first} {second}");
                    if upto == head.len() {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn a_scan_gives_up_at_a_bare_line_feed_and_at_the_limit() {
        assert!(HeadScan::default().complete(b"GET / HTTP/1.1\n", &LIMITS));
        assert!(HeadScan::default().complete(b"\n", &LIMITS));
        assert!(!HeadScan::default().complete(&[b'a'; 39], &LIMITS));
        assert!(HeadScan::default().complete(&[b'a'; 40], &LIMITS));
    }

    #[test]
    fn decimals_are_plain_digits() {
        let cases: [(&[u8], Option<u64>); 11] = [
            (b"0", Some(0)),
            (b"007", Some(7)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"", None),
            (b"+1", None),
            (b"-1", None),
            (b"1 ", None),
            (b"0x1", None),
            (b"1,1", None),
            ("\u{0661}".as_bytes(), None),
        ];
        for (digits, expected) in cases {
            assert_eq!(decimal(digits), expected, "{digits:?}");
        }
    }
}
