//! The process around the shards: bind everything, start every shard, open all doors at once, and drain when a signal says so.
//!
//! Start-up is all or nothing. Sockets are bound before any shard exists and listen only when every shard is warm, so a gateway that cannot start has
//! accepted nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, SockAddr, Socket, Type};

use super::access_log;
use super::listen::{Door, accept_until_drained};
use super::{Phase, Shard, clock, driver, lookup, task};
use crate::config::plan::{ListenerPlan, Plan, SocketAddress};
use crate::ids::{ListenerId, ShardId};
use crate::logic::route::RouteTable;
use crate::mesh::{Control, Gauge, Lane, Mesh};
use crate::ring::{BufferCounts, Ring, RingConfig, RingError, probe};

/// Connections that the kernel completes before a shard accepts them; `net.core.somaxconn` bounds it further.
const BACKLOG: i32 = 4096;
/// How long an address in use is tried again, and how often.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_PAUSE: Duration = Duration::from_millis(50);
/// How long the start waits for the first look-ups of endpoints' names.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(3);
/// Memory that the executor registers with the kernel for file I/O, which Postern does not do through it.
const EXECUTOR_IO_MEMORY: usize = 64 * 1024;
/// The executor preempts for the sake of I/O through its own rings. There is none, and each time would cost system calls and allocations.
const NEVER_PREEMPT: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a shard that is over waits for the kernel to end what was in flight.
const QUIESCE_PATIENCE: Duration = Duration::from_secs(2);

/// Receive buffers of one shard: 64 MiB small and 64 MiB large ones at most, of which only those that are ever needed take memory.
const BUFFERS: BufferCounts = BufferCounts { small: 8192, large: 1024 };

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("cannot listen on {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("cannot open the access log: {0}")]
    AccessLog(#[source] io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    #[error("shard {shard} did not start: {reason}")]
    Shard { shard: u16, reason: String },
    #[error("interrupted by a signal")]
    Interrupted,
}

/// How a gateway that had started ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything in flight was finished.
    Drained,
    /// The drain's time was up with connections still open.
    DrainTimeout,
    /// A shard failed.
    Failed,
}

/// Runs the gateway until `SIGTERM` or `SIGINT`. Calls `ready` once, when every listener accepts.
///
/// # Errors
/// See [`StartError`]; nothing was accepted then.
pub fn run(plan: Plan, ready: impl FnOnce()) -> Result<Ended, StartError> {
    probe::check()?;
    let open_files = probe::raise_open_files();
    let plan = Arc::new(plan);
    let (events, inbox) = mpsc::channel();
    watch_signals(events.clone())?;
    let sockets = bind_all(&plan)?;
    let log = plan.access_log.as_ref().map(|log| access_log::start(&log.target)).transpose();
    let log = log.map_err(StartError::AccessLog)?;

    let mesh = Mesh::new(plan.cpus.len());
    let lane = log.as_ref().map(|(lane, _)| lane.clone());
    let unix_paths = sockets.unix_paths.clone();
    let mut threads = start_shards(&plan, &mesh, sockets, lane, &events)?;
    // Two rounds: every shard is warm before one listens, and every shard listens before the gateway is ready.
    await_shards(&inbox, threads.len())?;
    lookup::start(&plan, &mesh, LOOKUP_PATIENCE).map_err(StartError::Thread)?;
    mesh.shards().for_each(|shard| mesh.command(shard, Control::Open));
    await_shards(&inbox, threads.len())?;
    mesh.shards().for_each(|shard| mesh.command(shard, Control::Ready));
    tracing::info!(shards = threads.len(), open_files, "serving");
    ready();

    let ended = supervise(&plan, &mesh, &inbox, threads.len());
    if ended == Ended::Drained {
        threads.drain(..).for_each(|thread| drop(thread.join()));
    }
    if let Some((lane, writer)) = log {
        lane.close();
        let _ = writer.join();
    }
    unix_paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
    Ok(ended)
}

/// Waits until so many shards have taken the next step of their start.
fn await_shards(inbox: &mpsc::Receiver<Event>, shards: usize) -> Result<(), StartError> {
    for _ in 0..shards {
        match inbox.recv() {
            Ok(Event::Warm | Event::Listening) => {}
            Ok(Event::ShardFailed { shard, reason }) => return Err(StartError::Shard { shard: shard.0, reason }),
            Ok(Event::Signal | Event::ShardOver) | Err(_) => return Err(StartError::Interrupted),
        }
    }
    Ok(())
}

