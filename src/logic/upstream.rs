//! One upstream as one shard knows it: the addresses behind it, who is least loaded, which connections are idle, and who waits for one.
//!
//! A connection is *open* from the moment its dial is allowed until it is closed. The shard's share of `max_connections` bounds the open ones. When
//! all are in use, requests queue, first come first served: a connection that comes free is *granted* to the oldest, and newcomers
//! cannot overtake a grant. Connections that are kept are used again last in, first out, so that the surplus of a burst goes stale and is closed.
//!
//! A connection that speaks HTTP/2 is not taken out: see [`shared`].

pub mod shared;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::config::plan::{Balance, EndpointTarget, Protocol, SocketAddress, UpstreamPlan};
use shared::{Shared, SharedId, Speaks};

/// One address of an upstream. Valid for as long as a connection to it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetId(usize);

impl TargetId {
    /// Names no target.
    pub const NONE: Self = Self(usize::MAX);
}

/// A place in the queue for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What a request that needs a connection gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Checkout<C, S = ()> {
    /// An idle connection, opened at `born`.
    Reuse { target: TargetId, connection: C, born: Instant },
    /// A place on a connection that others use as well: call [`Upstream::leave`] behind it.
    Share { target: TargetId, id: SharedId, handle: S },
    /// Leave to open one.
    Dial { target: TargetId },
    /// All are in use: call [`Upstream::enqueue`].
    Wait,
    /// All are in use, and as many requests wait as may.
    QueueFull,
    /// No address is known.
    NoTarget,
}

/// See the module. `C` is a connection, `S` what a connection is used by that several share.
pub struct Upstream<C, S = ()> {
    balance: Balance,
    /// This shard's share of the upstream's connections; one at least.
    max_open: u32,
    max_queued: usize,
    keep_idle: Duration,
    max_age: Duration,
    targets: Slab<Target<C, S>>,
    /// The targets that new requests may use, in a stable order.
    live: Vec<TargetId>,
    cursor: usize,
    random: u64,
    open: u32,
    idle: u32,
    queue: VecDeque<Ticket>,
    next_ticket: u64,
    /// Connections that are free and promised to those who were taken out of the queue.
    granted: u32,
    /// What its connections may speak.
    protocol: Protocol,
    /// Requests that the shared connections would take beside those that they have.
    places: u32,
    next_shared: u64,
}

struct Target<C, S> {
    endpoint: u16,
    address: SocketAddress,
    is_live: bool,
    /// Connections in use or being dialled.
    active: u32,
    /// Oldest first.
    shelf: Vec<Idle<C>>,
    /// Oldest first.
    shared: Vec<Shared<S>>,
    speaks: Speaks,
    /// Connections being dialled of which it is not known whether they will be shared.
    dialling: u32,
}

struct Idle<C> {
    connection: C,
    born: Instant,
    since: Instant,
}

/// The part of a process-wide bound that falls to one shard, when it is split evenly.
pub fn share(total: u32, shard: usize, shards: usize) -> u32 {
    let (shard, shards) = (shard as u32, shards as u32);
    total / shards + u32::from(shard < total % shards)
}

impl<C, S: Clone> Upstream<C, S> {
    /// `seed` decides the balancer's picks.
    pub fn new(plan: &UpstreamPlan, shard: usize, shards: usize, seed: u64) -> Self {
        let mut upstream = Self {
            balance: plan.balance,
            max_open: share(plan.limits.max_connections, shard, shards).max(1),
            // Rounded up: a shard without a place would refuse what its neighbours let wait.
            max_queued: (plan.limits.max_pending as usize).div_ceil(shards),
            // A connection that began with a PROXY header speaks for one client, and the next request may be anybody's.
            keep_idle: plan.proxy_protocol.map_or(plan.keepalive.idle, |_| Duration::ZERO),
            max_age: plan.keepalive.max_age,
            targets: Slab::new(),
            live: Vec::new(),
            cursor: seed as usize >> 1,
            random: seed | 1,
            open: 0,
            idle: 0,
            queue: VecDeque::new(),
            next_ticket: 0,
            granted: 0,
            protocol: plan.spoken(),
            places: 0,
            next_shared: 0,
        };
        for (index, endpoint) in plan.endpoints.iter().enumerate() {
            let address = match &endpoint.target {
                EndpointTarget::Address(address) => SocketAddress::Ip(*address),
                EndpointTarget::Unix(path) => SocketAddress::Unix(path.clone()),
                EndpointTarget::Name { .. } => continue,
            };
            upstream.add(index as u16, address);
        }
        upstream.list_live();
        upstream
    }

