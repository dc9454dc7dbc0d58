//! A client's connection over HTTP/1.1: one request after the other, each served before the next is read.
//!
//! The task of a connection holds little: the socket, a timer, a few facts. What serving a request takes is borrowed for as long as it is served.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustls::{CertificateError, ServerConfig};

use super::client::{Answered, Client, ClientEnd};
use super::connection::Connection;
use super::counters::add;
use super::listen::Open;
use super::prepare::{self, Prepared};
use super::record::Record;
use super::reuse::Slots;
use super::tls::Shown;
use super::tls::Tls;
use super::tls::contexts::HTTP2;
use super::transport::{HandshakeError, Sending, handshake};
use super::{Phase, Shard, clock, proxy_header, relay, serve_h2};
use crate::config::plan::{ListenerPlan, covers};
use crate::config::validity;
use crate::deadline::Deadline;
use crate::logic::http::forwarded::{self, ClientText};
use crate::logic::http::h2::frames::PREFACE;
use crate::logic::http::{BodyReader, HeadScan, ProblemKind};
use crate::logic::proxy_protocol::Provenance;
use crate::ring::{Expired, Size, Timer};

/// Content of a request that nobody wants is read up to here, so that its connection can be kept.
pub const DISCARD_BYTES: u64 = 64 * 1024;
/// How long a connection that is closed after an error still reads, so that the client gets to see the answer.
pub const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are read meanwhile.
const LINGER_BYTES: usize = 1024 * 1024;

/// A client's connection.
pub struct Session {
    pub open: Open,
    pub connection: Connection,
    pub timer: Timer,
    pub client: ClientText,
    /// What the PROXY header said that the connection began with. Boxed: most have none.
    pub provenance: Option<Box<Provenance>>,
    /// What upstreams hear of the client's certificate, if there is one for them to hear of. It came in a handshake message, which has 64 KiB at most.
    pub client_cert: Option<Box<str>>,
    /// Whether the peer's word is taken for who the client is.
    pub trusted: bool,
    /// Requests served on this connection.
    pub served: u64,
    /// The end of a response that is on its way to the client.
    pub flushing: Option<Sending>,
    /// The client did not get all of a response: nothing may make it look complete.
    pub broken: bool,
}

/// What becomes of a connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Keep,
    Close,
    /// Close, but let the client read what was sent: it may still be sending.
    Linger,
}

/// The futures that serve requests.
pub type Serving = Slots<Box<Session>, (Box<Session>, After)>;

pub fn serving() -> Rc<Serving> {
    Slots::new(request)
}

impl Session {
    /// Boxed, because it is handed to a serving future and back with each request.
    pub fn new(open: Open, connection: Connection) -> Box<Self> {
        let peer = connection.transport.stream.peer();
        let forwarded = &open.shard.plan.listeners[open.listener.index()].forwarded;
        let trusted = match peer {
            Some(peer) => covers(&forwarded.trust, peer.ip()),
            None => false,
        };
        let client = peer.map_or(ClientText::unknown(), |peer| ClientText::new(peer.ip()));
        let timer = Timer::new(&open.shard.ring);
        Box::new(Self {
            open,
            connection,
            timer,
            client,
            provenance: None,
            client_cert: None,
            trusted,
            served: 0,
            flushing: None,
            broken: false,
        })
    }

    pub fn shard(&self) -> &Rc<Shard> {
        &self.open.shard
    }

    pub fn listener(&self) -> &ListenerPlan {
        &self.open.shard.plan.listeners[self.listener_id().index()]
    }

    pub fn listener_id(&self) -> crate::ids::ListenerId {
        self.open.listener
    }

    /// Whether no further request is taken on this connection.
    pub fn is_last(&self) -> bool {
        let limit = self.listener().limits.max_requests_per_connection;
        self.shard().phase() == Phase::Draining || limit > 0 && self.served + 1 >= limit
    }

