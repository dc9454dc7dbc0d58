//! A connection to an upstream over HTTP/2: a task that drives the codec, and requests that have places on it.
//!
//! The pool has the one [`Handle`] that is kept, each request has one while it lasts, and with the last of them the connection ends.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason};
use http::Request;

use super::Shard;
use super::connection::{self, Inbound};
use super::h2_stream::{Incoming, Outbox, Outgoing, Queued};
use super::tokio_io::{Io, Wire};
use super::transport::Lifetime;
use crate::config::limits;
use crate::config::plan::UpstreamPlan;
use crate::ids::UpstreamId;
use crate::logic::exchange::AttemptFaultKind;
use crate::logic::http::h2::frames::FrameWatch;
use crate::logic::http::h2::write_response;
use crate::logic::upstream::TargetId;
use crate::logic::upstream::shared::SharedId;
use crate::ring::Timer;

/// What requests use a connection by.
pub struct Handle {
    sender: RefCell<SendRequest<Queued>>,
    outbox: Rc<Outbox>,
    encrypted: bool,
    lifetime: Option<Lifetime>,
    /// Requests that are under way, and since when there is one.
    live: Cell<u32>,
    busy_since: Cell<Instant>,
    /// A request was sent on it.
    used: Cell<bool>,
    /// The task that drives the connection.
    driver: RefCell<Option<Waker>>,
}

/// A request on its way, and its response.
pub struct Exchange {
    handle: Rc<Handle>,
    response: RefCell<ResponseFuture>,
    pub outgoing: Outgoing,
}

/// Who drives a connection.
pub struct Driver {
    connection: Connection<Io, Queued>,
    wire: Rc<Wire>,
    handle: Weak<Handle>,
    ping_pong: PingPong,
    pinged_at: Option<Instant>,
    timer: Timer,
}

/// Begins to speak HTTP/2 on `connection`. Nothing of the peer is waited for.
///
/// # Errors
/// The connection is broken already.
pub async fn begin(
    shard: &Rc<Shard>,
    plan: &UpstreamPlan,
    connection: connection::Connection,
) -> Result<(Rc<Handle>, Driver), h2::Error> {
    let (encrypted, lifetime) = (connection.transport.is_encrypted(), connection.transport.lifetime());
    let (ring, now) = (&shard.ring, shard.now());
    let wire = Wire::new(ring, connection, FrameWatch::of_upstream(now));
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits::H2_STREAM_WINDOW)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW)
        .max_header_list_size((plan.limits.max_head + limits::H2_FIELD_OVERHEAD * plan.limits.max_fields) as u32)
        .header_table_size(limits::H2_FIELD_TABLE)
        .max_send_buffer_size(limits::H2_OUTPUT_QUEUE);
    let (sender, mut connection) = builder.handshake(wire.io()).await?;
    let ping_pong = connection.ping_pong().expect("taken once");
    let handle = Rc::new(Handle {
        sender: RefCell::new(sender),
        outbox: Rc::default(),
        encrypted,
        lifetime,
        live: Cell::new(0),
        busy_since: Cell::new(now),
        used: Cell::new(false),
        driver: RefCell::default(),
    });
    let timer = Timer::new(ring);
    let driver = Driver { connection, wire, handle: Rc::downgrade(&handle), ping_pong, pinged_at: None, timer };
    Ok((handle, driver))
}

impl Handle {
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// How long its TLS may be relied on.
    pub fn lifetime(&self) -> Option<Lifetime> {
        self.lifetime
    }

    /// Whether a request was sent on it before.
    pub fn is_used(&self) -> bool {
        self.used.get()
    }

    /// Requests that the peer takes at once, as far as is known.
    pub fn limit(&self) -> u32 {
        let limit = self.sender.borrow().current_max_send_streams();
        u32::try_from(limit).unwrap_or(u32::MAX).min(limits::H2_UPSTREAM_STREAMS)
    }

    /// Whether the connection takes requests. It does not any more once the peer has said so, or has gone.
    pub fn is_open(&self) -> bool {
        let polled = self.sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(polled, Poll::Ready(Ok(())))
    }

