//! What one core has, and everything that it does: sockets in use, tasks, and the shell around the decisions of `logic/`.
//!
//! A [`Shard`] lives on one pinned thread and is shared by that thread's tasks as an `Rc`. Its mutable policy state is one plain struct in one cell,
//! lent out by [`Shard::with`] only, so that no borrow can cross an `.await`. This room takes no policy decisions.

mod access_log;
mod admin;
mod attempt;
mod bind;
mod client;
mod client_h2;
mod clock;
mod connection;
mod counters;
mod date;
mod dial;
mod driver;
mod h2_stream;
mod listen;
mod lookup;
mod outset;
mod prepare;
mod proxy_header;
mod record;
mod relay;
mod renewal;
mod respond;
mod reuse;
mod run_exchange;
mod seldom;
mod serve_h1;
mod serve_h2;
pub mod start;
mod task;
mod tls;
mod tokio_io;
mod transport;
mod upgrade;

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use access_log::AccessLog;
use client_h2::Handle;
use connection::Connection;
use counters::{Counters, add};
use date::Date;
use dial::Queues;
use prepare::Forward;
use reuse::Boxes;
use seldom::Seldom;
use serve_h1::Serving;
use tls::contexts::Contexts;
use transport::Lifetime;

use crate::config::plan::Plan;
use crate::ids::{ShardId, UpstreamId};
use crate::logic::http::FieldSlots;
use crate::logic::http::request_id::{RequestId, RequestIds};
use crate::logic::route::RouteTable;
use crate::logic::state::ShardState;
use crate::mesh::{CertificateReport, Control, Lane, Mesh, Message, News, Port};
use crate::ring::{Ring, Timer};

/// How often a shard looks after what has no event of its own: idle connections that went stale, the access log.
const TICK: Duration = Duration::from_millis(500);

/// One core's share of the gateway.
pub struct Shard {
    pub id: ShardId,
    pub plan: Arc<Plan>,
    pub routes: Arc<RouteTable>,
    pub tls: RefCell<Contexts>,
    pub ring: Rc<Ring>,
    pub counters: Counters,
    pub access_log: Option<AccessLog>,
    pub queues: Queues,
    pub serving: Rc<Serving>,
    pub serving_h2: Rc<serve_h2::Serving>,
    state: RefCell<ShardState<Box<Connection>, Rc<Handle>>>,
    port: RefCell<Port>,
    questions: RefCell<admin::Questions>,
    certificates: RefCell<Arc<CertificateReport>>,
    request_ids: RefCell<RequestIds>,
    pub date: RefCell<Date>,
    /// Where the fields of the head lie that is being looked at.
    pub slots: RefCell<FieldSlots>,
    /// Room for a path that has to be written anew.
    pub path_scratch: RefCell<String>,
    pub forwards: Boxes<Forward>,
    pub warnings: Warnings,
    phase: Cell<Phase>,
    /// Every shard accepts.
    ready: Cell<bool>,
    /// Accept loops that run.
    doors: Cell<usize>,
    /// Client connections that are open.
    connections: Cell<usize>,
}

/// What is warned of once per request or connection, if at all.
#[derive(Default)]
pub struct Warnings {
    pub malformed_response: Seldom,
    pub accept_failed: Seldom,
    pub handshake_failed: Seldom,
    pub proxy_header_refused: Seldom,
}

/// Where a shard is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits until every shard is warm.
    Warming,
    Serving,
    /// Finishes what is in flight.
    Draining,
}

impl Shard {
    fn new(
        id: ShardId,
        (plan, routes, tls): (Arc<Plan>, Arc<RouteTable>, Contexts),
        ring: Rc<Ring>,
        mesh: &Mesh,
        lane: Option<Lane>,
    ) -> Rc<Self> {
        let seed = RandomState::new().hash_one(id);
        let port = mesh.join(id, ring.doorbell());
        let access_log = plan.access_log.as_ref().zip(lane).map(|(log, lane)| AccessLog::new(log.format, lane));
        let shard = Self {
            id,
            counters: Counters::new(&plan),
            access_log,
            queues: Queues::default(),
            serving: serve_h1::serving(),
            serving_h2: serve_h2::serving(),
            state: RefCell::new(ShardState::new(&plan, id.index(), port.shards(), seed)),
            port: RefCell::new(port),
            questions: RefCell::default(),
            certificates: RefCell::default(),
            request_ids: RefCell::new(RequestIds::new([seed, RandomState::new().hash_one(seed)])),
            date: RefCell::default(),
            slots: RefCell::default(),
            path_scratch: RefCell::default(),
            forwards: Boxes::default(),
            warnings: Warnings::default(),
            phase: Cell::new(Phase::Warming),
            ready: Cell::new(false),
            doors: Cell::new(0),
            connections: Cell::new(0),
            plan,
            routes,
            tls: RefCell::new(tls),
            ring,
        };
        shard.date.borrow_mut().update(clock::wall());
        Rc::new(shard)
    }