    /// A connection for a request, or leave to open one. `fresh` asks for a new connection; `avoid` is tried only when nothing else is there;
    /// `granted` says that the caller comes out of the queue.
    pub fn checkout(&mut self, now: Instant, fresh: bool, avoid: Option<TargetId>, granted: bool) -> Checkout<C, S> {
        if granted {
            self.granted -= 1;
        }
        if self.free() <= self.granted {
            return self.wait();
        }
        let Some(target) = self.pick(avoid) else { return Checkout::NoTarget };
        if self.protocol != Protocol::H1
            && let Some(checkout) = self.checkout_shared(target, fresh)
        {
            return checkout;
        }
        if !fresh && let Some(Idle { connection, born, .. }) = self.take_idle(target, now) {
            return Checkout::Reuse { target, connection, born };
        }
        if self.open == self.max_open {
            self.close_oldest_idle();
        }
        self.open += 1;
        self.targets[target.0].active += 1;
        Checkout::Dial { target }
    }

    fn wait(&self) -> Checkout<C, S> {
        if self.queue.len() < self.max_queued { Checkout::Wait } else { Checkout::QueueFull }
    }

    /// Takes a place in the queue.
    pub fn enqueue(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.queue.push_back(ticket);
        ticket
    }

    /// Leaves the queue. A ticket that was granted already passes to the next in line, who is returned and must be told.
    #[must_use]
    pub fn leave_queue(&mut self, ticket: Ticket) -> Option<Ticket> {
        match self.queue.iter().position(|queued| *queued == ticket) {
            Some(place) => {
                self.queue.remove(place);
                None
            }
            None => {
                self.granted -= 1;
                self.grant()
            }
        }
    }

    /// A connection in use is good for another request. Returns whose turn it is, who must be told.
    #[must_use]
    pub fn put_back(&mut self, target: TargetId, connection: C, born: Instant, now: Instant) -> Option<Ticket> {
        let keep = !self.keep_idle.is_zero() && now.saturating_duration_since(born) < self.max_age;
        let slot = &mut self.targets[target.0];
        if !keep || !slot.is_live {
            return self.closed(target);
        }
        slot.active -= 1;
        slot.shelf.push(Idle { connection, born, since: now });
        self.idle += 1;
        self.grant()
    }

    /// A connection in use, or one being dialled, is gone. Returns whose turn it is, who must be told.
    #[must_use]
    pub fn closed(&mut self, target: TargetId) -> Option<Ticket> {
        self.targets[target.0].active -= 1;
        self.open -= 1;
        self.retire(target);
        self.grant()
    }

    /// Forgets idle connections that were idle for too long, are too old, or that `is_dead`; returns how many.
    pub fn evict(&mut self, now: Instant, mut is_dead: impl FnMut(&mut C) -> bool) -> usize {
        let before = self.idle;
        let (keep_idle, max_age) = (self.keep_idle, self.max_age);
        for (_, target) in &mut self.targets {
            let shelved = target.shelf.len();
            target.shelf.retain_mut(|idle| !idle.is_stale(now, keep_idle, max_age) && !is_dead(&mut idle.connection));
            let gone = (shelved - target.shelf.len()) as u32;
            self.idle -= gone;
            self.open -= gone;
        }
        self.evict_shared(now);
        (before - self.idle) as usize
    }