    /// Sends the head of a request; `ended` says that there is no more.
    ///
    /// # Errors
    /// The connection takes none. Nothing was sent.
    pub fn send(self: &Rc<Self>, request: Request<()>, ended: bool, now: Instant) -> Result<Exchange, h2::Error> {
        let (response, stream) = self.sender.borrow_mut().send_request(request, ended)?;
        self.used.set(true);
        self.live.set(self.live.get() + 1);
        if self.live.get() == 1 {
            self.busy_since.set(now);
            // It sees to it that the peer answers.
            if let Some(driver) = self.driver.take() {
                driver.wake();
            }
        }
        let outgoing = Outgoing::content(stream, &self.outbox);
        Ok(Exchange { handle: self.clone(), response: RefCell::new(response), outgoing })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.handle.live.set(self.handle.live.get() - 1);
    }
}

impl Exchange {
    /// Ready when the head of a response has come, which is put into `inbound` as one of HTTP/1.1. Behind the last of them comes its content.
    ///
    /// # Errors
    /// There will be none.
    pub fn poll_head(
        &self,
        to_head: bool,
        inbound: &mut Inbound,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Incoming>, AttemptFaultKind>> {
        let mut response = self.response.borrow_mut();
        let mut head = Vec::new();
        if let Some(interim) = ready!(response.poll_informational(cx)) {
            write_response(&mut head, &interim.map_err(|error| fault(&error))?, true, to_head);
            inbound.put_bytes(head);
            return Poll::Ready(Ok(None));
        }
        let response = ready!(Pin::new(&mut *response).poll(cx)).map_err(|error| fault(&error))?;
        let (parts, content) = response.into_parts();
        let incoming = Incoming::of_response(content, &parts.headers, to_head);
        let response = http::Response::from_parts(parts, ());
        write_response(&mut head, &response, incoming.is_complete(), to_head);
        inbound.put_bytes(head);
        Poll::Ready(Ok(Some(incoming)))
    }
}

/// What an error of the codec means for a request of which no response came.
pub fn fault(error: &h2::Error) -> AttemptFaultKind {
    // A GOAWAY reaches those only that came too late for it.
    let is_refused = error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
    match () {
        () if error.is_remote() && is_refused => AttemptFaultKind::Refused,
        () if error.is_library() => AttemptFaultKind::Malformed,
        () => AttemptFaultKind::Closed,
    }
}

/// Drives a connection to its end.
pub async fn drive(shard: Rc<Shard>, upstream: UpstreamId, target: TargetId, id: SharedId, mut driver: Driver) {
    let mut closed = Closed { shard, upstream, target, id };
    poll_fn(|cx| driver.poll(&mut closed, cx)).await;
}

/// Tells the pool that a connection is gone, also when its task panics.
struct Closed {
    shard: Rc<Shard>,
    upstream: UpstreamId,
    target: TargetId,
    id: SharedId,
}

impl Drop for Closed {
    fn drop(&mut self) {
        let next = self.shard.with(|state, _| {
            let upstream = state.upstream(self.upstream);
            upstream.forget(self.target, self.id);
            upstream.closed(self.target)
        });
        self.shard.queues.grant(self.upstream, next);
    }
}

impl Driver {
    /// Ready when the connection is gone.
    fn poll(&mut self, place: &mut Closed, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if Pin::new(&mut self.connection).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(handle) = self.handle.upgrade() else { return Poll::Pending };
            let Closed { shard, upstream, target, id } = place;
            if !handle.is_open() {
                shard.with(|state, _| state.upstream(*upstream).forget(*target, *id));
            } else {
                let limit = handle.limit();
                let granted = shard.with(|state, _| state.upstream(*upstream).limited(*target, *id, limit));
                granted.into_iter().for_each(|ticket| shard.queues.grant(*upstream, Some(ticket)));
            }
            let Some(end) = self.end_of_silence(&handle) else {
                let replaced = handle.driver.borrow_mut().replace(cx.waker().clone());
                drop(replaced);
                return Poll::Pending;
            };
            ready!(self.timer.poll_expired(end, cx));
            if self.pinged_at.is_some() || self.ping_pong.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.pinged_at = Some(shard.now());
        }
    }

    /// When the peer has been silent for too long; `None` while nobody waits for it.
    fn end_of_silence(&mut self, handle: &Handle) -> Option<Instant> {
        let heard_at = self.wire.received_at();
        if let Some(pinged_at) = self.pinged_at {
            if heard_at <= pinged_at {
                return Some(pinged_at + limits::H2_PING_PATIENCE);
            }
            // The answer, or anything else that shows that it is there.
            let _ = self.ping_pong.poll_pong(&mut Context::from_waker(Waker::noop()));
            self.pinged_at = None;
        }
        (handle.live.get() > 0).then(|| heard_at.max(handle.busy_since.get()) + limits::H2_PING_INTERVAL)
    }
}
