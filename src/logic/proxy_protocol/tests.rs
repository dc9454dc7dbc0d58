//! The specification's rules as tables of headers.

use std::net::SocketAddr;

use super::binary::{SIGNATURE, crc32c};
use super::text::LINE_BYTES_MAX;
use super::*;
use crate::config::limits;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn proxied(source: &str, destination: &str) -> Provenance {
    Provenance::Proxied { source: address(source), destination: address(destination) }
}

/// Version 2 with this command, family and block.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = (block.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &len, block].concat()
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = (value.len() as u16).to_be_bytes();
    [&[kind, high, low], value].concat()
}

const V4_BLOCK: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

fn v4_says() -> Provenance {
    proxied("192.0.2.1:56324", "198.51.100.2:443")
}

fn v4_with(fields: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&V4_BLOCK, fields].concat())
}

fn v6_block() -> Vec<u8> {
    let mut block = Vec::new();
    for ip in ["2001:db8::1", "2001:db8::2"] {
        block.extend_from_slice(&ip.parse::<Ipv6Addr>().expect("an address").octets());
    }
    block.extend_from_slice(&[0xff, 0xff, 0, 0]);
    block
}

/// `header` with a correct checksum in front of what follows its addresses.
fn with_checksum(fields: &[u8]) -> Vec<u8> {
    let mut header = v4_with(&[&field(0x03, &[0; 4]), fields].concat());
    let sum = !crc32c(!0, &header);
    header[31..35].copy_from_slice(&sum.to_be_bytes());
    header
}

/// Read alone and with a request behind it; that each of its prefixes is partial is one of the properties that the fuzz target checks, too.
fn assert_complete(bytes: &[u8], provenance: Provenance, details: Details<'_>) {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    let expected = Ok(Parsed::Complete(Header { len: bytes.len(), provenance, details }));
    assert_eq!(parse(bytes), expected, "{shown:?}");
    assert_eq!(parse(&[bytes, b"GET / HTTP/1.1\r\n\r\n"].concat()), expected, "{shown:?}");
    fuzzing::header(bytes);
}

fn assert_fault(bytes: &[u8], fault: HeaderFault) {
    assert_eq!(parse(bytes), Err(fault), "{:?}", String::from_utf8_lossy(bytes));
    fuzzing::header(bytes);
}

#[test]
fn lines_of_version_1_say_what_the_specification_says() {
    let v6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest_v6 = format!("PROXY TCP6 {v6} {v6} 65535 65535");
    let longest_unknown = format!("PROXY UNKNOWN {v6} {v6} 65535 65535");
    let cases = [
        ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443", proxied("192.168.0.1:56324", "192.168.0.11:443")),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
            proxied("255.255.255.255:65535", "255.255.255.255:65535"),
        ),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0", proxied("0.0.0.0:0", "0.0.0.0:0")),
        (&longest_v6, proxied(&format!("[{v6}]:65535"), &format!("[{v6}]:65535"))),
        ("PROXY TCP6 2001:DB8::1 ::1 1 2", proxied("[2001:db8::1]:1", "[::1]:2")),
        ("PROXY TCP6 0000:0000:0000:0000:0000:0000:0000:0001 :: 1 2", proxied("[::1]:1", "[::]:2")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1 2", proxied("192.0.2.1:1", "192.0.2.2:2")),
        ("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2", proxied("192.0.2.1:1", "[2001:db8::1]:2")),
        ("PROXY UNKNOWN", Provenance::Unknown),
        ("PROXY UNKNOWN ", Provenance::Unknown),
        ("PROXY UNKNOWN anything at all, \0 and \u{e9}", Provenance::Unknown),
        (&longest_unknown, Provenance::Unknown),
    ];
    assert_eq!(longest_unknown.len() + 2, LINE_BYTES_MAX);
    for (line, provenance) in cases {
        assert_complete(format!("{line}\r\n").as_bytes(), provenance, Details::default());
    }
}

