//! What an upstream is told about the client: `X-Forwarded-*`, `Forwarded` (RFC 7239) and `Client-Cert` (RFC 9440).
//!
//! A client can write these fields as well as we can, those that we never write too. So what came is removed, unless the peer is a
//! trusted proxy: then its word about the client before it is kept, and our own about the peer is added behind it. Of certificates nobody's word
//! is taken: `Client-Cert` says what was proven to us.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::encode::field;
use super::fields::{FieldKind, Fields};
use crate::config::plan::FieldEdits;

/// What to say about the client of one request.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The peer of the connection.
    pub client: &'a ClientText,
    /// `http` or `https`: how the peer reached us.
    pub proto: &'static str,
    /// The `Host` that the peer sent; empty says nothing.
    pub host: &'a str,
    /// The peer's own fields are kept and extended.
    pub trusted: bool,
    /// Send `X-Forwarded-For`, `-Proto` and `-Host`.
    pub x_forwarded: bool,
    /// Send `Forwarded`.
    pub forwarded: bool,
    /// What `Client-Cert` says; `None` sends none.
    pub client_cert: Option<&'a str>,
}

/// A certificate in DER as `Client-Cert` gives it (RFC 9440 section 2.2): a byte sequence of RFC 8941.
pub fn client_cert(certificate: &[u8]) -> String {
    let mut text = String::with_capacity(certificate.len().div_ceil(3) * 4 + 2);
    text.push(':');
    STANDARD.encode_string(certificate, &mut text);
    text.push(':');
    text
}

/// The peer's address as text, made once for a connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientText {
    bytes: [u8; ADDRESS_BYTES_MAX],
    len: u8,
    is_v6: bool,
}

/// The longest text of an IPv6 address: eight groups of four digits. Mapped IPv4 addresses are written as IPv4.
const ADDRESS_BYTES_MAX: usize = 39;

impl ClientText {
    pub fn new(address: IpAddr) -> Self {
        let mut text = ClientText { bytes: [0; ADDRESS_BYTES_MAX], len: 0, is_v6: false };
        let address = address.to_canonical();
        text.is_v6 = address.is_ipv6();
        match address {
            IpAddr::V4(address) => write!(text, "{address}"),
            IpAddr::V6(address) => write_v6(&mut text, address),
        }
        .expect("39 bytes hold every address");
        text
    }

    /// A peer without an address, on a Unix socket: `unknown` in `Forwarded`, nothing in `X-Forwarded-For`.
    pub const fn unknown() -> Self {
        ClientText { bytes: [0; ADDRESS_BYTES_MAX], len: 0, is_v6: false }
    }

    /// ASCII; empty when unknown. An IPv6 address has no brackets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// See [`as_bytes`](Self::as_bytes).
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("an address is ASCII")
    }
}

/// As the standard library writes it, but never in the mixed form of `::127.0.0.1`, which has 45 bytes at worst.
fn write_v6(text: &mut ClientText, address: Ipv6Addr) -> std::fmt::Result {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => write!(text, "::{high:x}:{low:x}"),
        _ => write!(text, "{address}"),
    }
}

impl Write for ClientText {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let start = usize::from(self.len);
        let room = self.bytes.get_mut(start..start + part.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(part.as_bytes());
        self.len += part.len() as u8;
        Ok(())
    }
}

