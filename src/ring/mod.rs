//! A shard's hands: sockets, buffers and timers over one io_uring.
//!
//! One thread owns a [`Ring`] and blocks in one place only, [`Ring::turn`]: it submits everything that was queued since the last turn, waits for the
//! first completion or the next timer, and wakes whoever waited for what came. Between two turns the thread's executor runs the woken tasks, and
//! what they submit travels with the next turn's single system call.
//!
//! This is the only room with `unsafe`. Soundness rests on ownership: see `operation`. It knows nothing of HTTP and takes no decisions.
#![expect(unsafe_code, reason = "the kernel interface: submissions name memory and descriptors")]

mod buffers;
mod datagram;
mod doorbell;
mod gate;
mod listener;
mod operation;
mod outgoing;
pub mod probe;
mod queues;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod timer;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use io_uring::{cqueue, opcode, squeue, types};

pub use buffers::{Buf, BufferCounts, LARGE_BYTES, SMALL_BYTES, Size};
pub use datagram::{Datagram, Packet, Received, SendPacket};
pub use doorbell::Doorbell;
pub use listener::Listener;
pub use outgoing::Outgoing;
pub use probe::RingError;
pub use stream::{Expect, Posted, Receive, Send, Stream};
pub use timer::{Expired, Timer, Wheel, Within};

use buffers::{Buffers, SharedBuffers};
use operation::{Ended, InFlight, Key, Kind, Next, Operation, Operations, State, Until};
use outgoing::Departure;
use queues::Core;
use socket::Socket;

/// Submissions that one turn can carry before it needs a second system call.
const SUBMISSIONS: u32 = 1024;
/// Completions that one turn can bring; what is beyond waits in the kernel and is not lost.
const COMPLETIONS: u32 = 8192;
/// Boxes kept for sends, 45 KiB; more are made when more are in flight.
const SPARE_DEPARTURES: usize = 256;

/// Allocations kept for bytes to send, 4 MiB at most. Larger ones than [`SPARE_BYTES`] are given up.
const SPARES: usize = 256;
const SPARE_BYTES: usize = 16 * 1024;

/// What a ring is made of.
#[derive(Clone, Copy)]
pub struct RingConfig {
    pub buffers: BufferCounts,
    /// Reads the time, once per turn.
    pub clock: fn() -> Instant,
}

/// How long a turn may wait for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Submits and takes what is there.
    No,
    /// Until something completes, a timer is due, or somebody knocks. A knock that is not yet answered is one.
    UntilEvent,
}

/// One io_uring with everything that is in flight on it. It lives and dies on one thread.
pub struct Ring {
    // The doorbell's copies of the descriptor keep the ring open after the buffers are unmapped. That is sound because nothing is in flight then: see `drop`.
    core: RefCell<Core>,
    buffers: SharedBuffers,
    wheel: timer::SharedWheel,
    clock: fn() -> Instant,
    now: Cell<Instant>,
    doorbell: Doorbell,
    rung: Cell<bool>,
    parked_total: Cell<u64>,
    scratch: RefCell<Scratch>,
    spares: RefCell<Vec<Vec<u8>>>,
}

/// What a turn found, to be acted on outside the core's borrow: wakers and destructors may call back into the ring.
#[derive(Default)]
struct Scratch {
    wakers: VecDeque<Waker>,
    ended: Vec<Operation>,
    /// Sends of which a part has gone out.
    unfinished: Vec<Key>,
    /// Operations that bring more than anybody takes.
    overrun: Vec<Key>,
}

/// A turn's scratch. A waker that panics leaves the others in it to the next turn.
struct Found<'r> {
    ring: &'r Ring,
    scratch: Scratch,
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        let mut kept = self.ring.scratch.borrow_mut();
        if !kept.wakers.is_empty() || !kept.ended.is_empty() {
            // Of a turn within this one that did not end.
            self.scratch.wakers.append(&mut kept.wakers);
            self.scratch.ended.append(&mut kept.ended);
        }
        std::mem::swap(&mut *kept, &mut self.scratch);
    }
}

