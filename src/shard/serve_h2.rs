//! A client's connection over HTTP/2: a task that drives the codec, and one for each request.
//!
//! The codec is the crate `h2`. What it leaves to its user is here: who may wait for how long, how a connection ends, and what is too much.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};

use super::client::{Client, ClientEnd};
use super::counters::{ListenerCounters, add};
use super::h2_stream::{Incoming, Outbox, Outgoing, Queued};
use super::listen::Open;
use super::record::Record;
use super::reuse::Slots;
use super::serve_h1::{DISCARD_BYTES, LINGER, RequestsOpen, Session, linger};
use super::tls::Shown;
use super::tokio_io::{Io, Wire};
use super::{Phase, Shard, prepare, proxy_header, task};
use crate::config::limits;
use crate::config::plan::ListenerPlan;
use crate::logic::coverage;
use crate::logic::http::ClientText;
use crate::logic::http::h2::RequestParts;
use crate::logic::http::h2::frames::FrameWatch;
use crate::logic::proxy_protocol::Provenance;
use crate::ring::Timer;

/// What the tasks of one connection share.
struct Shared {
    open: Open,
    client: ClientText,
    provenance: Provenance,
    trusted: bool,
    encrypted: bool,
    /// What upstreams hear of the client's certificate.
    client_cert: Option<Box<str>>,
    /// What the client got to see in its TLS handshake, if there was one.
    shown: Option<Shown>,
    outbox: Rc<Outbox>,
    /// Requests that are served. One that the client has reset is among them until its work has stopped.
    live: Cell<usize>,
    served: Cell<u64>,
    /// Since when none is.
    idle_since: Cell<Instant>,
    /// The task that drives the connection.
    driver: RefCell<Option<Waker>>,
}

/// One request.
pub struct Stream {
    live: Live,
    timer: Timer,
    head: Parts,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// The futures that serve requests.
pub type Serving = Slots<Box<Stream>, ()>;

pub fn serving() -> Rc<Serving> {
    Slots::new(request)
}

/// Serves a connection to its end; the client's preface is the next that comes, or some of it has come.
pub async fn serve(session: Box<Session>, shown: Option<Shown>) {
    let Session { open, connection, timer, client, client_cert, trusted, provenance, .. } = *session;
    let now = open.shard.now();
    let shared = Rc::new(Shared {
        client,
        provenance: proxy_header::provenance(provenance.as_deref(), &connection.transport.stream),
        trusted,
        encrypted: connection.transport.is_encrypted(),
        client_cert,
        shown,
        outbox: Rc::default(),
        live: Cell::new(0),
        served: Cell::new(0),
        idle_since: Cell::new(now),
        driver: RefCell::default(),
        open,
    });
    let wire = Wire::new(&shared.shard().ring, connection, FrameWatch::of_client(now));
    let look_at = now + shared.plan().timeouts.write;
    let mut driver = Driver { shared, wire, timer, closing_since: None, look_at };
    if let Some(mut codec) = driver.begin().await {
        while let Some((request, respond)) = poll_fn(|cx| driver.poll_next(&mut codec, cx)).await {
            driver.spawn(request, respond, &mut codec);
        }
    }
    driver.end().await;
}

type Codec = Connection<Io, Queued>;

/// Who drives a connection's codec.
struct Driver {
    shared: Rc<Shared>,
    wire: Rc<Wire>,
    timer: Timer,
    /// Since when the connection is about to end; what is under way goes on.
    closing_since: Option<Instant>,
    /// When to look again whether the client takes what it gets.
    look_at: Instant,
}

impl Driver {
    /// Exchanges the first words. `None` when that came to nothing.
    async fn begin(&mut self) -> Option<Codec> {
        let plan = self.shared.plan();
        let fields = plan.limits.max_fields + limits::COOKIE_CRUMBS;
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(plan.limits.max_concurrent_streams)
            .initial_window_size(limits::H2_STREAM_WINDOW)
            .initial_connection_window_size(limits::H2_CONNECTION_WINDOW)
            .max_header_list_size((plan.limits.max_head + limits::H2_FIELD_OVERHEAD * fields) as u32)
            .header_table_size(limits::H2_FIELD_TABLE)
            .max_send_buffer_size(limits::H2_OUTPUT_QUEUE)
            .max_local_error_reset_streams(Some(limits::H2_REFUSALS))
            .max_pending_accept_reset_streams(limits::H2_UNSEEN_RESETS);
        let end = self.shared.shard().now() + plan.timeouts.header;
        let shaken = self.timer.within(end, pin!(builder.handshake(self.wire.io()))).await;
        shaken.ok()?.ok()
    }

