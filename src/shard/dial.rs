//! From an upstream to a connection: one that is kept, a new one, or a place in the queue for the next that comes free.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use socket2::SockAddr;

use super::client::ClientEnd;
use super::client_h2::{self, Handle};
use super::connection::Connection;
use super::counters::add;
use super::proxy_header;
use super::tls::Tls;
use super::tls::contexts::{HTTP2, UpstreamContext};
use super::transport::{HandshakeError, Lifetime, Transport, handshake};
use super::{Shard, clock, task};
use crate::config::plan::{Protocol, SocketAddress};
use crate::config::validity;
use crate::deadline::Deadline;
use crate::ids::UpstreamId;
use crate::logic::exchange::DialFault;
use crate::logic::upstream::shared::SharedId;
use crate::logic::upstream::{Checkout, TargetId, Ticket};
use crate::ring::{Expect, Outgoing, Size, Stream, Timer};

/// A connection in use, or leave to open one. Dropping it closes the connection and passes its place on.
pub struct Lease {
    shard: Rc<Shard>,
    upstream: UpstreamId,
    pub target: TargetId,
    held: Held,
    born: Instant,
    /// It served requests before.
    pub reused: bool,
}

/// What a lease is of.
pub enum Held {
    /// Leave to open a connection.
    Dial,
    /// Boxed: it goes back and forth between here and the pool.
    Connection(Box<Connection>),
    /// A place on a connection that others use as well.
    Place { id: SharedId, handle: Rc<Handle> },
}

impl Lease {
    pub fn held(&mut self) -> &mut Held {
        &mut self.held
    }

    /// The connection that the lease's request has for itself.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.held {
            Held::Connection(connection) => Some(connection),
            Held::Dial | Held::Place { .. } => None,
        }
    }

    /// Keeps the connection for the next request. The caller knows that it is between two messages; a peer that has sent more than its message is
    /// dropped, and one that does so later, or closes, is found out before the next use. One that was opened with other certificates than are in use now is
    /// dropped, too. A place is given up in any case.
    pub fn keep(mut self) {
        let mut connection = match std::mem::replace(&mut self.held, Held::Dial) {
            Held::Connection(connection)
                if !connection.inbound.has_bytes() && !self.shard.is_outdated(self.upstream, &connection) =>
            {
                connection
            }
            held => {
                self.held = held;
                return;
            }
        };
        connection.arm(Size::Small, Expect::Later);
        let (upstream, target, born) = (self.upstream, self.target, self.born);
        let next = self.shard.with(|state, now| state.upstream(upstream).put_back(target, connection, born, now));
        self.shard.queues.grant(upstream, next);
        self.reused = false;
        self.target = TargetId::NONE;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.target == TargetId::NONE {
            return;
        }
        let (upstream, target) = (self.upstream, self.target);
        let next = self.shard.with(|state, now| {
            let upstream = state.upstream(upstream);
            match &self.held {
                Held::Dial => upstream.not_opened(target),
                Held::Connection(_) => upstream.closed(target),
                Held::Place { id, .. } => upstream.leave(target, *id, now),
            }
        });
        self.shard.queues.grant(upstream, next);
    }
}

/// What a dial may use of the exchange that it serves.
pub struct Dialer<'a, 'c> {
    pub shard: &'a Rc<Shard>,
    pub upstream: UpstreamId,
    /// Watched: nobody dials for a client that is gone.
    pub client: &'a mut ClientEnd<'c>,
    pub timer: &'a mut Timer,
    pub deadline: Deadline,
}

impl Dialer<'_, '_> {
    /// A connection to the upstream; a `fresh` one is new.
    ///
    /// # Errors
    /// See [`DialFault`].
    pub async fn lease(&mut self, fresh: bool, avoid: Option<TargetId>) -> Result<Lease, DialFault> {
        let upstream = self.upstream;
        let mut granted = false;
        loop {
            let checkout = self.shard.with(|state, now| state.upstream(upstream).checkout(now, fresh, avoid, granted));
            match checkout {
                Checkout::Reuse { target, connection, born } => {
                    let mut lease = self.hold(target, Held::Connection(connection), born);
                    // A kept connection that was closed, or on which something came unasked, is not used: the next one is.
                    if lease.connection().is_some_and(|connection| !connection.is_disturbed()) {
                        return Ok(lease);
                    }
                    granted = false;
                }
                Checkout::Share { target, id, handle } => {
                    let is_open = handle.is_open() && !self.shard.is_past(upstream, handle.lifetime());
                    let lease = self.hold(target, Held::Place { id, handle }, self.shard.now());
                    if is_open {
                        return Ok(lease);
                    }
                    self.shard.with(|state, _| state.upstream(upstream).forget(target, id));
                    granted = false;
                }
                Checkout::Dial { target } => return Box::pin(self.open(target)).await,
                Checkout::Wait => {
                    Box::pin(self.wait()).await?;
                    granted = true;
                }
                Checkout::QueueFull => {
                    add(&self.shard.counters.upstreams[upstream.index()].queue_overflows, 1);
                    return Err(DialFault::QueueFull);
                }
                Checkout::NoTarget => return Err(DialFault::NoTarget),
            }
        }
    }