#[test]
fn a_line_of_version_1_has_one_form() {
    let cases = [
        // The signature and its space.
        ("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", HeaderFault::NoHeader),
        ("PROXY\tTCP4 1.2.3.4 1.2.3.4 1 2\r\n", HeaderFault::NoHeader),
        ("PROXY\r\n", HeaderFault::NoHeader),
        (" PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", HeaderFault::NoHeader),
        ("GET / HTTP/1.1\r\n", HeaderFault::NoHeader),
        // The protocol.
        ("PROXY \r\n", HeaderFault::BadProtocol),
        ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", HeaderFault::BadProtocol),
        ("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", HeaderFault::BadProtocol),
        ("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", HeaderFault::BadProtocol),
        ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", HeaderFault::BadProtocol),
        ("PROXY UNKNOWNX\r\n", HeaderFault::BadProtocol),
        ("PROXY UNKNOW\r\n", HeaderFault::BadProtocol),
        // The addresses.
        ("PROXY TCP4\r\n", HeaderFault::BadAddress),
        ("PROXY TCP4 1.2.3.4\r\n", HeaderFault::BadAddress),
        ("PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP4 0x1.2.3.4 1.2.3.4 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP4 16909060 1.2.3.4 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP4 \u{661}.2.3.4 1.2.3.4 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP6 [::1] ::1 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP6 1::2::3 ::1 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP6 00001::2 ::1 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", HeaderFault::BadAddress),
        ("PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", HeaderFault::BadAddress),
        // The ports.
        ("PROXY TCP4 1.2.3.4 1.2.3.4\r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4  1 2\r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 00 2\r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 0x2\r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", HeaderFault::BadPort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", HeaderFault::BadPort),
        // The end of the line.
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", HeaderFault::BadLineEnd),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rGET", HeaderFault::BadLineEnd),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", HeaderFault::BadLineEnd),
        ("PROXY UNKNOWN a\nb\r\n", HeaderFault::BadLineEnd),
        ("PROXY UNKNOWN a\rb\r\n", HeaderFault::BadLineEnd),
    ];
    for (line, fault) in cases {
        assert_fault(line.as_bytes(), fault);
    }
}

#[test]
fn a_line_of_version_1_has_107_bytes_at_most() {
    let line = |len: usize| format!("{:x<1$}\r\n", "PROXY UNKNOWN ", len - 2).into_bytes();
    assert_complete(&line(LINE_BYTES_MAX), Provenance::Unknown, Details::default());
    assert_fault(&line(LINE_BYTES_MAX + 1), HeaderFault::TooLong);
    assert_fault(&line(10_000), HeaderFault::TooLong);
    // Refused as soon as no CRLF can come in time.
    assert_eq!(parse(&line(10_000)[..LINE_BYTES_MAX - 1]), Ok(Parsed::Partial));
    assert_eq!(parse(&line(10_000)[..LINE_BYTES_MAX]), Err(HeaderFault::TooLong));
}

#[test]
fn headers_of_version_2_say_what_the_specification_says() {
    let v6_says = proxied("[2001:db8::1]:65535", "[2001:db8::2]:0");
    let cases = [
        (v2(0x21, 0x11, &V4_BLOCK), v4_says()),
        (v2(0x21, 0x12, &V4_BLOCK), v4_says()),
        (v2(0x21, 0x21, &v6_block()), v6_says),
        (v2(0x21, 0x22, &v6_block()), v6_says),
        (v2(0x21, 0x31, &[b'/'; 216]), Provenance::Unix),
        (v2(0x21, 0x32, &[0; 216]), Provenance::Unix),
        (v2(0x21, 0x00, &[]), Provenance::Unknown),
        (v2(0x21, 0x00, b"whatever"), Provenance::Unknown),
        (v2(0x20, 0x00, &[]), Provenance::Local),
        // Of LOCAL, the family and what follows are to be discarded.
        (v2(0x20, 0x11, &V4_BLOCK), Provenance::Local),
        (v2(0x20, 0x11, &[1]), Provenance::Local),
        (v2(0x20, 0xff, b"whatever"), Provenance::Local),
    ];
    for (header, provenance) in cases {
        assert_complete(&header, provenance, Details::default());
    }
    let mapped = [&[0; 10], &[0xff, 0xff, 192, 0, 2, 1][..], &[0; 10], &[0xff, 0xff, 192, 0, 2, 2], &[0, 1, 0, 2]];
    assert_complete(&v2(0x21, 0x21, &mapped.concat()), proxied("192.0.2.1:1", "192.0.2.2:2"), Details::default());
}

