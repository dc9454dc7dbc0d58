//! Host and port, as `Host` and absolute-form targets give them (RFC 3986 section 3.2 without user information).
//!
//! Narrower than the grammar on purpose: what a name may hold is what names in use hold. A comma, a quote or a percent sign in a host is legal
//! somewhere in RFC 3986 and read differently by everybody. An IPv6 address has one spelling (RFC 5952), up to the case of its letters: routes
//! compare hosts as text, and `[0:0::1]` would not get what `[::1]` gets.

use std::fmt::{self, Write};
use std::net::Ipv6Addr;

use super::head::decimal;
use super::octets::{HOST, is};

/// Bytes of the longest name that DNS can carry, with its final dot.
const NAME_BYTES_MAX: usize = 254;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Authority<'b> {
    /// As written.
    pub(super) text: &'b str,
    /// Without the port; an IPv6 address keeps its brackets.
    pub(super) name: &'b str,
    pub(super) port: Option<u16>,
}

impl<'b> Authority<'b> {
    pub(super) fn parse(bytes: &'b [u8]) -> Option<Self> {
        let name_bytes = match bytes.first()? {
            b'[' => {
                let end = memchr::memchr(b']', bytes)?;
                let written = str::from_utf8(&bytes[1..end]).ok()?;
                let address = written.parse::<Ipv6Addr>().ok()?;
                let mut left = Unread(written.as_bytes());
                write!(left, "{address}").ok().filter(|()| left.0.is_empty())?;
                end + 1
            }
            _ => bytes.iter().take_while(|&&byte| is(byte, HOST)).count(),
        };
        if name_bytes == 0 || name_bytes > NAME_BYTES_MAX {
            return None;
        }
        let port = match &bytes[name_bytes..] {
            [] => None,
            [b':', digits @ ..] if digits.len() <= 5 => {
                Some(u16::try_from(decimal(digits)?).ok().filter(|&port| port != 0)?)
            }
            _ => return None,
        };
        let text = str::from_utf8(bytes).ok()?;
        Some(Authority { text, name: &text[..name_bytes], port })
    }

    /// The same host and port; a missing port is `default_port`.
    pub(super) fn is_same(&self, other: &Self, default_port: u16) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// What of a text did not come yet. Writing fails as soon as something else comes, in whatever case of letters.
struct Unread<'b>(&'b [u8]);

impl Write for Unread<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let (start, rest) = self.0.split_at_checked(part.len()).ok_or(fmt::Error)?;
        self.0 = rest;
        if start.eq_ignore_ascii_case(part.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_a_host_and_perhaps_a_port() {
        let cases = [
            ("example.com", Some(("example.com", None))),
            ("EXAMPLE.com.:8443", Some(("EXAMPLE.com.", Some(8443)))),
            ("a_b-c~1", Some(("a_b-c~1", None))),
            ("127.0.0.1:80", Some(("127.0.0.1", Some(80)))),
            ("[::1]", Some(("[::1]", None))),
            ("[2001:db8::a]:443", Some(("[2001:db8::a]", Some(443)))),
            ("[2001:DB8::A]", Some(("[2001:DB8::A]", None))),
            ("[::]", Some(("[::]", None))),
            ("[::ffff:192.0.2.1]", Some(("[::ffff:192.0.2.1]", None))),
            ("", None),
            (":80", None),
            ("a:", None),
            ("a:0", None),
            ("a:65536", None),
            ("a:000080", None),
            ("a:+80", None),
            ("a:80:80", None),
            ("a:8o", None),
            ("user@a", None),
            ("user:pw@a", None),
            ("a b", None),
            ("a,b", None),
            ("a/b", None),
            ("a?b", None),
            ("a#b", None),
            ("a\\b", None),
            ("a%2eb", None),
            ("a;b", None),
            ("\"a\"", None),
            ("b\u{fc}cher.example", None),
            ("[0:0::1]", None),
            ("[0:0:0:0:0:0:0:1]", None),
            ("[2001:0db8::a]", None),
            ("[::ffff:c000:201]", None),
            ("[::1", None),
            ("[]", None),
            ("[::g]", None),
            ("[127.0.0.1]", None),
            ("[::1]a", None),
            ("[fe80::1%25eth0]", None),
        ];
        for (text, expected) in cases {
            let parsed = Authority::parse(text.as_bytes()).map(|authority| (authority.name, authority.port));
            assert_eq!(parsed, expected, "{text:?}");
        }
        assert!(Authority::parse(&[b'a'; NAME_BYTES_MAX]).is_some());
        assert!(Authority::parse(&[b'a'; NAME_BYTES_MAX + 1]).is_none());
    }

    #[test]
    fn a_missing_port_is_the_default_one() {
        let parse = |text: &'static str| Authority::parse(text.as_bytes()).expect("a valid authority");
        assert!(parse("a").is_same(&parse("A:80"), 80));
        assert!(!parse("a").is_same(&parse("a:80"), 443));
        assert!(!parse("a").is_same(&parse("b"), 80));
    }
}