/// What a ring holds at the moment, for tests and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingUsage {
    pub operations: usize,
    pub buffers: usize,
    pub timers: usize,
    /// Receives that ever had to wait for a buffer.
    pub parked_total: u64,
}

impl Ring {
    /// A ring for the calling thread.
    ///
    /// # Errors
    /// See [`RingError`]: each says what to change.
    pub fn new(config: RingConfig) -> Result<Rc<Self>, RingError> {
        Self::with_queues(config, SUBMISSIONS, COMPLETIONS)
    }

    fn with_queues(config: RingConfig, submissions: u32, completions: u32) -> Result<Rc<Self>, RingError> {
        let uring = probe::build(submissions, completions)?;
        let buffers = Buffers::new(config.buffers, &uring.submitter()).map_err(probe::setup_error)?;
        // SAFETY: the descriptor is open for as long as `uring` is.
        let fd = unsafe { BorrowedFd::borrow_raw(uring.as_raw_fd()) };
        let doorbell = fd.try_clone_to_owned().and_then(Doorbell::new).map_err(probe::setup_error)?;
        let now = (config.clock)();
        let ring = Self {
            core: RefCell::new(Core::new(uring)),
            buffers: Rc::new(RefCell::new(buffers)),
            wheel: RefCell::new(Wheel::new(now)),
            clock: config.clock,
            now: Cell::new(now),
            doorbell,
            rung: Cell::new(false),
            parked_total: Cell::new(0),
            scratch: RefCell::default(),
            spares: RefCell::default(),
        };
        ring.core.borrow_mut().listen_for_knocks(&ring.doorbell);
        Ok(Rc::new(ring))
    }

    /// The time as of the last turn.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Submits what was queued, waits if asked to, and wakes those whose operations or timers are done.
    ///
    /// Returns how many completions came and timers went off: while it is none, nobody was woken.
    ///
    /// # Errors
    /// What `io_uring_enter(2)` says, interruptions and time-outs aside: nothing that a peer can cause.
    pub fn turn(&self, wait: Wait) -> io::Result<usize> {
        let mut found = Found { ring: self, scratch: self.scratch.take() };
        let scratch = &mut found.scratch;
        let left_over = scratch.wakers.len();
        let completed = {
            let mut core = self.core.borrow_mut();
            let more_to_unpark = core.unpark(&self.buffers);
            let may_sleep = wait == Wait::UntilEvent
                && !more_to_unpark
                && !self.rung.get()
                && left_over == 0
                && !core.is_quiet_one_awaited();
            if may_sleep {
                core.arm_alarm(self.wheel.borrow().next(), self.clock);
            }
            core.enter(may_sleep)?;
            self.reap(&mut core, scratch)
        };
        self.now.set((self.clock)());
        let by_operations = scratch.wakers.len();
        self.wheel.borrow_mut().advance(self.now.get(), &mut scratch.wakers);
        let due = scratch.wakers.len() - by_operations;
        while let Some(waker) = scratch.wakers.pop_front() {
            waker.wake();
        }
        scratch.ended.drain(..).for_each(|operation| self.dismantle(operation));
        Ok(left_over + completed + due)
    }

    /// What other threads knock on to wake this ring.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// Wakes another ring. Travels with the next turn.
    pub fn knock(&self, bell: &Doorbell) {
        if bell.begin_knock() {
            let entry = opcode::MsgRingData::new(types::Fd(bell.ring_fd()), 0, Key::KNOCK.user_data(), None).build();
            let mut core = self.core.borrow_mut();
            let key = core.operations.insert_detached(Kind::Knock(bell.clone()));
            // SAFETY: the entry names no memory; the operation keeps the bell and so the target's descriptor.
            unsafe { core.push(entry.user_data(key.user_data())) };
        }
    }

