//! The PROXY protocol, versions 1 and 2: one header in front of a connection's own bytes, by which a proxy says for whom it connects.
//!
//! Whoever may send such a header may claim any address. So whether to look for one is decided by who the peer is, never by the bytes: this module
//! reads a header where there must be one. It is strict for the same reason as our HTTP parser: behind a header that two parties could read in
//! two ways, or could end at two places, the first request would be anybody's.
//!
//! | File | Version | Looks like |
//! |---|---|---|
//! | `text` | 1 | `PROXY TCP4 192.0.2.1 198.51.100.2 56324 443` and CRLF |
//! | `binary` | 2 | a signature, a command, a length, addresses, type-length-value fields |
//!
//! The rules are those of haproxy.org's `proxy-protocol.txt`. The verdict depends on the bytes only, not on how they were cut into reads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::http::Parsed;

pub mod fuzzing;

mod binary;
mod text;

#[cfg(test)]
mod tests;

pub use binary::encode as encode_v2;
pub use text::encode as encode_v1;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Bytes of the header; what comes behind them is the connection's.
    pub len: usize,
    pub provenance: Provenance,
    pub details: Details<'a>,
}

/// For whom a proxy has opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// For a client that came to the proxy over IP, by TCP or UDP. Addresses are canonical: a mapped IPv4 address is an IPv4 address.
    Proxied {
        /// The client's own address.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
    /// For a client on a Unix socket of the proxy's host. The paths are of no use elsewhere and are not read.
    Unix,
    /// For a client that the proxy does not describe.
    Unknown,
    /// For the proxy itself, to check our health mostly. The socket's own addresses are the right ones. Version 1 cannot say this.
    Local,
}

/// What version 2 may say besides addresses. Empty in version 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details<'a> {
    /// The protocol that the client and the proxy agreed on, as in RFC 7301: `h2`.
    pub alpn: Option<&'a [u8]>,
    /// The host that the client asked the proxy for, mostly by SNI. As sent: any text at all.
    pub authority: Option<&'a str>,
    /// The proxy's name for the connection: at most [`UNIQUE_ID_BYTES_MAX`] bytes.
    pub unique_id: Option<&'a [u8]>,
}

/// Bytes of a unique id, by the specification.
pub const UNIQUE_ID_BYTES_MAX: usize = 128;

/// Why a connection was refused that must begin with a header. All of them are the peer's, and none is worth an answer: a peer that does not
/// speak the protocol has no business at such a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum HeaderFault {
    #[error("the connection does not begin with a PROXY header")]
    NoHeader,
    #[error("the header is too long")]
    TooLong,
    #[error("the line does not end in CRLF")]
    BadLineEnd,
    #[error("the protocol is none of TCP4, TCP6 and UNKNOWN")]
    BadProtocol,
    #[error("the line does not hold two addresses of its protocol")]
    BadAddress,
    #[error("the line does not end in two port numbers")]
    BadPort,
    #[error("the version of the binary header is not 2")]
    BadVersion,
    #[error("the command is neither LOCAL nor PROXY")]
    BadCommand,
    #[error("the address family or the transport is not known, or they do not go together")]
    BadFamily,
    #[error("the header is shorter than its addresses")]
    TooShort,
    #[error("a field of the header does not fit into it, or does not hold what its type demands")]
    BadField,
    #[error("a field that can have one value occurs twice")]
    RepeatedField,
    #[error("the checksum is wrong")]
    BadChecksum,
}

/// Reads the header that `bytes` must begin with. Once complete, the bytes behind it do not change the verdict.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Parsed<Header<'_>>, HeaderFault> {
    if begins_with(bytes, binary::SIGNATURE) {
        binary::parse(bytes)
    } else if begins_with(bytes, text::SIGNATURE) {
        text::parse(bytes)
    } else {
        Err(HeaderFault::NoHeader)
    }
}

/// Whether `bytes` are `signature` as far as both go. The two signatures differ in their first byte.
fn begins_with(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

/// Two addresses as a header can carry them.
enum AddressPair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl AddressPair {
    /// IPv4 where both are. Where one is, it is mapped: a header knows one family only.
    fn new(source: IpAddr, destination: IpAddr) -> Self {
        match (source.to_canonical(), destination.to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4(source, destination),
            (source, destination) => Self::V6(to_v6(source), to_v6(destination)),
        }
    }
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// An address that was read, without a second form of the same.
fn canonical(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}
