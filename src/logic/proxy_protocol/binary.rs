//! Version 2: a signature that no other protocol begins with, sixteen bytes of fixed meaning, addresses, and fields of type, length and value.
//!
//! Fields are all walked, so that a header is well-formed as a whole or refused. Those that nobody here asks for are skipped. That a field with one
//! value may come once is our own rule: the specification does not say which of two would hold.

use std::net::{IpAddr, SocketAddr};

use super::{AddressPair, Details, Header, HeaderFault, Provenance, UNIQUE_ID_BYTES_MAX, canonical};
use crate::config::limits;
use crate::logic::http::Parsed;

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes up to the addresses: signature, version and command, family, length.
const FIXED_BYTES: usize = SIGNATURE.len() + 4;

// Version in the upper half of the byte, command in the lower one.
const VERSION: u8 = 0x20;
const LOCAL: u8 = VERSION;
const PROXY: u8 = VERSION | 1;

// Family in the upper half of the byte, transport in the lower one.
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const UDP4: u8 = 0x12;
const TCP6: u8 = 0x21;
const UDP6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;

/// Bytes of two paths of Unix sockets.
const UNIX_BYTES: usize = 2 * 108;

// Types of fields.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;

/// Bytes of the type and the length of a field.
const FIELD_HEAD_BYTES: usize = 3;
/// Bytes of an `SSL` field before the fields within: which client, what verification came to.
const SSL_HEAD_BYTES: usize = 5;

/// `bytes` begin as the signature does.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<Header<'_>>, HeaderFault> {
    let Some(&command) = bytes.get(SIGNATURE.len()) else { return Ok(Parsed::Partial) };
    if command & 0xf0 != VERSION {
        return Err(HeaderFault::BadVersion);
    }
    if command != LOCAL && command != PROXY {
        return Err(HeaderFault::BadCommand);
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(Parsed::Partial) };
    let [.., family, high, low] = *fixed;
    let len = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > limits::PROXY_HEADER {
        return Err(HeaderFault::TooLong);
    }
    let Some(header) = bytes.get(..len) else { return Ok(Parsed::Partial) };
    // Of the proxy's own connections the family and all that follows are to be discarded.
    let (provenance, fields) = match command {
        LOCAL => (Provenance::Local, &[][..]),
        _ => provenance(family, &header[FIXED_BYTES..])?,
    };
    Ok(Parsed::Complete(Header { len, provenance, details: details(header, fields)? }))
}

/// Whom the addresses name, and the fields behind them.
fn provenance(family: u8, block: &[u8]) -> Result<(Provenance, &[u8]), HeaderFault> {
    match family {
        // How long an address of no family is nobody can know, so where fields would begin neither.
        UNSPECIFIED => Ok((Provenance::Unknown, &[])),
        TCP4 | UDP4 => proxied::<4>(block).ok_or(HeaderFault::TooShort),
        TCP6 | UDP6 => proxied::<16>(block).ok_or(HeaderFault::TooShort),
        UNIX_STREAM | UNIX_DATAGRAM => {
            let (_, fields) = block.split_at_checked(UNIX_BYTES).ok_or(HeaderFault::TooShort)?;
            Ok((Provenance::Unix, fields))
        }
        _ => Err(HeaderFault::BadFamily),
    }
}

/// Two addresses of `N` bytes, two ports, and what follows.
fn proxied<const N: usize>(block: &[u8]) -> Option<(Provenance, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let (destination_port, fields) = rest.split_first_chunk()?;
    let address = |ip: &[u8; N], port: &[u8; 2]| canonical(IpAddr::from(*ip), u16::from_be_bytes(*port));
    let (source, destination) = (address(source, source_port), address(destination, destination_port));
    Some((Provenance::Proxied { source, destination }, fields))
}

