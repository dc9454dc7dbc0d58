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
use super::connection::Connection;
use super::counters::add;
use super::proxy_header;
use super::tls::Tls;
use super::tls::contexts::UpstreamContext;
use super::transport::{HandshakeError, Lifetime, Transport, handshake};
use super::{Shard, clock};
use crate::config::plan::SocketAddress;
use crate::config::validity;
use crate::deadline::Deadline;
use crate::ids::UpstreamId;
use crate::logic::exchange::DialFault;
use crate::logic::upstream::{Checkout, TargetId, Ticket};
use crate::ring::{Expect, Outgoing, Size, Stream, Timer};

/// A connection in use, or leave to open one. Dropping it closes the connection and passes its place on.
pub struct Lease {
    shard: Rc<Shard>,
    upstream: UpstreamId,
    pub target: TargetId,
    /// Boxed: it goes back and forth between here and the pool.
    connection: Option<Box<Connection>>,
    born: Instant,
    /// It served requests before.
    pub reused: bool,
}

impl Lease {
    pub fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a lease is handed out with its connection, and gives it up only by value")
    }

    /// Keeps the connection for the next request. The caller knows that it is between two messages; a peer that has sent more than its message is
    /// dropped, and one that does so later, or closes, is found out before the next use. One that was opened with other certificates than are in use now is
    /// dropped, too.
    pub fn keep(mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.inbound.has_bytes() || self.shard.is_outdated(self.upstream, &connection) {
            self.connection = Some(connection);
            return;
        }
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
        let next = self.shard.with(|state, _| state.upstream(upstream).closed(target));
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
                    let mut lease = self.hold(target, Some(connection), born);
                    // A kept connection that was closed, or on which something came unasked, is not used: the next one is.
                    if !lease.connection().is_disturbed() {
                        return Ok(lease);
                    }
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

    fn hold(&self, target: TargetId, connection: Option<Box<Connection>>, born: Instant) -> Lease {
        let reused = connection.is_some();
        Lease { shard: self.shard.clone(), upstream: self.upstream, target, connection, born, reused }
    }

    async fn open(&mut self, target: TargetId) -> Result<Lease, DialFault> {
        let (upstream, now) = (self.upstream, self.shard.now());
        let mut lease = self.hold(target, None, now);
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
            let Some(context) = tls else { return Ok(Transport::plain(stream)) };
            let name = context.names[usize::from(endpoint)].clone();
            let mut timer = Timer::new(&self.shard.ring);
            let mut tls = Box::new(Tls::client(context.config.clone(), name)?);
            // No content comes before it was asked for.
            Box::pin(handshake(&stream, &mut tls, &[], &mut timer, bound.at)).await?;
            let lifetime = lifetime(&context, &tls, self.shard.now());
            self.shard.tls.borrow_mut().opened(upstream, lifetime);
            let mut transport = Transport::plain(stream);
            transport.encrypt(*tls, Some(lifetime));
            Ok(transport)
        });
        let outcome = self.timer.within(bound.at, unless_gone(self.client, connecting)).await;
        let fault = match outcome {
            Ok(Some(Ok(transport))) => {
                add(&counters.connects, 1);
                lease.connection = Some(Box::new(Connection::new(transport)));
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
