//! Accepting connections: one loop per listener and shard.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::connection::Connection;
use super::counters::{add, subtract};
use super::serve_h1::{self, Session};
use super::transport::Transport;
use super::{Phase, Shard, task};
use crate::ids::ListenerId;
use crate::mesh::{Counted, Gauge};
use crate::ring::{Listener, Timer};

/// After a failed accept (no descriptors left, mostly) the loop waits: those that others give back are better used than fought for.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket of one shard, and how many connections its listener has in the whole process.
pub struct Door {
    pub listener: ListenerId,
    pub socket: OwnedFd,
    pub gauge: Gauge,
}

/// Accepts until the shard drains. Dropping the listener closes the socket.
pub async fn accept_until_drained(shard: Rc<Shard>, door: Door) {
    let counters = &shard.counters.listeners[door.listener.index()];
    let _open = OpenDoor(&shard);
    let mut timer = Timer::new(&shard.ring);
    let mut listener = Listener::new(&shard.ring, door.socket);
    loop {
        let accepted = {
            let mut accept = std::pin::pin!(listener.accept());
            std::future::poll_fn(|cx| match shard.phase() {
                Phase::Draining => std::task::Poll::Ready(None),
                Phase::Warming | Phase::Serving => accept.as_mut().poll(cx).map(Some),
            })
            .await
        };
        match accepted {
            None => return,
            Some(Err(error)) => {
                add(&shard.counters.shard.accept_errors, 1);
                if let Some(left_out) = shard.warnings.accept_failed.admit(shard.now()) {
                    let listener = &shard.plan.listeners[door.listener.index()].name;
                    tracing::warn!(listener, %error, left_out, "accept failed");
                }
                timer.sleep_until(shard.now() + ERROR_PAUSE).await;
            }
            Some(Ok(stream)) => match door.gauge.enter() {
                None => add(&counters.connections_refused, 1),
                Some(counted) => {
                    add(&counters.connections, 1);
                    let open = Open::new(&shard, door.listener, counted);
                    let connection = Connection::new(Transport::plain(stream));
                    task::spawn(serve_h1::serve(Session::new(open, connection)));
                }
            },
        }
    }
}

/// Notes that an accept loop has ended.
struct OpenDoor<'s>(&'s Shard);

impl Drop for OpenDoor<'_> {
    fn drop(&mut self) {
        self.0.doors.set(self.0.doors.get() - 1);
    }
}

/// Counts a connection for as long as it is open, also when its task panics.
pub struct Open {
    pub shard: Rc<Shard>,
    pub listener: ListenerId,
    _counted: Counted,
}

impl Open {
    fn new(shard: &Rc<Shard>, listener: ListenerId, counted: Counted) -> Self {
        add(&shard.counters.listeners[listener.index()].connections_open, 1);
        shard.connections.set(shard.connections.get() + 1);
        Self { shard: shard.clone(), listener, _counted: counted }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        subtract(&self.shard.counters.listeners[self.listener.index()].connections_open, 1);
        self.shard.connections.set(self.shard.connections.get() - 1);
    }
}