/// Walks `fields`, the end of `header`.
fn details<'a>(header: &'a [u8], mut fields: &'a [u8]) -> Result<Details<'a>, HeaderFault> {
    let mut details = Details::default();
    let mut checksum = None;
    while !fields.is_empty() {
        let value_start = header.len() - fields.len() + FIELD_HEAD_BYTES;
        let (kind, value, rest) = split_field(fields)?;
        let earlier = match kind {
            ALPN => details.alpn.replace(value).is_some(),
            AUTHORITY => {
                let host = str::from_utf8(value).map_err(|_| HeaderFault::BadField)?;
                details.authority.replace(host).is_some()
            }
            UNIQUE_ID if value.len() > UNIQUE_ID_BYTES_MAX => return Err(HeaderFault::BadField),
            UNIQUE_ID => details.unique_id.replace(value).is_some(),
            CRC32C => {
                let value: [u8; 4] = value.try_into().map_err(|_| HeaderFault::BadField)?;
                checksum.replace((value_start, u32::from_be_bytes(value))).is_some()
            }
            SSL => {
                check_ssl(value)?;
                false
            }
            _ => false,
        };
        if earlier {
            return Err(HeaderFault::RepeatedField);
        }
        fields = rest;
    }
    match checksum {
        Some((at, expected)) if checksum_without(header, at) != expected => Err(HeaderFault::BadChecksum),
        _ => Ok(details),
    }
}

/// Type and value of the first field, and what follows it.
fn split_field(fields: &[u8]) -> Result<(u8, &[u8], &[u8]), HeaderFault> {
    let (&[kind, high, low], rest) = fields.split_first_chunk().ok_or(HeaderFault::BadField)?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let (value, rest) = rest.split_at_checked(len).ok_or(HeaderFault::BadField)?;
    Ok((kind, value, rest))
}

/// What the client proved to the proxy stays between them; its form is checked, so that no header is half understood.
fn check_ssl(value: &[u8]) -> Result<(), HeaderFault> {
    let (_, mut fields) = value.split_at_checked(SSL_HEAD_BYTES).ok_or(HeaderFault::BadField)?;
    while !fields.is_empty() {
        (_, _, fields) = split_field(fields)?;
    }
    Ok(())
}

/// The CRC32C (RFC 4960 appendix B) of `header` with zeros where its own checksum stands, at `at`.
fn checksum_without(header: &[u8], at: usize) -> u32 {
    let behind = &header[at + size_of::<u32>()..];
    !crc32c(crc32c(crc32c(!0, &header[..at]), &[0; 4]), behind)
}

/// Bit by bit: a header with a checksum is some hundred bytes, once per connection.
pub(super) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    const POLYNOMIAL_REVERSED: u32 = 0x82f6_3b78;
    bytes.iter().fold(seed, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL_REVERSED } else { 0 })
    })
}

/// Writes a header of version 2, without fields.
pub fn encode(out: &mut Vec<u8>, provenance: &Provenance) {
    out.extend_from_slice(SIGNATURE);
    match provenance {
        Provenance::Local => head(out, LOCAL, UNSPECIFIED, 0),
        Provenance::Unknown => head(out, PROXY, UNSPECIFIED, 0),
        Provenance::Unix => {
            head(out, PROXY, UNIX_STREAM, UNIX_BYTES as u16);
            // Sockets without a name, as those of clients are.
            out.extend_from_slice(&[0; UNIX_BYTES]);
        }
        Provenance::Proxied { source, destination } => addresses(out, source, destination),
    }
}

fn head(out: &mut Vec<u8>, command: u8, family: u8, len: u16) {
    out.extend_from_slice(&[command, family]);
    out.extend_from_slice(&len.to_be_bytes());
}

fn addresses(out: &mut Vec<u8>, source: &SocketAddr, destination: &SocketAddr) {
    match AddressPair::new(source.ip(), destination.ip()) {
        AddressPair::V4(source, destination) => {
            head(out, PROXY, TCP4, 12);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        AddressPair::V6(source, destination) => {
            head(out, PROXY, TCP6, 36);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}