/// What the main thread waits for.
enum Event {
    Warm,
    Listening,
    ShardFailed { shard: ShardId, reason: String },
    ShardOver,
    Signal,
}

fn watch_signals(events: mpsc::Sender<Event>) -> Result<(), StartError> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(StartError::Thread)?;
    let watch = move || signals.forever().take_while(|_| events.send(Event::Signal).is_ok()).for_each(drop);
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(StartError::Thread)?;
    Ok(())
}

/// Waits for a signal, drains, and waits for the shards' ends.
fn supervise(plan: &Plan, mesh: &Mesh, inbox: &mpsc::Receiver<Event>, shards: usize) -> Ended {
    let (mut over, mut drain_end) = (0, None);
    while over < shards {
        let event = match drain_end {
            None => inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(end) => inbox.recv_timeout(clock::now().max(end) - clock::now()),
        };
        match event {
            Ok(Event::Signal) if drain_end.is_none() => {
                tracing::info!(timeout = ?plan.drain_timeout, "draining");
                drain_end = Some(clock::now() + plan.drain_timeout);
                mesh.shards().for_each(|shard| mesh.command(shard, Control::Drain));
            }
            Ok(Event::Signal) => {
                tracing::warn!("second signal: not waiting for what is in flight");
                return Ended::DrainTimeout;
            }
            Ok(Event::ShardOver) => over += 1,
            Ok(Event::ShardFailed { shard, reason }) => {
                tracing::error!(shard = shard.0, reason, "shard failed");
                return Ended::Failed;
            }
            Ok(Event::Warm | Event::Listening) => {}
            Err(_) => {
                tracing::warn!("the drain's time is up with connections still open");
                return Ended::DrainTimeout;
            }
        }
    }
    tracing::info!("drained");
    Ended::Drained
}

// === Sockets ===

struct Sockets {
    /// Per shard: its own socket of each of its listeners.
    per_shard: Vec<Vec<(ListenerId, OwnedFd)>>,
    /// Files to remove at the end.
    unix_paths: Vec<PathBuf>,
}

fn bind_all(plan: &Plan) -> Result<Sockets, StartError> {
    let shards = plan.cpus.len();
    let mut sockets = Sockets { per_shard: (0..shards).map(|_| Vec::new()).collect(), unix_paths: Vec::new() };
    for (id, listener) in (0..).map(ListenerId).zip(&plan.listeners) {
        // One shard serves the admin listener: it asks the others.
        let wanted = if listener.admin { 1 } else { shards };
        let bound =
            bind(listener, wanted).map_err(|source| StartError::Bind { address: show(&listener.address), source })?;
        if let SocketAddress::Unix(path) = &listener.address {
            sockets.unix_paths.push(path.clone());
        }
        for (shard, socket) in sockets.per_shard.iter_mut().zip(bound) {
            shard.push((id, socket));
        }
    }
    Ok(sockets)
}