    fn hold(&self, target: TargetId, held: Held, born: Instant) -> Lease {
        let reused = match &held {
            Held::Dial => false,
            Held::Connection(_) => true,
            Held::Place { handle, .. } => handle.is_used(),
        };
        Lease { shard: self.shard.clone(), upstream: self.upstream, target, held, born, reused }
    }

    async fn open(&mut self, target: TargetId) -> Result<Lease, DialFault> {
        let (upstream, now) = (self.upstream, self.shard.now());
        let mut lease = self.hold(target, Held::Dial, now);
        let counters = &self.shard.counters.upstreams[upstream.index()];
        let (address, endpoint) = self.shard.with(|state, _| {
            let upstream = state.upstream(upstream);
            (upstream.address(target).clone(), upstream.endpoint(target))
        });
        let plan = &self.shard.plan.upstreams[upstream.index()];
        let bound = self.deadline.bound(now, plan.timeouts.connect);
        let header = plan.proxy_protocol.map(|version| proxy_header::write(version, &self.client.provenance()));
        let tls = self.shard.tls.borrow_mut().for_dial(upstream, now);
        let connecting = std::pin::pin!(async {
            let stream = connect(self.shard, &address, header).await.map_err(HandshakeError::Stream)?;
            let Some(context) = tls else {
                return Ok((Connection::new(Transport::plain(stream)), plan.spoken() == Protocol::H2));
            };
            let name = context.names[usize::from(endpoint)].clone();
            let mut timer = Timer::new(&self.shard.ring);
            let mut tls = Box::new(Tls::client(context.config.clone(), name)?);
            // A server of HTTP/2 may speak first, in the flight that ends its handshake.
            let first = Box::pin(handshake(&stream, &mut tls, &[], &mut timer, bound.at)).await?;
            let speaks_h2 = tls.protocol() == Some(HTTP2);
            // One of HTTP/1.1 may not: it would be taken for the answer to a request that it has not seen.
            if !speaks_h2 && (plan.spoken() == Protocol::H2 || !first.is_empty()) {
                return Err(HandshakeError::Protocol);
            }
            let lifetime = lifetime(&context, &tls, self.shard.now());
            self.shard.tls.borrow_mut().opened(upstream, lifetime);
            let mut transport = Transport::plain(stream);
            transport.encrypt(*tls, Some(lifetime));
            let mut connection = Connection::new(transport);
            connection.inbound.put_bytes(first);
            Ok((connection, speaks_h2))
        });
        let outcome = self.timer.within(bound.at, unless_gone(self.client, connecting)).await;
        let fault = match outcome {
            Ok(Some(Ok((connection, true)))) => {
                add(&counters.connects, 1);
                return Box::pin(self.share(lease, connection)).await;
            }
            Ok(Some(Ok((connection, false)))) => {
                add(&counters.connects, 1);
                lease.held = Held::Connection(Box::new(connection));
                if plan.spoken() != Protocol::H1 {
                    let granted = self.shard.with(|state, _| state.upstream(upstream).opened_exclusive(target));
                    self.grant(granted);
                }
                return Ok(lease);
            }
            Ok(None) => return Err(DialFault::ClientGone),
            // The handshake has the same end as the whole, and may be the first to notice.
            Err(_) | Ok(Some(Err(HandshakeError::Timeout))) if bound.is_final => DialFault::Deadline,
            Err(_) | Ok(Some(Err(HandshakeError::Timeout))) => DialFault::Timeout,
            Ok(Some(Err(error))) => {
                let name = &plan.name;
                match &error {
                    HandshakeError::Tls(_) => {
                        if let Some(left_out) = self.shard.warnings.handshake_failed.admit(self.shard.now()) {
                            tracing::warn!(upstream = name, ?address, %error, left_out, "TLS handshake failed");
                        }
                    }
                    _ => tracing::debug!(upstream = name, ?address, %error, "connect failed"),
                }
                DialFault::Failed
            }
        };
        add(&counters.connect_failures, 1);
        Err(fault)
    }