    /// What a look-up of an endpoint's name found. Addresses that are gone get no new requests, and their idle connections are closed.
    pub fn resolved(&mut self, endpoint: u16, addresses: &[SocketAddr]) {
        let known: Vec<TargetId> = self.targets.iter().map(|(key, _)| TargetId(key)).collect();
        for target in known {
            let slot = &mut self.targets[target.0];
            if slot.endpoint != endpoint {
                continue;
            }
            slot.is_live = matches!(&slot.address, SocketAddress::Ip(address) if addresses.contains(address));
            if !slot.is_live {
                let gone = std::mem::take(&mut slot.shelf).len() as u32;
                self.idle -= gone;
                self.open -= gone;
                self.forget_all(target);
                self.retire(target);
            }
        }
        for address in addresses {
            let address = SocketAddress::Ip(*address);
            if !self.targets.iter().any(|(_, slot)| slot.endpoint == endpoint && slot.address == address) {
                self.add(endpoint, address);
            }
        }
        self.list_live();
    }

    pub fn address(&self, target: TargetId) -> &SocketAddress {
        &self.targets[target.0].address
    }

    /// Index of the endpoint, as the plan lists them, that the target belongs to.
    pub fn endpoint(&self, target: TargetId) -> u16 {
        self.targets[target.0].endpoint
    }

    /// Connections that are open, and of these idle, and requests that wait for one.
    pub fn usage(&self) -> (u32, u32, usize) {
        (self.open, self.idle + self.unused(), self.queue.len())
    }

    /// Connections that a request could have: idle ones, and those that may yet be opened.
    fn free(&self) -> u32 {
        self.max_open - self.open + self.idle + self.places
    }

    fn grant(&mut self) -> Option<Ticket> {
        if self.free() <= self.granted {
            return None;
        }
        let ticket = self.queue.pop_front()?;
        self.granted += 1;
        Some(ticket)
    }

    fn pick(&mut self, avoid: Option<TargetId>) -> Option<TargetId> {
        let count = self.live.len();
        if count <= 1 {
            return self.live.first().copied();
        }
        match self.balance {
            Balance::RoundRobin => {
                self.cursor = (self.cursor + 1) % count;
                if Some(self.live[self.cursor]) == avoid {
                    self.cursor = (self.cursor + 1) % count;
                }
                Some(self.live[self.cursor])
            }
            Balance::LeastRequest => {
                let first = self.below(count);
                let second = (first + 1 + self.below(count - 1)) % count;
                let [first, second] = [self.live[first], self.live[second]];
                let prefers_second = Some(first) == avoid
                    || Some(second) != avoid && self.targets[second.0].active < self.targets[first.0].active;
                Some(if prefers_second { second } else { first })
            }
        }
    }

    /// A random number below `bound` (xorshift64).
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * bound as u128) >> 64) as usize
    }

    fn take_idle(&mut self, target: TargetId, now: Instant) -> Option<Idle<C>> {
        let slot = &mut self.targets[target.0];
        while let Some(idle) = slot.shelf.pop() {
            self.idle -= 1;
            if !idle.is_stale(now, self.keep_idle, self.max_age) {
                slot.active += 1;
                return Some(idle);
            }
            self.open -= 1;
        }
        None
    }

    fn close_oldest_idle(&mut self) {
        let oldest = self
            .targets
            .iter_mut()
            .filter(|(_, slot)| !slot.shelf.is_empty())
            .min_by_key(|(_, slot)| slot.shelf[0].since)
            .expect("with all connections open and one free, one is idle");
        oldest.1.shelf.remove(0);
        self.idle -= 1;
        self.open -= 1;
    }

    fn add(&mut self, endpoint: u16, address: SocketAddress) {
        self.targets.insert(Target {
            endpoint,
            address,
            is_live: true,
            active: 0,
            shelf: Vec::new(),
            shared: Vec::new(),
            speaks: Speaks::of(self.protocol),
            dialling: 0,
        });
    }

    fn list_live(&mut self) {
        self.live = self.targets.iter().filter(|(_, slot)| slot.is_live).map(|(key, _)| TargetId(key)).collect();
    }

    /// Forgets a target that gets no new requests, once its last connection is gone.
    fn retire(&mut self, target: TargetId) {
        let slot = &self.targets[target.0];
        if !slot.is_live && slot.active == 0 {
            self.targets.remove(target.0);
        }
    }
}

impl<C> Idle<C> {
    fn is_stale(&self, now: Instant, keep_idle: Duration, max_age: Duration) -> bool {
        now.saturating_duration_since(self.since) >= keep_idle || now.saturating_duration_since(self.born) >= max_age
    }
}

#[cfg(test)]
mod tests;
