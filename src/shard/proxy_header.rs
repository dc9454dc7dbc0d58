//! PROXY headers: taken off a client's connection before anything else is read, and put in front of a connection to an upstream that wants to hear of
//! the client.
//!
//! Where the peer is one of those that the listener names, the header must be there; otherwise it is not looked for, so that nobody else can claim
//! an address. A peer that does not keep to this gets no answer, since what it speaks is not known.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use thiserror::Error;

use super::Phase;
use super::connection::Connection;
use super::counters::add;
use super::serve_h1::Session;
use crate::config::plan::{ProxyVersion, covers};
use crate::logic::http::{ClientText, Parsed};
use crate::logic::proxy_protocol::{self, HeaderFault, Provenance};
use crate::ring::{Expired, Size, Stream};

/// Why there is no header.
#[derive(Debug, Error)]
enum TakeError {
    #[error(transparent)]
    Malformed(#[from] HeaderFault),
    #[error("the connection ended within its PROXY header")]
    Truncated,
    #[error("the PROXY header did not come in time")]
    Late,
    /// The peer sent nothing and has left, as health checks do, or we are about to.
    #[error("the connection ended before its PROXY header")]
    Left,
}

/// Takes the header off, if the peer must send one; from then on its client is the session's. `false` when the connection is to be closed.
pub async fn take(session: &mut Session) -> bool {
    let Some(peer) = session.connection.transport.stream.peer() else { return true };
    if !covers(&session.listener().proxy_headers_from, peer.ip()) {
        return true;
    }
    let end = session.shard().now() + session.listener().timeouts.header;
    let taken = poll_fn(|cx| poll_take(session, end, cx)).await;
    session.timer.clear();
    match &taken {
        Ok(provenance) => introduce(session, *provenance),
        Err(error) => refuse(session, peer, error),
    }
    taken.is_ok()
}

/// Whose requests come on `stream`, where a proxy in front said `provenance`.
pub fn provenance(said: Option<&Provenance>, stream: &Stream) -> Provenance {
    let of_socket = || match (stream.peer(), stream.local()) {
        (Some(source), Some(destination)) => Provenance::Proxied { source, destination },
        (None, None) => Provenance::Unix,
        // Reset meanwhile.
        (None, Some(_)) | (Some(_), None) => Provenance::Unknown,
    };
    // The proxy itself is the client of its own connections.
    said.filter(|said| **said != Provenance::Local).copied().unwrap_or_else(of_socket)
}

/// The header for this client.
pub fn write(version: ProxyVersion, provenance: &Provenance) -> Vec<u8> {
    let mut header = Vec::new();
    match version {
        ProxyVersion::V1 => proxy_protocol::encode_v1(&mut header, provenance),
        ProxyVersion::V2 => proxy_protocol::encode_v2(&mut header, provenance),
    }
    header
}

fn poll_take(session: &mut Session, end: Instant, cx: &mut Context<'_>) -> Poll<Result<Provenance, TakeError>> {
    let is_draining = session.shard().phase() == Phase::Draining;
    let Session { connection: Connection { transport, inbound }, timer, .. } = session;
    loop {
        match proxy_protocol::parse(inbound.bytes())? {
            Parsed::Complete(header) => {
                let (len, provenance) = (header.len, header.provenance);
                inbound.consume(len);
                return Poll::Ready(Ok(provenance));
            }
            // The rest may take its time.
            Parsed::Partial => inbound.release_buf(),
        }
        match inbound.poll_fill(transport, Size::Small, cx) {
            Poll::Ready(Ok(true)) => {}
            Poll::Ready(Ok(false) | Err(_)) if inbound.is_empty() => return Poll::Ready(Err(TakeError::Left)),
            Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(Err(TakeError::Truncated)),
            Poll::Pending => break,
        }
    }
    if is_draining {
        return Poll::Ready(Err(TakeError::Left));
    }
    let Expired = ready!(timer.poll_expired(end, cx));
    Poll::Ready(Err(TakeError::Late))
}

/// Makes the header's client the one that requests are from.
fn introduce(session: &mut Session, provenance: Provenance) {
    session.provenance = Some(Box::new(provenance));
    match provenance {
        Provenance::Proxied { source, .. } => {
            session.client = ClientText::new(source.ip());
            session.trusted = covers(&session.listener().forwarded.trust, source.ip());
        }
        Provenance::Unix => {
            session.client = ClientText::unknown();
            session.trusted = false;
        }
        // The peer is the best that is known of its client, but what the client says is not the peer's word.
        Provenance::Unknown => session.trusted = false,
        Provenance::Local => {}
    }
}

fn refuse(session: &Session, peer: SocketAddr, error: &TakeError) {
    let shard = session.shard();
    let counters = &shard.counters.listeners[session.listener_id().index()];
    match error {
        TakeError::Left => return,
        TakeError::Late => add(&counters.proxy_headers_late, 1),
        TakeError::Malformed(_) | TakeError::Truncated => add(&counters.proxy_headers_malformed, 1),
    }
    if let Some(left_out) = shard.warnings.proxy_header_refused.admit(shard.now()) {
        let listener = &session.listener().name;
        tracing::warn!(listener, %peer, %error, left_out, "connection closed for want of its PROXY header");
    }
}