#[test]
fn versions_commands_and_families_are_those_of_the_specification() {
    for byte in 0..=255 {
        let fault = match (byte >> 4, byte & 15) {
            (2, 0 | 1) => None,
            (2, _) => Some(HeaderFault::BadCommand),
            _ => Some(HeaderFault::BadVersion),
        };
        assert_eq!(parse(&v2(byte, 0x11, &V4_BLOCK)).err(), fault, "{byte:#04x}");
        // Known by its own byte.
        assert_eq!(parse(&v2(byte, 0, &[])[..13]).err(), fault, "{byte:#04x}");

        let is_family = byte == 0 || matches!((byte >> 4, byte & 15), (1..=3, 1 | 2));
        let fault = (!is_family).then_some(HeaderFault::BadFamily);
        assert_eq!(parse(&v2(0x21, byte, &[0; 216])).err(), fault, "{byte:#04x}");
    }
}

#[test]
fn every_byte_of_the_signature_counts() {
    let header = v2(0x21, 0x11, &V4_BLOCK);
    for at in 0..SIGNATURE.len() {
        let mut bytes = header.clone();
        bytes[at] ^= 0x20;
        assert_fault(&bytes, HeaderFault::NoHeader);
        assert_eq!(parse(&bytes[..=at]), Err(HeaderFault::NoHeader));
    }
}

#[test]
fn a_header_holds_the_addresses_of_its_family() {
    for (family, bytes) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)] {
        for short in 0..bytes {
            assert_fault(&v2(0x21, family, &vec![0; short]), HeaderFault::TooShort);
        }
        assert!(parse(&v2(0x21, family, &vec![0; bytes])).is_ok());
    }
}

#[test]
fn a_header_is_bounded() {
    let filled = |len: usize| v4_with(&field(0xe0, &vec![7; len - 16 - 12 - 3]));
    assert_complete(&filled(limits::PROXY_HEADER), v4_says(), Details::default());
    assert_fault(&filled(limits::PROXY_HEADER + 1), HeaderFault::TooLong);
    // Before it has come.
    assert_eq!(parse(&v2(0x21, 0x11, &[0; 65_535])[..16]), Err(HeaderFault::TooLong));
    assert_eq!(parse(&v2(0x20, 0x00, &[0; 65_535])[..16]), Err(HeaderFault::TooLong));
}

#[test]
fn known_fields_are_read_and_others_skipped() {
    let id = [0xab; UNIQUE_ID_BYTES_MAX];
    let fields = [
        field(0x04, &[0; 7]),
        field(0x01, b"h2"),
        field(0x02, "b\u{fc}cher.example".as_bytes()),
        field(0x05, &id),
        field(0x20, &[&[7, 0, 0, 0, 0][..], &field(0x21, b"TLSv1.3"), &field(0x22, b"client")].concat()),
        field(0x30, b"blue"),
        field(0xea, b"\x01vpce-08d2bf15fac5001c9"),
        field(0xff, b""),
    ];
    let details = Details { alpn: Some(b"h2"), authority: Some("b\u{fc}cher.example"), unique_id: Some(&id) };
    assert_complete(&v4_with(&fields.concat()), v4_says(), details);
    assert_complete(&with_checksum(&fields.concat()), v4_says(), details);
    let with_v6 = v2(0x21, 0x21, &[v6_block(), field(0x01, b"h2")].concat());
    let v6_details = Details { alpn: Some(b"h2"), ..Details::default() };
    assert_complete(&with_v6, proxied("[2001:db8::1]:65535", "[2001:db8::2]:0"), v6_details);
    let with_unix = v2(0x21, 0x31, &[&[0; 216][..], &field(0x01, b"h2")].concat());
    assert_complete(&with_unix, Provenance::Unix, v6_details);
    let empty = Details { alpn: Some(b""), authority: Some(""), unique_id: Some(b"") };
    let empty_fields = [field(1, b""), field(2, b""), field(5, b"")].concat();
    assert_complete(&v4_with(&empty_fields), v4_says(), empty);
}