    /// Waits for the first bytes of a request. `false` when the connection is to be closed instead.
    ///
    /// This is where an idle connection spends its life, so the wait keeps nothing but two times.
    async fn await_request(&mut self, patience: Duration) -> bool {
        let now = self.shard().now();
        let (idle_end, flush_end) = (now + patience, now + self.listener().timeouts.write);
        let has_bytes = poll_fn(|cx| self.poll_request(idle_end, flush_end, cx)).await;
        self.timer.clear();
        let Poll::Ready(flushed) = self.try_flush() else { return has_bytes && Box::pin(self.flush()).await };
        has_bytes && flushed
    }

    /// Nobody is told when the last response has gone out; who asks for more has got it. So it is looked at when bytes come, or when the client has had
    /// time enough to take it.
    fn poll_request(&mut self, idle_end: Instant, flush_end: Instant, cx: &mut Context<'_>) -> Poll<bool> {
        let Self { open, connection: Connection { transport, inbound }, timer, flushing, .. } = self;
        loop {
            // An empty line behind the content of a request is no other request yet (RFC 9112 section 2.2).
            if inbound.bytes() == b"\r\n" {
                inbound.consume(2);
            }
            if !inbound.is_empty() {
                return Poll::Ready(true);
            }
            match inbound.poll_fill(transport, Size::Small, cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(false),
                Poll::Pending => break,
            }
        }
        // Only now: a request that came in the same turn as the drain's knock is answered, and its connection closed after that.
        if open.shard.phase() == Phase::Draining {
            return Poll::Ready(false);
        }
        let end = if flushing.is_some() { idle_end.min(flush_end) } else { idle_end };
        ready!(timer.poll_expired(end, cx));
        if end == idle_end || self.try_flush() != Poll::Ready(true) {
            return Poll::Ready(false);
        }
        self.timer.poll_expired(idle_end, cx).map(|Expired| false)
    }

    /// Whether the client has taken everything; pending while it has not, and nobody is told when it has.
    fn try_flush(&mut self) -> Poll<bool> {
        let Some(flushing) = &mut self.flushing else { return Poll::Ready(true) };
        let (sent, _) = ready!(flushing.try_sent());
        self.flushing = None;
        Poll::Ready(sent.is_ok())
    }

    /// Waits until the last response has gone out. `false` when the client does not take it.
    async fn flush(&mut self) -> bool {
        let patience = self.listener().timeouts.write;
        let Self { open, timer, flushing, .. } = self;
        let Some(flushing) = flushing.take() else { return true };
        let deadline = Deadline::after(open.shard.now(), patience);
        relay::settle(flushing, timer, patience, deadline, &open.shard.ring).await.is_ok()
    }

    fn client(&mut self) -> Client<'_> {
        let is_last = self.is_last();
        let Self { open, connection, timer, flushing, broken, provenance, .. } = self;
        let end = ClientEnd::H1 { connection, flushing, broken, provenance: provenance.as_deref() };
        Client { shard: &open.shard, listener: open.listener, timer, end, is_last }
    }

    /// Reads what is left of a request's content, if that is little. Returns whether the connection is at the next request then.
    pub async fn discard(&mut self, reader: &mut BodyReader) -> bool {
        let patience = self.listener().timeouts.body;
        let mut left = DISCARD_BYTES;
        let end = self.shard().now() + patience;
        let Self { connection: Connection { transport, inbound }, timer, .. } = self;
        loop {
            let Ok(decoded) = reader.decode(inbound.bytes()) else { return false };
            inbound.consume(decoded.consumed);
            if decoded.complete {
                return true;
            }
            let Some(rest) = left.checked_sub(decoded.consumed as u64) else { return false };
            if reader.remaining_hint().is_some_and(|remaining| remaining > rest) {
                return false;
            }
            left = rest;
            let filling = poll_fn(|cx| inbound.poll_fill(transport, Size::Small, cx));
            if !matches!(timer.within(end, filling).await, Ok(Ok(true))) {
                return false;
            }
        }
    }

    /// Lets the last response go out, and the client read it.
    async fn close(mut self: Box<Self>, lingers: bool) {
        if self.broken || !self.flush().await {
            return;
        }
        match lingers {
            true => {
                let end = self.shard().now() + LINGER;
                linger(&mut self.connection, &mut self.timer, end).await;
            }
            false => self.connection.transport.say_end(),
        }
    }
}

