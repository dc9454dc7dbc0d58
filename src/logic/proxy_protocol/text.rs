//! Version 1: one line of ASCII. Fields are separated by one space each, and every field has one way to be written.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{AddressPair, Details, Header, HeaderFault, Provenance, canonical};
use crate::logic::http::Parsed;

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// Bytes of a line with its CRLF, by the specification: what `UNKNOWN` with two IPv6 addresses and two ports needs.
pub(super) const LINE_BYTES_MAX: usize = 107;

/// `bytes` begin as the signature does.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<Header<'_>>, HeaderFault> {
    let Some(end) = line_end(bytes)? else { return Ok(Parsed::Partial) };
    let line = bytes[..end].strip_prefix(SIGNATURE).ok_or(HeaderFault::NoHeader)?;
    let provenance = provenance(line)?;
    Ok(Parsed::Complete(Header { len: end + 2, provenance, details: Details::default() }))
}

/// Where the CRLF is. A lone CR or LF would be a line end to some.
fn line_end(bytes: &[u8]) -> Result<Option<usize>, HeaderFault> {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    match window.iter().position(|&byte| byte == b'\r' || byte == b'\n') {
        Some(at) if window[at] == b'\n' => Err(HeaderFault::BadLineEnd),
        Some(at) => match window.get(at + 1) {
            Some(b'\n') => Ok(Some(at)),
            Some(_) => Err(HeaderFault::BadLineEnd),
            None if window.len() == LINE_BYTES_MAX => Err(HeaderFault::TooLong),
            None => Ok(None),
        },
        None if window.len() == LINE_BYTES_MAX => Err(HeaderFault::TooLong),
        None => Ok(None),
    }
}

/// What stands between the signature and the CRLF.
fn provenance(line: &[u8]) -> Result<Provenance, HeaderFault> {
    let mut fields = line.split(|&byte| byte == b' ');
    let read_address: fn(&str) -> Option<IpAddr> = match fields.next() {
        Some(b"TCP4") => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Some(b"TCP6") => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        // Whatever follows is to be ignored.
        Some(b"UNKNOWN") => return Ok(Provenance::Unknown),
        _ => return Err(HeaderFault::BadProtocol),
    };
    let mut address = || {
        let text = str::from_utf8(fields.next()?).ok()?;
        read_address(text)
    };
    let source = address().ok_or(HeaderFault::BadAddress)?;
    let destination = address().ok_or(HeaderFault::BadAddress)?;
    let mut port = || fields.next().and_then(read_port).ok_or(HeaderFault::BadPort);
    let (source, destination) = (canonical(source, port()?), canonical(destination, port()?));
    if fields.next().is_some() {
        return Err(HeaderFault::BadPort);
    }
    Ok(Provenance::Proxied { source, destination })
}

/// Decimal digits without a leading zero.
fn read_port(text: &[u8]) -> Option<u16> {
    let is_plain = text == b"0" || text.first().is_some_and(|first| (b'1'..=b'9').contains(first));
    str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

/// Writes a header of version 1. What this version has no word for is `UNKNOWN`.
pub fn encode(out: &mut Vec<u8>, provenance: &Provenance) {
    let written = match provenance {
        Provenance::Proxied { source, destination } => {
            let (source_port, destination_port) = (source.port(), destination.port());
            match AddressPair::new(source.ip(), destination.ip()) {
                AddressPair::V4(source, destination) => {
                    write!(out, "PROXY TCP4 {source} {destination} {source_port} {destination_port}\r\n")
                }
                AddressPair::V6(source, destination) => {
                    write!(out, "PROXY TCP6 {source} {destination} {source_port} {destination_port}\r\n")
                }
            }
        }
        Provenance::Unix | Provenance::Unknown | Provenance::Local => out.write_all(b"PROXY UNKNOWN\r\n"),
    };
    written.expect("a vector takes what is written");
}
