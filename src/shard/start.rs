//! The process around the shards: bind everything, start every shard, open all doors at once, and drain when a signal says so.
//!
//! Start-up is all or nothing as far as the kernel allows: addresses are claimed before any shard exists, and nothing is accepted before every shard is
//! warm. What can fail after that is a shard's `listen`; connections that another shard has accepted by then are cut.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use socket2::Socket;

use super::access_log;
use super::bind::{BACKLOG, Claims, Sockets, bind_all};
use super::listen::{Door, accept_until_drained};
use super::tls::contexts::{Contexts, SetupError};
use super::{Phase, Shard, clock, driver, lookup, renewal, task};
use crate::config::plan::Plan;
use crate::ids::{ListenerId, ShardId};
use crate::logic::route::RouteTable;
use crate::mesh::{Control, Gauge, Lane, Mesh};
use crate::ring::{BufferCounts, Ring, RingConfig, RingError, probe};

/// How long the start waits for the first look-ups of endpoints' names.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(3);
/// How long the end waits for the reader of the access log.
const LOG_PATIENCE: Duration = Duration::from_secs(2);
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
    #[error("cannot set TLS up: {0}")]
    Tls(#[source] SetupError),
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
/// See [`StartError`]. Unless it came while the doors were being opened, nothing was accepted.
pub fn run(plan: Plan, ready: impl FnOnce()) -> Result<Ended, StartError> {
    probe::check()?;
    let open_files = probe::raise_open_files();
    let plan = Arc::new(plan);
    let (events, inbox) = mpsc::channel();
    let (look, looks) = mpsc::channel();
    watch_signals(events.clone(), look)?;
    let Sockets { per_shard, claims } = bind_all(&plan)?;
    let log_written = || {
        let events = events.clone();
        move || drop(events.send(Event::LogWritten))
    };
    let log = plan.access_log.as_ref().map(|log| access_log::start(&log.target, log_written())).transpose();
    let log = log.map_err(StartError::AccessLog)?;

    let mesh = Mesh::new(plan.cpus.len());
    let tls = Contexts::new(&plan).map_err(StartError::Tls)?;
    let mut threads = start_shards(&plan, &tls, &mesh, per_shard, log.clone(), &events)?;
    // Two rounds: every shard is warm before one listens, and every shard listens before the gateway is ready.
    await_shards(&inbox, &mut threads)?;
    lookup::start(&plan, &mesh, LOOKUP_PATIENCE).map_err(StartError::Thread)?;
    claims.check()?;
    mesh.shards().for_each(|shard| mesh.command(shard, Control::Open));
    await_shards(&inbox, &mut threads)?;
    renewal::start(&plan, tls, &mesh, looks).map_err(StartError::Thread)?;
    mesh.shards().for_each(|shard| mesh.command(shard, Control::Ready));
    tracing::info!(shards = threads.len(), open_files, "serving");
    ready();

    let ended = supervise(&plan, &mesh, &inbox, threads.len(), claims);
    if ended == Ended::Drained {
        threads.drain(..).for_each(|thread| drop(thread.join()));
    }
    if let Some(log) = log {
        log.close();
        await_log(&inbox);
    }
    Ok(ended)
}

/// Waits until so many shards have taken the next step of their start.
fn await_shards(inbox: &mpsc::Receiver<Event>, threads: &mut Vec<ShardThread>) -> Result<(), StartError> {
    for _ in 0..threads.len() {
        match inbox.recv() {
            Ok(Event::Warm | Event::Listening) => {}
            Ok(Event::ShardFailed { shard, reason }) => {
                let reason = reason.unwrap_or_else(|| last_error(threads.swap_remove(shard.index())));
                return Err(StartError::Shard { shard: shard.0, reason });
            }
            Ok(Event::Signal | Event::ShardOver | Event::LogWritten) | Err(_) => return Err(StartError::Interrupted),
        }
    }
    Ok(())
}

/// What a thread that had no executor to say it with ended with.
fn last_error(thread: ShardThread) -> String {
    thread.join().map_or_else(|error| error.to_string(), |()| "its thread ended".to_owned())
}

/// What the main thread waits for.
enum Event {
    Warm,
    Listening,
    /// Without a reason its thread knows it, and is about to end.
    ShardFailed {
        shard: ShardId,
        reason: Option<String>,
    },
    ShardOver,
    LogWritten,
    Signal,
}

/// `SIGTERM` and `SIGINT` become events; `SIGHUP` asks to `look` at the files of certificates, which nobody need listen to.
fn watch_signals(events: mpsc::Sender<Event>, look: mpsc::Sender<()>) -> Result<(), StartError> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(StartError::Thread)?;
    let tell = move |signal| match signal {
        SIGHUP => {
            let _ = look.send(());
            true
        }
        _ => events.send(Event::Signal).is_ok(),
    };
    let watch = move || signals.forever().take_while(|signal| tell(*signal)).for_each(drop);
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(StartError::Thread)?;
    Ok(())
}