/// Ends a connection whose client may still be sending, until `end`: an immediate close would reset it, and the client could lose the answer.
pub async fn linger(connection: &mut Connection, timer: &mut Timer, end: Instant) {
    let Connection { transport, inbound } = connection;
    let ended = timer.within(end, pin!(transport.shutdown_write())).await;
    if !matches!(ended, Ok(Ok(()))) {
        return;
    }
    let mut left = LINGER_BYTES;
    loop {
        let Some(rest) = left.checked_sub(inbound.bytes().len()) else { return };
        left = rest;
        let arrived = inbound.bytes().len();
        inbound.consume(arrived);
        let filling = poll_fn(|cx| inbound.poll_fill(transport, Size::Small, cx));
        if !matches!(timer.within(end, filling).await, Ok(Ok(true))) {
            return;
        }
    }
}

/// Serves a connection to its end.
pub async fn serve(mut session: Box<Session>) {
    if !session.listener().proxy_headers_from.is_empty() && !Box::pin(proxy_header::take(&mut session)).await {
        return;
    }
    let tls = session.shard().tls.borrow().listeners[session.listener_id().index()].clone();
    // Large, and soon over: what waits for requests is small.
    let agreed = match tls {
        Some(config) => Box::pin(begin_tls(&mut session, config)).await,
        None if session.listener().http2 => Box::pin(await_preface(&mut session)).await,
        None => Some(Agreed::Http1),
    };
    match agreed {
        None => return,
        Some(Agreed::Http1) => {}
        Some(Agreed::Http2 { shown }) => return Box::pin(serve_h2::serve(session, shown)).await,
    }
    let mut patience = session.listener().timeouts.header;
    let mut lingers = false;
    while session.await_request(patience).await {
        let serving = session.shard().serving.clone();
        let (served, after) = serving.run(session).await;
        session = served;
        patience = session.listener().timeouts.idle;
        lingers = after == After::Linger;
        if after != After::Keep {
            break;
        }
    }
    Box::pin(session.close(lingers)).await;
}

/// What is spoken on a connection.
enum Agreed {
    Http1,
    Http2 {
        /// What the client got to see in its TLS handshake, if there was one.
        shown: Option<Shown>,
    },
}

/// Waits for the first bytes of a client that may know that HTTP/2 is spoken here (RFC 9113 section 3.3). `None` when they do not come.
async fn await_preface(session: &mut Session) -> Option<Agreed> {
    let end = session.shard().now() + session.listener().timeouts.header;
    let Session { open, connection: Connection { transport, inbound }, timer, .. } = session;
    loop {
        let bytes = inbound.bytes();
        if !PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]) {
            return Some(Agreed::Http1);
        }
        if bytes.len() >= PREFACE.len() {
            return Some(Agreed::Http2 { shown: None });
        }
        let filling = poll_fn(|cx| match inbound.poll_fill(transport, Size::Small, cx) {
            // The drain has knocked.
            Poll::Pending if open.shard.phase() == Phase::Draining => Poll::Ready(Ok(false)),
            filled => filled,
        });
        if !matches!(timer.within(end, filling).await, Ok(Ok(true))) {
            return None;
        }
    }
}