    /// Gives the lease, which was leave to open a connection, a place on the one that was opened.
    async fn share(&self, mut lease: Lease, connection: Connection) -> Result<Lease, DialFault> {
        let (upstream, target) = (self.upstream, lease.target);
        let plan = &self.shard.plan.upstreams[upstream.index()];
        let begun = client_h2::begin(self.shard, plan, connection).await;
        let (handle, driver) = begun.map_err(|_| DialFault::Failed)?;
        let (id, granted) = self
            .shard
            .with(|state, now| state.upstream(upstream).opened_shared(target, handle.clone(), handle.limit(), now));
        lease.held = Held::Place { id, handle };
        task::spawn(client_h2::drive(self.shard.clone(), upstream, target, id, driver));
        self.grant(granted);
        Ok(lease)
    }

    fn grant(&self, tickets: Vec<Ticket>) {
        tickets.into_iter().for_each(|ticket| self.shard.queues.grant(self.upstream, Some(ticket)));
    }

    async fn wait(&mut self) -> Result<(), DialFault> {
        let upstream = self.upstream;
        let ticket = self.shard.with(|state, _| state.upstream(upstream).enqueue());
        let waiting = Waiting { shard: self.shard.clone(), upstream, ticket, is_granted: false };
        let limit = self.shard.plan.upstreams[upstream.index()].limits.pending_timeout;
        let bound = self.deadline.bound(self.shard.now(), limit);
        match self.timer.within(bound.at, unless_gone(self.client, waiting)).await {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(DialFault::ClientGone),
            Err(_) if bound.is_final => Err(DialFault::Deadline),
            Err(_) => {
                add(&self.shard.counters.upstreams[upstream.index()].queue_timeouts, 1);
                Err(DialFault::QueueTimeout)
            }
        }
    }
}

/// The ends of certificates are of the wall clock, which may be set while the connection lives; what counts is how far off they are now.
fn lifetime(context: &UpstreamContext, tls: &Tls, now: Instant) -> Lifetime {
    let of_peer = tls.peer_certificate().and_then(validity::not_after);
    let not_after = context.not_after.into_iter().chain(of_peer).min();
    let left = not_after.map(|end| end.duration_since(clock::wall()).unwrap_or_default() + validity::LAST_SECOND);
    Lifetime { generation: context.generation, end: left.and_then(|left| now.checked_add(left)) }
}

/// Connects, and sends the PROXY header if there is to be one: before anything else, TLS included.
async fn connect(shard: &Rc<Shard>, address: &SocketAddress, header: Option<Vec<u8>>) -> io::Result<Stream> {
    let address = match address {
        SocketAddress::Ip(address) => SockAddr::from(*address),
        SocketAddress::Unix(path) => SockAddr::unix(path)?,
    };
    let stream = Stream::connect(&shard.ring, address).await?;
    if let Some(header) = header {
        let mut posted = stream.post(Outgoing::new(header, None, b""));
        poll_fn(|cx| posted.poll_sent(cx)).await.0?;
    }
    Ok(stream)
}

/// `future`'s output, unless the client goes away first.
pub fn unless_gone<F: Future + Unpin>(
    client: &mut ClientEnd<'_>,
    mut future: F,
) -> impl Future<Output = Option<F::Output>> + Unpin {
    poll_fn(move |cx| {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(cx) {
            return Poll::Ready(Some(output));
        }
        client.poll_gone(cx).map(|()| None)
    })
}

/// Who waits in the queues of a shard's upstreams, by ticket.
#[derive(Default)]
pub struct Queues(std::cell::RefCell<HashMap<(UpstreamId, Ticket), Place>>);

enum Place {
    Waiting(Option<Waker>),
    Granted,
}

impl Queues {
    /// Tells the holder of `ticket` that it is its turn.
    pub fn grant(&self, upstream: UpstreamId, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        let place = self.0.borrow_mut().insert((upstream, ticket), Place::Granted);
        if let Some(Place::Waiting(Some(waker))) = place {
            waker.wake();
        }
    }
}

/// A place in an upstream's queue; ready when it is its turn. Dropped before that, or without having been told, it passes its turn on.
struct Waiting {
    shard: Rc<Shard>,
    upstream: UpstreamId,
    ticket: Ticket,
    is_granted: bool,
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let key = (self.upstream, self.ticket);
        let mut places = self.shard.queues.0.borrow_mut();
        if matches!(places.get(&key), Some(Place::Granted)) {
            drop(places);
            self.is_granted = true;
            return Poll::Ready(());
        }
        let replaced = places.insert(key, Place::Waiting(Some(cx.waker().clone())));
        drop(places);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let place = self.shard.queues.0.borrow_mut().remove(&(self.upstream, self.ticket));
        drop(place);
        if !self.is_granted {
            let (upstream, ticket) = (self.upstream, self.ticket);
            let next = self.shard.with(|state, _| state.upstream(upstream).leave_queue(ticket));
            self.shard.queues.grant(upstream, next);
        }
    }
}