/// Waits for a signal, drains, and waits for the shards' ends.
fn supervise(plan: &Plan, mesh: &Mesh, inbox: &mpsc::Receiver<Event>, shards: usize, claims: Claims) -> Ended {
    let (mut over, mut drain_end, mut claims) = (0, None, Some(claims));
    while over < shards {
        let event = match drain_end {
            None => inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(end) => inbox.recv_timeout(clock::now().max(end) - clock::now()),
        };
        match event {
            Ok(Event::Signal) if drain_end.is_none() => {
                tracing::info!(timeout = ?plan.drain_timeout, "draining");
                drain_end = Some(clock::now() + plan.drain_timeout);
                // Before anything stops listening: from then on the files are the next process's.
                drop(claims.take());
                mesh.shards().for_each(|shard| mesh.command(shard, Control::Drain));
            }
            Ok(Event::Signal) => {
                tracing::warn!("second signal: not waiting for what is in flight");
                return Ended::DrainTimeout;
            }
            Ok(Event::ShardOver) => over += 1,
            Ok(Event::ShardFailed { shard, reason }) => {
                tracing::error!(
                    shard = shard.0,
                    reason = reason.as_deref().unwrap_or("its thread ended"),
                    "shard failed"
                );
                return Ended::Failed;
            }
            Ok(Event::Warm | Event::Listening | Event::LogWritten) => {}
            Err(_) => {
                tracing::warn!("the drain's time is up with connections still open");
                return Ended::DrainTimeout;
            }
        }
    }
    tracing::info!("drained");
    Ended::Drained
}

/// Waits until the access log is written. Its reader may have stalled, so this takes a bounded time, and a signal ends it.
fn await_log(inbox: &mpsc::Receiver<Event>) {
    let end = clock::now() + LOG_PATIENCE;
    loop {
        match inbox.recv_timeout(end.saturating_duration_since(clock::now())) {
            Ok(Event::LogWritten) => return,
            Ok(Event::Signal) | Err(_) => break,
            Ok(Event::Warm | Event::Listening | Event::ShardFailed { .. } | Event::ShardOver) => {}
        }
    }
    tracing::warn!("the access log's last lines are lost: nobody takes them");
}

// === Shards ===

type ShardThread = glommio::ExecutorJoinHandle<()>;

fn start_shards(
    plan: &Arc<Plan>,
    tls: &Contexts,
    mesh: &Mesh,
    sockets: Vec<Vec<(ListenerId, OwnedFd)>>,
    lane: Option<Lane>,
    events: &mpsc::Sender<Event>,
) -> Result<Vec<ShardThread>, StartError> {
    let routes = Arc::new(RouteTable::new(plan));
    let gauges: Vec<Gauge> = plan.listeners.iter().map(|it| Gauge::new(it.limits.max_connections)).collect();
    let mut threads = Vec::new();
    for (id, sockets) in mesh.shards().zip(sockets) {
        let seat = Seat {
            id,
            plan: plan.clone(),
            routes: routes.clone(),
            tls: tls.for_shard(),
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
        let last_word = LastWord::new(id, events.clone());
        let started = builder.spawn(move || async move {
            match seat.run().await {
                Ok(()) => last_word.say(Event::ShardOver),
                Err(reason) => last_word.say(Event::ShardFailed { shard: id, reason: Some(reason) }),
            }
        });
        threads.push(started.map_err(|error| StartError::Shard { shard: id.0, reason: error.to_string() })?);
    }
    Ok(threads)
}

/// Sees to it that the main thread hears of a shard's end, also when the executor cannot be made or the driver panics: then this is dropped unsaid.
struct LastWord {
    shard: ShardId,
    events: mpsc::Sender<Event>,
    event: Option<Event>,
}

impl LastWord {
    fn new(shard: ShardId, events: mpsc::Sender<Event>) -> Self {
        Self { shard, events, event: None }
    }

    fn say(mut self, event: Event) {
        self.event = Some(event);
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let unsaid = || {
            let reason = std::thread::panicking().then(|| "its thread panicked".to_owned());
            Event::ShardFailed { shard: self.shard, reason }
        };
        let event = self.event.take().unwrap_or_else(unsaid);
        // The main thread may have ended already.
        let _ = self.events.send(event);
    }
}

/// Everything that a shard's thread is given.
struct Seat {
    id: ShardId,
    plan: Arc<Plan>,
    routes: Arc<RouteTable>,
    tls: Contexts,
    mesh: Mesh,
    lane: Option<Lane>,
    doors: Vec<Door>,
    events: mpsc::Sender<Event>,
}

impl Seat {
    async fn run(self) -> Result<(), String> {
        let ring = Ring::new(RingConfig { buffers: BUFFERS, clock: clock::now }).map_err(|error| error.to_string())?;
        let shard = Shard::new(self.id, (self.plan, self.routes, self.tls), ring.clone(), &self.mesh, self.lane);
        task::spawn(shard.clone().tick_forever());
        // The main thread may have given up already, here and below.
        let _ = self.events.send(Event::Warm);
        let (id, events, mut doors) = (self.id, self.events, self.doors);
        let over = driver::drive(&ring, shard.plan.busy_poll, || {
            shard.after_turn();
            if shard.phase() == Phase::Serving && !doors.is_empty() {
                let event = match open_doors(&shard, std::mem::take(&mut doors)) {
                    Ok(()) => Event::Listening,
                    Err(error) => Event::ShardFailed { shard: id, reason: Some(format!("cannot listen: {error}")) },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_whose_thread_panics_is_heard_of() {
        let (events, inbox) = mpsc::channel();
        let last_word = LastWord::new(ShardId(3), events.clone());
        let thread = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(EXECUTOR_IO_MEMORY)
            .spawn(move || async move {
                let _last_word = last_word;
                panic!("on purpose");
            })
            .expect("a thread");

        let event = inbox.recv_timeout(Duration::from_secs(60)).expect("an event");

        assert!(
            matches!(&event, Event::ShardFailed { shard: ShardId(3), reason: Some(reason) } if reason.contains("panicked"))
        );
        assert!(thread.join().is_err());
    }
}