    /// The next request. `None` when there will be none, and nothing is under way.
    fn poll_next(
        &mut self,
        codec: &mut Codec,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(Request<RecvStream>, SendResponse<Queued>)>> {
        loop {
            let polled = codec.poll_accept(cx);
            if let Some(flood) = self.wire.flood()
                && self.closing_since.is_none()
            {
                self.shared.counters().flood(flood);
                self.close_at_once(codec, Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            match polled {
                Poll::Ready(Some(Ok(accepted))) => return Poll::Ready(Some(accepted)),
                Poll::Ready(Some(Err(error))) => {
                    if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        add(&self.shared.counters().floods_codec, 1);
                    }
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            if self.shared.shard().phase() == Phase::Draining && self.closing_since.is_none() {
                self.close(codec);
                continue;
            }
            if self.timer.poll_expired(self.end_of_patience(), cx).is_pending() {
                let replaced = self.shared.driver.borrow_mut().replace(cx.waker().clone());
                drop(replaced);
                return Poll::Pending;
            }
            if !self.expire(codec) {
                return Poll::Ready(None);
            }
        }
    }

    fn spawn(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Queued>, codec: &mut Codec) {
        let shared = &self.shared;
        let limits = &shared.plan().limits;
        // The codec counts streams until they are reset; here they count until their work has stopped.
        if shared.live.get() >= limits.max_concurrent_streams as usize {
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let (head, content) = request.into_parts();
        let stream = Box::new(Stream {
            live: Live::new(shared),
            timer: Timer::new(&shared.shard().ring),
            head,
            incoming: Incoming::new(content),
            outgoing: Outgoing::response(respond, &shared.outbox),
        });
        task::spawn(shared.shard().serving_h2.run(stream));
        let limit = limits.max_requests_per_connection;
        if limit > 0 && shared.served.get() >= limit && self.closing_since.is_none() {
            self.close(codec);
        }
    }

    /// Takes no more requests, and lets those that are under way end.
    fn close(&mut self, codec: &mut Codec) {
        codec.graceful_shutdown();
        self.closing_since = Some(self.shared.shard().now());
    }

    fn close_at_once(&mut self, codec: &mut Codec, reason: Reason) {
        codec.abrupt_shutdown(reason);
        self.closing_since = Some(self.shared.shard().now());
    }

    fn end_of_patience(&self) -> Instant {
        let timeouts = &self.shared.plan().timeouts;
        let end_of_head =
            self.wire.head_since().filter(|_| self.closing_since.is_none()).map(|since| since + timeouts.header);
        let end_of_idleness = (self.shared.live.get() == 0).then(|| {
            let since = self.shared.idle_since.get();
            match self.closing_since {
                Some(closing) => closing.max(since) + LINGER,
                None if self.shared.served.get() == 0 => since + timeouts.header,
                None => since + timeouts.idle,
            }
        });
        [end_of_head, end_of_idleness].into_iter().flatten().fold(self.look_at, Instant::min)
    }

    /// Acts on the end of a patience. `false` when the connection is of no use any more.
    fn expire(&mut self, codec: &mut Codec) -> bool {
        let now = self.shared.shard().now();
        let timeouts = &self.shared.plan().timeouts;
        if now >= self.look_at {
            let stalled_since = self.wire.stalled_since();
            self.look_at = stalled_since.unwrap_or(now) + timeouts.write;
            if now >= self.look_at {
                return false;
            }
        }
        if now < self.end_of_patience() {
            return true;
        }
        if self.closing_since.is_some() {
            return false;
        }
        if self.wire.head_since().is_some_and(|since| now >= since + timeouts.header) {
            self.close_at_once(codec, Reason::ENHANCE_YOUR_CALM);
        } else {
            self.close(codec);
        }
        true
    }

    /// Closes the connection, and lets the client read why.
    async fn end(self) {
        let Self { shared, wire, mut timer, .. } = self;
        if let Some(mut connection) = wire.into_connection() {
            let end = shared.shard().now() + LINGER;
            linger(&mut connection, &mut timer, end).await;
        }
    }
}

impl Shared {
    fn shard(&self) -> &Rc<Shard> {
        &self.open.shard
    }

    fn plan(&self) -> &ListenerPlan {
        &self.open.shard.plan.listeners[self.open.listener.index()]
    }

    fn counters(&self) -> &ListenerCounters {
        &self.open.shard.counters.listeners[self.open.listener.index()]
    }
}

/// Counts a request for as long as it is served.
struct Live(Rc<Shared>);

impl Live {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.live.set(shared.live.get() + 1);
        shared.served.set(shared.served.get() + 1);
        Self(shared.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let Shared { live, idle_since, driver, open, .. } = &*self.0;
        live.set(live.get() - 1);
        if live.get() == 0 {
            idle_since.set(open.shard.now());
            if let Some(driver) = driver.take() {
                driver.wake();
            }
        }
    }
}

/// Serves one request.
async fn request(mut stream: Box<Stream>) {
    let Stream { live, timer, head, incoming, outgoing } = &mut *stream;
    let shared = &live.0;
    let (shard, listener) = (shared.shard(), shared.open.listener);
    let counters = shared.counters();
    add(&counters.requests, 1);
    let open = RequestsOpen::new(&counters.requests_open);
    let mut record = Record::new(shard);
    let limit = shared.plan().limits.max_requests_per_connection;
    let is_last = limit > 0 && shared.served.get() >= limit;
    let context = prepare::Context {
        shard,
        listener_id: listener,
        client: shared.client,
        trusted: shared.trusted,
        encrypted: shared.encrypted,
        client_cert: shared.client_cert.as_deref(),
        is_last,
    };
    let parts = RequestParts {
        method: &head.method,
        scheme: head.uri.scheme_str(),
        authority: head.uri.authority().map(Authority::as_str),
        path: head.uri.path_and_query().map_or("", PathAndQuery::as_str),
        fields: &head.headers,
        ended: incoming.is_complete(),
    };
    let prepared = prepare::prepare_stream(&context, &parts, &mut record, |host| match &shared.shown {
        Some(shown) => coverage::covers(&shown.names, shown.asked.as_deref(), host),
        None => true,
    });
    let mut client = Client {
        shard,
        listener,
        timer,
        end: ClientEnd::H2 { incoming, outgoing, provenance: &shared.provenance },
        is_last,
    };
    client.answer(prepared, &mut record).await;
    record.finish(shard, counters);
    drop(open);
    discard(incoming, timer, shard.now() + LINGER).await;
}

/// Reads a little of the content that nobody wants, until `end`. What is left then is stopped by a reset without an error (RFC 9113 section 8.1), which
/// some clients take for one that comes while they send.
async fn discard(incoming: &mut Incoming, timer: &mut Timer, end: Instant) {
    let mut left = DISCARD_BYTES;
    while !incoming.is_complete() {
        let filled = timer.within(end, poll_fn(|cx| incoming.poll_fill(cx))).await;
        if !matches!(filled, Ok(Ok(()))) {
            return;
        }
        while let Some(bytes) = incoming.take() {
            let Some(rest) = left.checked_sub(bytes.len() as u64) else { return };
            left = rest;
        }
    }
}