    /// Whether somebody knocked since the last call. What they announced is visible now.
    pub fn answer_door(&self) -> bool {
        let rung = self.rung.replace(false);
        if rung {
            self.doorbell.answer();
        }
        rung
    }

    /// Wakes everyone who waits for an operation, so that they look at something else: a rare event, such as a drain.
    pub fn wake_all(&self) {
        let wakers = self.core.borrow().operations.wakers();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub fn usage(&self) -> RingUsage {
        let core = self.core.borrow();
        RingUsage {
            operations: core.operations.len(),
            buffers: self.buffers.borrow().outstanding(),
            timers: self.wheel.borrow().count(),
            parked_total: self.parked_total.get(),
        }
    }

    /// Cancels everything and turns until the kernel holds nothing of ours, at most for `patience`.
    ///
    /// Returns whether that succeeded.
    pub fn quiesce(&self, patience: Duration) -> bool {
        let end = (self.clock)() + patience;
        while self.core.borrow().operations.unfinished() > 0 {
            let wakers = self.core.borrow_mut().cancel_all();
            wakers.into_iter().for_each(Waker::wake);
            if (self.clock)() >= end || self.turn(Wait::No).is_err() {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// Queues one operation.
    ///
    /// # Safety
    /// The entry made by `build` must name only memory that `kind` owns at a stable address, and descriptors that `socket` or `kind` keep open.
    unsafe fn submit(
        self: &Rc<Self>,
        kind: Kind,
        socket: Option<Rc<Socket>>,
        build: impl FnOnce(&mut Kind) -> squeue::Entry,
    ) -> InFlight {
        let mut core = self.core.borrow_mut();
        let key = core.operations.insert(kind, socket);
        let operation = core.operations.get_mut(key).expect("inserted above");
        let entry = build(&mut operation.kind).user_data(key.user_data());
        // SAFETY: the caller's promise; the operation lives until its last completion.
        unsafe { core.push(entry) };
        InFlight { ring: self.clone(), key: Some(key) }
    }

    fn exists(&self, key: Key) -> bool {
        self.core.borrow_mut().operations.get_mut(key).is_some()
    }

    fn poll_operation(&self, key: Key, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut core = self.core.borrow_mut();
        let operation = core.operations.get_mut(key).expect("its future owns this operation");
        if let State::Done { .. } = operation.state {
            return Poll::Ready(core.operations.remove(key).end());
        }
        let replaced = operation.state.wait(cx);
        drop(core);
        drop(replaced);
        Poll::Pending
    }

    fn abandon(&self, key: Key) {
        let ended = {
            let mut core = self.core.borrow_mut();
            // A send that was posted for good may have ended without a word.
            let Some(operation) = core.operations.get_mut(key) else { return };
            match std::mem::replace(&mut operation.state, State::Abandoned) {
                State::Done { .. } => (Some(core.operations.remove(key)), None),
                State::Parked(waker) => {
                    for parked in &mut core.parked {
                        // The oldest are the likeliest to be given up, and they are in front.
                        if let Some(place) = parked.iter().position(|parked| *parked == key) {
                            parked.remove(place);
                        }
                    }
                    (Some(core.operations.remove(key)), waker)
                }
                State::Waiting(waker) => {
                    core.cancel(key);
                    (None, waker)
                }
                State::Abandoned => unreachable!("an operation has one future, dropped once"),
            }
        };
        drop(ended);
    }

    fn reap(&self, core: &mut Core, scratch: &mut Scratch) -> usize {
        let Core { uring, operations, parked, alarm, .. } = core;
        let (mut count, mut listening) = (0, true);
        for completion in uring.completion() {
            count += 1;
            let key = Key::from_user_data(completion.user_data());
            let (result, more) = (completion.result(), cqueue::more(completion.flags()));
            let Some(operation) = operations.get_mut(key) else {
                self.rung.set(self.rung.get() || key == Key::KNOCK || key == Key::EVENT);
                // One that was removed says so, too, and is none that went off.
                if key == Key::ALARM && result == -libc::ETIME {
                    *alarm = None;
                }
                listening &= key != Key::EVENT || more;
                continue;
            };
            // The flag counts, whatever the result: some errors use a buffer up, the end of a stream does not.
            let buf = cqueue::buffer_select(completion.flags())
                .zip(operation.kind.size())
                .map(|(id, size)| Buffers::take(&self.buffers, size, id, result.max(0) as u32));
            match operation.complete(result, buf, more) {
                Next::Wait => {}
                Next::Wake(waker) => {
                    if let Some(waker) = waker {
                        scratch.wakers.push_back(waker);
                    }
                    if more && operation.is_overrun() {
                        scratch.overrun.push(key);
                    }
                }
                Next::Park(size) => {
                    self.parked_total.set(self.parked_total.get() + 1);
                    parked[size as usize].push_back(key);
                }
                Next::Forget | Next::Vanish => scratch.ended.push(operations.remove(key)),
                Next::SendRest => scratch.unfinished.push(key),
            }
        }
        count += core.conclude_quiet(scratch);
        scratch.unfinished.drain(..).for_each(|key| core.send_rest(key));
        scratch.overrun.drain(..).for_each(|key| core.cancel(key));
        if !listening {
            core.listen_for_knocks(&self.doorbell);
        }
        count
    }

    /// Keeps the allocations of an operation that has ended.
    fn dismantle(&self, operation: Operation) {
        if let Kind::Send(departure) = operation.kind {
            self.keep_spare(self.give_back(departure).head);
        }
    }

    /// An empty allocation for bytes to send.
    pub fn spare(&self) -> Vec<u8> {
        self.spares.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps an allocation for the next bytes to send.
    pub fn keep_spare(&self, mut spare: Vec<u8>) {
        let mut spares = self.spares.borrow_mut();
        if spares.len() < SPARES && (1..=SPARE_BYTES).contains(&spare.capacity()) {
            spare.clear();
            spares.push(spare);
        }
    }

    fn close(&self, fd: RawFd) {
        let mut core = self.core.borrow_mut();
        let key = core.operations.insert_detached(Kind::Close);
        // SAFETY: the entry names no memory; the descriptor is closed once, here.
        unsafe { core.push(opcode::Close::new(types::Fd(fd)).build().user_data(key.user_data())) };
    }

    fn departure(&self, outgoing: Outgoing, until: Until, quiet: bool) -> Box<Departure> {
        let mut departure = self.core.borrow_mut().departures.pop().unwrap_or_else(Departure::new);
        (departure.outgoing, departure.until, departure.quiet) = (outgoing, until, quiet);
        departure
    }

    /// Takes out what was sent, and keeps the box.
    fn give_back(&self, mut departure: Box<Departure>) -> Outgoing {
        let outgoing = std::mem::take(&mut departure.outgoing);
        let departures = &mut self.core.borrow_mut().departures;
        if departures.len() < SPARE_DEPARTURES {
            departures.push(departure);
        }
        outgoing
    }

    fn wheel(&self) -> &RefCell<Wheel> {
        &self.wheel
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let operations = self.core.get_mut().operations.len();
        // A clock or a waker of somebody else may panic.
        let quiet = || operations == 0 || self.quiesce(DROP_PATIENCE);
        if !catch_unwind(AssertUnwindSafe(quiet)).unwrap_or(false) {
            // The kernel may still write to memory of these operations: better lost than freed.
            std::mem::forget(self.buffers.clone());
            std::mem::forget(std::mem::replace(&mut self.core.get_mut().operations, Operations::new()));
        }
    }
}

/// How long a dropped ring waits for the kernel to end what is in flight.
const DROP_PATIENCE: Duration = Duration::from_secs(5);