fn show(address: &SocketAddress) -> String {
    match address {
        SocketAddress::Ip(address) => address.to_string(),
        SocketAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Binds as many sockets as are `wanted`. An address in use is tried again for a while: a gateway that was killed holds its own for some
/// moments, until the kernel has taken its ring apart.
fn bind(listener: &ListenerPlan, wanted: usize) -> io::Result<Vec<OwnedFd>> {
    let end = clock::now() + BIND_PATIENCE;
    loop {
        match try_bind(listener, wanted) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && clock::now() < end => {
                std::thread::park_timeout(BIND_PAUSE);
            }
            bound => return bound,
        }
    }
}

fn try_bind(listener: &ListenerPlan, wanted: usize) -> io::Result<Vec<OwnedFd>> {
    match &listener.address {
        SocketAddress::Ip(address) => {
            // Without `SO_REUSEPORT` first: with it, a second gateway of the same user would take a share of the first one's connections unnoticed.
            drop(bind_tcp(*address, false)?);
            (0..wanted).map(|_| bind_tcp(*address, true).map(OwnedFd::from)).collect()
        }
        SocketAddress::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            let address = SockAddr::unix(path)?;
            if let Err(error) = socket.bind(&address) {
                let in_use = error.kind() == io::ErrorKind::AddrInUse;
                // A socket file that nobody listens on is left over from a process that died.
                if !in_use || Socket::new(Domain::UNIX, Type::STREAM, None)?.connect(&address).is_ok() {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                socket.bind(&address)?;
            }
            (0..wanted).map(|_| socket.try_clone().map(OwnedFd::from)).collect()
        }
    }
}

fn bind_tcp(address: SocketAddr, share_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if share_port {
        socket.set_reuse_port(true)?;
    }
    // What is accepted inherits it.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

// === Shards ===

type ShardThread = glommio::ExecutorJoinHandle<()>;

fn start_shards(
    plan: &Arc<Plan>,
    mesh: &Mesh,
    sockets: Sockets,
    lane: Option<Lane>,
    events: &mpsc::Sender<Event>,
) -> Result<Vec<ShardThread>, StartError> {
    let routes = Arc::new(RouteTable::new(plan));
    let gauges: Vec<Gauge> = plan.listeners.iter().map(|it| Gauge::new(it.limits.max_connections)).collect();
    let mut threads = Vec::new();
    for (id, sockets) in mesh.shards().zip(sockets.per_shard) {
        let seat = Seat {
            id,
            plan: plan.clone(),
            routes: routes.clone(),
            mesh: mesh.clone(),
            lane: lane.clone(),
            doors: sockets
                .into_iter()
                .map(|(listener, socket)| Door { listener, socket, gauge: gauges[listener.index()].clone() })
                .collect(),
            events: events.clone(),
        };
        let builder = LocalExecutorBuilder::new(Placement::Fixed(plan.cpus[id.index()]))
            .name(&format!("shard-{}", id.0))
            .io_memory(EXECUTOR_IO_MEMORY)
            .preempt_timer(NEVER_PREEMPT);
        let started = builder.spawn(move || async move {
            let (id, events) = (seat.id, seat.events.clone());
            let event = match seat.run().await {
                Ok(()) => Event::ShardOver,
                Err(reason) => Event::ShardFailed { shard: id, reason },
            };
            // The main thread may have ended already.
            let _ = events.send(event);
        });
        threads.push(started.map_err(|error| StartError::Shard { shard: id.0, reason: error.to_string() })?);
    }
    Ok(threads)
}

/// Everything that a shard's thread is given.
struct Seat {
    id: ShardId,
    plan: Arc<Plan>,
    routes: Arc<RouteTable>,
    mesh: Mesh,
    lane: Option<Lane>,
    doors: Vec<Door>,
    events: mpsc::Sender<Event>,
}

impl Seat {
    async fn run(self) -> Result<(), String> {
        let ring = Ring::new(RingConfig { buffers: BUFFERS, clock: clock::now }).map_err(|error| error.to_string())?;
        let shard = Shard::new(self.id, self.plan, self.routes, ring.clone(), &self.mesh, self.lane);
        task::spawn(shard.clone().tick_forever());
        // The main thread may have given up already, here and below.
        let _ = self.events.send(Event::Warm);
        let (id, events, mut doors) = (self.id, self.events, self.doors);
        let over = driver::drive(&ring, shard.plan.busy_poll, || {
            shard.after_turn();
            if shard.phase() == Phase::Serving && !doors.is_empty() {
                let event = match open_doors(&shard, std::mem::take(&mut doors)) {
                    Ok(()) => Event::Listening,
                    Err(error) => Event::ShardFailed { shard: id, reason: format!("cannot listen: {error}") },
                };
                let _ = events.send(event);
            }
            shard.is_over()
        })
        .await;
        shard.flush_access_log();
        drop(shard);
        ring.quiesce(QUIESCE_PATIENCE);
        over.map_err(|error| format!("io_uring_enter: {error}"))
    }
}

/// Listens, and accepts from now on.
fn open_doors(shard: &Rc<Shard>, doors: Vec<Door>) -> io::Result<()> {
    for door in doors {
        let socket = Socket::from(door.socket);
        socket.listen(BACKLOG)?;
        shard.doors.set(shard.doors.get() + 1);
        task::spawn(accept_until_drained(shard.clone(), Door { socket: socket.into(), ..door }));
    }
    Ok(())
}