    /// Lends the policy state, with the time as of this turn.
    pub fn with<T>(&self, use_state: impl FnOnce(&mut ShardState<Box<Connection>, Rc<Handle>>, Instant) -> T) -> T {
        use_state(&mut self.state.borrow_mut(), self.ring.now())
    }

    /// The time as of this turn.
    pub fn now(&self) -> Instant {
        self.ring.now()
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub fn next_request_id(&self) -> RequestId {
        self.request_ids.borrow_mut().next_id()
    }

    /// An empty allocation for a head.
    pub fn spare(&self) -> Vec<u8> {
        self.ring.spare()
    }

    /// Keeps an allocation for the next head.
    pub fn give_back(&self, spare: Vec<u8>) {
        self.ring.keep_spare(spare);
    }

    /// Everything that happens after each turn of the ring.
    fn after_turn(&self) {
        if self.ring.answer_door() || self.port.borrow().is_blocked() {
            self.read_mail();
        }
    }

    /// Whether nothing is left to do, ever.
    fn is_over(&self) -> bool {
        self.phase.get() == Phase::Draining && self.connections.get() == 0 && self.doors.get() == 0
    }

    fn read_mail(&self) {
        loop {
            let message = self.port.borrow_mut().receive();
            let Some(message) = message else { break };
            match message {
                Message::News(News::Resolved { upstream, endpoint, addresses }) => {
                    self.with(|state, _| state.upstream(upstream).resolved(endpoint, &addresses));
                }
                Message::Control(Control::Open) => self.phase.set(Phase::Serving),
                Message::Control(Control::Ready) => self.ready.set(true),
                Message::Control(Control::Drain) => {
                    self.phase.set(Phase::Draining);
                    // Accept loops and idle connections look at the phase.
                    self.ring.wake_all();
                }
                Message::Control(Control::Count { asker, question }) => {
                    let values = self.count();
                    self.port.borrow_mut().command(&self.ring, asker, Control::Counts { question, values });
                }
                Message::Control(Control::Counts { question, values }) => {
                    self.questions.borrow_mut().answer(question, values);
                }
                Message::Control(Control::ListenerTls { listener, config }) => {
                    self.tls.borrow_mut().listeners[listener.index()] = Some(config);
                }
                Message::Control(Control::UpstreamTls { upstream, config, not_after }) => {
                    self.tls.borrow_mut().renew_upstream(upstream, &config, not_after);
                    self.with(|state, now| {
                        let pool = state.upstream(upstream);
                        pool.forget_where(|handle| self.is_past(upstream, handle.lifetime()));
                        pool.evict(now, |connection| self.is_outdated(upstream, connection))
                    });
                }
                Message::Control(Control::Certificates(report)) => drop(self.certificates.replace(report)),
            }
        }
        self.port.borrow_mut().flush(&self.ring);
    }

    /// This shard's counters, with the gauges that are not counted but looked at.
    fn count(&self) -> Box<[u64]> {
        self.with(|state, _| {
            for (id, upstream) in state.upstreams() {
                let (open, idle, queued) = upstream.usage();
                let counters = &self.counters.upstreams[id.index()];
                counters.connections_open.set(u64::from(open));
                counters.connections_idle.set(u64::from(idle));
                counters.queued.set(queued as u64);
            }
        });
        self.counters.shard.panics.set(task::panics());
        let usage = self.ring.usage();
        self.counters.shard.parked_receives.set(usage.parked_total);
        self.counters.shard.buffers_used.set(usage.buffers as u64);
        self.counters.shard.dropped_news.set(self.port.borrow().dropped_news());
        self.counters.values()
    }

    async fn tick_forever(self: Rc<Self>) {
        let mut timer = Timer::new(&self.ring);
        loop {
            timer.sleep_until(self.now() + TICK).await;
            self.tick();
        }
    }

    fn tick(&self) {
        self.date.borrow_mut().update(clock::wall());
        self.with(|state, now| {
            for (id, upstream) in state.upstreams() {
                upstream.forget_where(|handle| self.is_past(id, handle.lifetime()));
                upstream.evict(now, |connection| self.is_outdated(id, connection) || connection.is_disturbed());
            }
        });
        self.flush_access_log();
    }

    /// Whether no further request may use a connection to the upstream: it would be opened another way now, or a certificate that it was opened with has
    /// ended since.
    pub fn is_outdated(&self, upstream: UpstreamId, connection: &Connection) -> bool {
        self.is_past(upstream, connection.transport.lifetime())
    }

    /// The same, by what is known of the connection.
    pub fn is_past(&self, upstream: UpstreamId, lifetime: Option<Lifetime>) -> bool {
        let Some(lifetime) = lifetime else { return false };
        let tls = self.tls.borrow();
        let generation = tls.upstreams[upstream.index()].as_ref().map(|context| context.generation);
        generation != Some(lifetime.generation) || lifetime.end.is_some_and(|end| end <= self.now())
    }

    fn flush_access_log(&self) {
        if let Some(log) = &self.access_log {
            add(&self.counters.shard.dropped_log_lines, log.flush());
        }
    }
}