#[test]
fn malformed_fields_are_refused() {
    let cases: [(&[u8], HeaderFault); 18] = [
        // Walked to the end, which must be the header's.
        (&[0xe0], HeaderFault::BadField),
        (&[0xe0, 0], HeaderFault::BadField),
        (&[0xe0, 0, 1], HeaderFault::BadField),
        (&[0xe0, 0xff, 0xff, 1], HeaderFault::BadField),
        (&[0xe0, 0, 0, 0], HeaderFault::BadField),
        (&field(0x05, &[0; UNIQUE_ID_BYTES_MAX + 1]), HeaderFault::BadField),
        (&field(0x02, b"\xff"), HeaderFault::BadField),
        (&field(0x03, &[0; 3]), HeaderFault::BadField),
        (&field(0x03, &[0; 5]), HeaderFault::BadField),
        (&field(0x03, &[0; 4]), HeaderFault::BadChecksum),
        (&field(0x20, &[0; 4]), HeaderFault::BadField),
        (&field(0x20, &[0, 0, 0, 0, 0, 0x21]), HeaderFault::BadField),
        (&field(0x20, &[0, 0, 0, 0, 0, 0x21, 0, 2, b'a']), HeaderFault::BadField),
        (&[field(1, b"h2"), field(1, b"h2")].concat(), HeaderFault::RepeatedField),
        (&[field(2, b"a"), field(4, b""), field(2, b"b")].concat(), HeaderFault::RepeatedField),
        (&[field(5, b"a"), field(5, b"b")].concat(), HeaderFault::RepeatedField),
        (&[field(3, &[0; 4]), field(3, &[0; 4])].concat(), HeaderFault::RepeatedField),
        // What is wrong with its form comes before what is wrong with its sum.
        (&[field(3, &[0; 4]), vec![0]].concat(), HeaderFault::BadField),
    ];
    for (fields, fault) in cases {
        assert_fault(&v4_with(fields), fault);
    }
}

#[test]
fn a_checksum_covers_every_byte_of_the_header() {
    assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283, "the check value of CRC-32C");
    let header = with_checksum(&field(0xe0, b"abc"));
    assert_complete(&header, v4_says(), Details::default());
    // The last three bytes of the fixed part, types and lengths have faults of their own.
    let covered = (16..28).chain(31..35).chain(38..41);
    for at in covered {
        for bit in 0..8 {
            let mut bytes = header.clone();
            bytes[at] ^= 1 << bit;
            assert_fault(&bytes, HeaderFault::BadChecksum);
        }
    }
}

#[test]
fn what_was_written_is_read_again() {
    let cases = [
        proxied("192.0.2.1:56324", "198.51.100.2:443"),
        proxied("[2001:db8::1]:65535", "[2001:db8::2]:0"),
        proxied("192.0.2.1:1", "[2001:db8::1]:2"),
        proxied("[::192.0.2.1]:1", "[::]:2"),
    ];
    for provenance in cases {
        let (mut line, mut binary) = (Vec::new(), Vec::new());
        encode_v1(&mut line, &provenance);
        encode_v2(&mut binary, &provenance);
        assert_complete(&line, provenance, Details::default());
        assert_complete(&binary, provenance, Details::default());
    }
    for (provenance, len) in [(Provenance::Unknown, 16), (Provenance::Local, 16), (Provenance::Unix, 232)] {
        let (mut line, mut binary) = (Vec::new(), Vec::new());
        encode_v1(&mut line, &provenance);
        encode_v2(&mut binary, &provenance);
        assert_eq!(line, b"PROXY UNKNOWN\r\n");
        assert_eq!(binary.len(), len);
        assert_complete(&binary, provenance, Details::default());
    }
}

#[test]
fn written_headers_have_the_bytes_of_the_specification() {
    let mapped = proxied("[::ffff:192.0.2.1]:56324", "[::ffff:198.51.100.2]:443");
    for provenance in [v4_says(), mapped] {
        let mut out = b"before ".to_vec();
        encode_v1(&mut out, &provenance);
        assert_eq!(out, b"before PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
        out.clear();
        encode_v2(&mut out, &provenance);
        assert_eq!(out, v2(0x21, 0x11, &V4_BLOCK));
    }
    let mut out = Vec::new();
    encode_v2(&mut out, &Provenance::Local);
    assert_eq!(out, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
}