/// Shakes hands. `None` when that came to nothing.
async fn begin_tls(session: &mut Session, config: Arc<ServerConfig>) -> Option<Agreed> {
    let shard = session.shard().clone();
    let (id, listener) = (session.listener_id(), &shard.plan.listeners[session.listener_id().index()]);
    let counters = &shard.counters.listeners[id.index()];
    let end = shard.now() + listener.timeouts.tls_handshake;
    // What came behind a PROXY header.
    let first = session.connection.inbound.take_bytes();
    let Connection { transport, inbound } = &mut session.connection;
    let shaken = async {
        let mut tls = Tls::server(config)?;
        let content = handshake(&transport.stream, &mut tls, &first, &mut session.timer, end).await?;
        // In a session that is resumed it was verified some time ago, and a session can be resumed for ever.
        let not_after = tls.peer_certificate().and_then(validity::not_after);
        match not_after.is_some_and(|end| end + validity::LAST_SECOND <= clock::wall()) {
            true => Err(HandshakeError::Tls(CertificateError::Expired.into())),
            false => Ok((tls, content)),
        }
    };
    match shaken.await {
        Ok((mut tls, content)) => {
            add(&counters.tls_handshakes, 1);
            session.client_cert = client_cert(listener, &tls);
            let agreed = match tls.protocol() {
                Some(HTTP2) => Agreed::Http2 { shown: tls.take_shown() },
                _ => Agreed::Http1,
            };
            transport.encrypt(tls, None);
            inbound.put_bytes(content);
            Some(agreed)
        }
        Err(error) => {
            add(&counters.tls_handshake_failures, 1);
            tracing::debug!(listener = listener.name, %error, "TLS handshake failed");
            None
        }
    }
}

fn client_cert(listener: &ListenerPlan, tls: &Tls) -> Option<Box<str>> {
    listener.tls.as_ref()?.client_certificates.as_ref().filter(|clients| clients.forward)?;
    tls.peer_certificate().map(|certificate| forwarded::client_cert(certificate).into())
}

/// Serves one request, whose first bytes are there.
async fn request(mut session: Box<Session>) -> (Box<Session>, After) {
    let shard = session.shard().clone();
    let counters = &shard.counters.listeners[session.listener_id().index()];
    let started = shard.now();
    add(&counters.requests, 1);
    let open = RequestsOpen::new(&counters.requests_open);
    let mut record = Record::new(&shard);
    let after = match read_head(&mut session, &mut record, started).await {
        Ok(prepared) => answer(&mut session, prepared, &mut record).await,
        Err(after) => after,
    };
    session.served += 1;
    record.finish(&shard, counters);
    drop(open);
    (session, after)
}

/// Counts down also when the request's future is dropped half-way.
pub struct RequestsOpen<'c>(&'c Cell<u64>);

impl<'c> RequestsOpen<'c> {
    pub fn new(gauge: &'c Cell<u64>) -> Self {
        add(gauge, 1);
        Self(gauge)
    }
}

impl Drop for RequestsOpen<'_> {
    fn drop(&mut self) {
        super::counters::subtract(self.0, 1);
    }
}

/// Reads until a head is complete, and decides what to do about it.
async fn read_head(session: &mut Session, record: &mut Record, started: Instant) -> Result<Prepared, After> {
    let end = started + session.listener().timeouts.header;
    let limits = prepare::head_limits(session.listener());
    let mut scan = HeadScan::default();
    loop {
        if let Some(prepared) = prepare::prepare(session, record) {
            return Ok(prepared);
        }
        // Not all here: parse again only when the rest is.
        session.connection.inbound.release_buf();
        loop {
            let Session { connection: Connection { transport, inbound }, timer, .. } = session;
            let filling = poll_fn(|cx| inbound.poll_fill(transport, Size::Small, cx));
            match timer.within(end, filling).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false) | Err(_)) => return Err(After::Close),
                Err(_) => return Ok(Prepared::Refuse(ProblemKind::RequestTimeout)),
            }
            if scan.complete(session.connection.inbound.bytes(), &limits) {
                break;
            }
        }
    }
}

async fn answer(session: &mut Session, prepared: Prepared, record: &mut Record) -> After {
    if let Prepared::Refuse(_) = &prepared {
        let unread = session.connection.inbound.bytes().len();
        record.refuse(session.shard(), &session.listener().name, &session.client, unread);
    }
    match session.client().answer(prepared, record).await {
        Answered::Exchanged(after) => after,
        Answered::Ourselves { taken: false, .. } => After::Close,
        Answered::Ourselves { mut reader, keep, .. } => {
            if keep && session.discard(&mut reader).await {
                After::Keep
            } else {
                After::Linger
            }
        }
    }
}