impl Forwarding<'_> {
    /// Whether an incoming field of this kind is copied as it is.
    pub(super) fn keeps(&self, kind: FieldKind) -> bool {
        let extends = match kind {
            FieldKind::XForwardedFor => self.x_forwarded,
            FieldKind::Forwarded => self.forwarded,
            _ => false,
        };
        self.trusted && !extends
    }

    /// Writes our own fields, with what trusted ones said before them.
    pub(super) fn write(&self, out: &mut Vec<u8>, fields: &Fields<'_>, edits: &FieldEdits) {
        if self.x_forwarded {
            self.write_x_forwarded(out, fields, edits);
        }
        if self.forwarded && !touches(edits, b"forwarded") {
            out.extend_from_slice(b"Forwarded: ");
            self.write_earlier(out, fields, FieldKind::Forwarded);
            self.write_forwarded_element(out);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(certificate) = self.client_cert.filter(|_| !touches(edits, b"client-cert")) {
            field(out, b"Client-Cert", certificate.as_bytes());
        }
    }

    fn write_x_forwarded(&self, out: &mut Vec<u8>, fields: &Fields<'_>, edits: &FieldEdits) {
        let client = self.client.as_bytes();
        let earlier = self.trusted && fields.of_kind(FieldKind::XForwardedFor).next().is_some();
        if (earlier || !client.is_empty()) && !touches(edits, b"x-forwarded-for") {
            out.extend_from_slice(b"X-Forwarded-For: ");
            self.write_earlier(out, fields, FieldKind::XForwardedFor);
            out.extend_from_slice(if client.is_empty() { b"unknown" } else { client });
            out.extend_from_slice(b"\r\n");
        }
        // The first proxy knows best how the client came; a trusted peer's word on that stands.
        let unsaid = |kind| !self.trusted || fields.of_kind(kind).next().is_none();
        if unsaid(FieldKind::XForwardedProto) && !touches(edits, b"x-forwarded-proto") {
            field(out, b"X-Forwarded-Proto", self.proto.as_bytes());
        }
        if !self.host.is_empty() && unsaid(FieldKind::XForwardedHost) && !touches(edits, b"x-forwarded-host") {
            field(out, b"X-Forwarded-Host", self.host.as_bytes());
        }
    }

    fn write_earlier(&self, out: &mut Vec<u8>, fields: &Fields<'_>, kind: FieldKind) {
        if !self.trusted {
            return;
        }
        for value in fields.of_kind(kind).filter(|value| !value.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }

    /// The host is always quoted, since a colon makes it no token; it holds nothing that would need escaping.
    fn write_forwarded_element(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"for=");
        match (self.client.as_bytes(), self.client.is_v6) {
            (b"", _) => out.extend_from_slice(b"unknown"),
            (address, false) => out.extend_from_slice(address),
            (address, true) => {
                out.extend_from_slice(b"\"[");
                out.extend_from_slice(address);
                out.extend_from_slice(b"]\"");
            }
        }
        if !self.host.is_empty() {
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(self.host.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(self.proto.as_bytes());
    }
}

/// Whether the configuration removes or replaces fields of this name.
pub(super) fn touches(edits: &FieldEdits, name: &[u8]) -> bool {
    let same = |edited: &String| edited.as_bytes().eq_ignore_ascii_case(name);
    edits.remove.iter().any(same) || edits.set.iter().any(|(edited, _)| same(edited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_a_byte_sequence_with_padding_and_without_line_ends() {
        for (certificate, expected) in
            [(&b""[..], "::"), (b"f", ":Zg==:"), (b"foob", ":Zm9vYg==:"), (b"\xff\xfe\xfb", "://77:")]
        {
            assert_eq!(client_cert(certificate), expected);
        }
        assert_eq!(client_cert(&[0; 300]).len(), 402);
    }

    #[test]
    fn addresses_are_written_in_their_shortest_common_form() {
        let cases = [
            ("192.0.2.1", "192.0.2.1"),
            ("255.255.255.255", "255.255.255.255"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::192.0.2.1", "::c000:201"),
            ("::1", "::1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("1111:2222:3333:4444:5555:6666:7777:8888", "1111:2222:3333:4444:5555:6666:7777:8888"),
        ];
        for (address, expected) in cases {
            assert_eq!(ClientText::new(address.parse().expect("an address")).as_str(), expected);
        }
        assert_eq!(ClientText::unknown().as_str(), "");
    }
}
