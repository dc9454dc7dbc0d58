//! A shard's hands: sockets, buffers and timers over one io_uring.
//!
//! One thread owns a [`Ring`] and blocks in one place only, [`Ring::turn`]: it submits everything that was queued since the last turn, waits for the
//! first completion or the next timer, and wakes whoever waited for what came. Between two turns the thread's executor runs the woken tasks, and
//! what they submit travels with the next turn's single system call.
//!
//! This is the only room with `unsafe`. Soundness rests on ownership: see [`operation`]. It knows nothing of HTTP and takes no decisions.
#![expect(unsafe_code, reason = "the kernel interface: submissions name memory and descriptors")]

mod buffers;
mod datagram;
mod doorbell;
mod listener;
mod operation;
mod outgoing;
pub mod probe;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod timer;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

pub use buffers::{Buf, BufferCounts, LARGE_BYTES, SMALL_BYTES, Size};
pub use datagram::{Datagram, Packet, Received, SendPacket};
pub use doorbell::Doorbell;
pub use listener::Listener;
pub use outgoing::Outgoing;
pub use probe::RingError;
pub use stream::{Expect, Receive, Send, Stream};
pub use timer::{Expired, Timer, Wheel, Within};

use buffers::{Buffers, Filled};
use operation::{Ended, InFlight, Key, Kind, Operation, Operations, State};
use outgoing::Message;
use socket::Socket;

/// Submissions that one turn can carry before it needs a second system call.
const SUBMISSIONS: u32 = 1024;
/// Completions that one turn can bring; what is beyond waits in the kernel and is not lost.
const COMPLETIONS: u32 = 8192;
/// Message descriptions kept for vectored sends; more are made when more are in flight.
const SPARE_MESSAGES: usize = 256;

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
    /// Until something completes, a timer is due, or a doorbell rings.
    UntilEvent,
}

/// One io_uring with everything that is in flight on it. It lives and dies on one thread.
pub struct Ring {
    core: RefCell<Core>,
    wheel: timer::SharedWheel,
    clock: fn() -> Instant,
    now: Cell<Instant>,
    doorbell: Doorbell,
    rung: Cell<bool>,
    parked_total: Cell<u64>,
    scratch: RefCell<Scratch>,
}

struct Core {
    // Dropped in this order: the kernel forgets the buffers before they are unmapped.
    uring: IoUring,
    buffers: Buffers,
    operations: Operations,
    /// Submissions that found the queue full.
    backlog: VecDeque<squeue::Entry>,
    /// Receives that found no buffer.
    parked: VecDeque<Key>,
    #[expect(clippy::vec_box, reason = "a message must not move while the kernel may read it, so boxes are what is lent")]
    messages: Vec<Box<Message>>,
}

/// What a turn found, to be acted on outside the core's borrow: wakers and destructors may call back into the ring.
#[derive(Default)]
struct Scratch {
    wakers: Vec<Waker>,
    ended: Vec<Operation>,
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
        let uring = probe::build(SUBMISSIONS, COMPLETIONS)?;
        let buffers = Buffers::new(config.buffers, &uring.submitter()).map_err(probe::setup_error)?;
        // SAFETY: the descriptor is open for as long as `uring` is.
        let fd = unsafe { BorrowedFd::borrow_raw(uring.as_raw_fd()) };
        let doorbell = fd.try_clone_to_owned().and_then(Doorbell::new).map_err(probe::setup_error)?;
        let now = (config.clock)();
        let core = Core {
            uring,
            buffers,
            operations: Operations::new(),
            backlog: VecDeque::new(),
            parked: VecDeque::new(),
            messages: Vec::with_capacity(SPARE_MESSAGES),
        };
        let ring = Self {
            core: RefCell::new(core),
            wheel: RefCell::new(Wheel::new(now)),
            clock: config.clock,
            now: Cell::new(now),
            doorbell,
            rung: Cell::new(false),
            parked_total: Cell::new(0),
            scratch: RefCell::default(),
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
    /// Returns how many completions came.
    ///
    /// # Errors
    /// What `io_uring_enter(2)` says, interruptions and time-outs aside: nothing that a peer can cause.
    pub fn turn(&self, wait: Wait) -> io::Result<usize> {
        let mut scratch = self.scratch.take();
        let completed = {
            let mut core = self.core.borrow_mut();
            core.buffers.refill();
            core.unpark();
            let timeout = match wait {
                Wait::No => Some(Duration::ZERO),
                // The clock is read once more: what ran since the last turn may have taken long.
                Wait::UntilEvent => self.wheel.borrow().next().map(|next| next.saturating_duration_since((self.clock)())),
            };
            core.enter(timeout)?;
            self.reap(&mut core, &mut scratch)
        };
        self.now.set((self.clock)());
        self.wheel.borrow_mut().advance(self.now.get(), &mut scratch.wakers);
        scratch.wakers.drain(..).for_each(Waker::wake);
        scratch.ended.clear();
        self.scratch.replace(scratch);
        Ok(completed)
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

    pub fn usage(&self) -> RingUsage {
        let core = self.core.borrow();
        RingUsage {
            operations: core.operations.len(),
            buffers: core.buffers.outstanding(),
            timers: self.wheel.borrow().count(),
            parked_total: self.parked_total.get(),
        }
    }

    /// Cancels everything and turns until the kernel holds nothing of ours, at most for `patience`.
    ///
    /// Returns whether that succeeded.
    pub fn quiesce(&self, patience: Duration) -> bool {
        let end = (self.clock)() + patience;
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        // SAFETY: the entry names no memory.
        unsafe { self.core.borrow_mut().push(cancel.user_data(Key::IGNORED.user_data())) };
        while self.core.borrow().operations.len() > 0 {
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

    fn poll_operation(&self, key: Key, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut core = self.core.borrow_mut();
        let operation = core.operations.get_mut(key).expect("its future owns this operation");
        match operation.state {
            State::Done { result, filled } => {
                let operation = core.operations.remove(key);
                Poll::Ready(Ended { result, filled, operation })
            }
            _ => {
                let replaced = operation.state.wait(cx);
                drop(core);
                drop(replaced);
                Poll::Pending
            }
        }
    }

    fn abandon(&self, key: Key) {
        let ended = {
            let mut core = self.core.borrow_mut();
            let operation = core.operations.get_mut(key).expect("its future owned this operation");
            let state = std::mem::replace(&mut operation.state, State::Abandoned);
            match state {
                State::Done { filled, .. } => {
                    let ended = core.operations.remove(key);
                    core.recycle(filled);
                    (Some(ended), None)
                }
                State::Parked(waker) => (Some(core.operations.remove(key)), waker),
                State::Waiting(waker) => {
                    let cancel = opcode::AsyncCancel::new(key.user_data()).build();
                    // SAFETY: the entry names no memory.
                    unsafe { core.push(cancel.user_data(Key::IGNORED.user_data())) };
                    (None, waker)
                }
                State::Abandoned => unreachable!("an operation has one future, dropped once"),
            }
        };
        drop(ended);
    }

    fn reap(&self, core: &mut Core, scratch: &mut Scratch) -> usize {
        let Core { uring, buffers, operations, parked, .. } = core;
        let (mut count, mut listening) = (0, true);
        for completion in uring.completion() {
            count += 1;
            let key = Key::from_user_data(completion.user_data());
            let (result, more) = (completion.result(), cqueue::more(completion.flags()));
            let Some(operation) = operations.get_mut(key) else {
                self.rung.set(self.rung.get() || key == Key::KNOCK || key == Key::EVENT);
                listening &= key != Key::EVENT || more;
                continue;
            };
            let filled = cqueue::buffer_select(completion.flags()).and_then(|id| operation.filled(id, result));
            if let Some(filled) = filled {
                buffers.taken(filled.size);
            }
            match operation.complete(result, filled, more) {
                Next::Wait => {}
                Next::Wake(waker) => scratch.wakers.extend(waker),
                Next::Recycle(unread) => buffers.release(unread.size, unread.id),
                Next::Park => {
                    self.parked_total.set(self.parked_total.get() + 1);
                    parked.push_back(key);
                }
                Next::Forget(unread) => {
                    if let Some(Filled { size, id, .. }) = unread {
                        buffers.release(size, id);
                    }
                    scratch.ended.push(operations.remove(key));
                }
            }
        }
        if !listening {
            core.listen_for_knocks(&self.doorbell);
        }
        count
    }

    fn buf(self: &Rc<Self>, filled: Filled) -> Buf {
        let memory = self.core.borrow().buffers.memory(filled.size, filled.id);
        Buf::new(self.clone(), memory, filled)
    }

    fn release(&self, size: Size, id: u16) {
        self.core.borrow_mut().buffers.release(size, id);
    }

    fn close(&self, fd: RawFd) {
        let mut core = self.core.borrow_mut();
        let key = core.operations.insert_detached(Kind::Close);
        // SAFETY: the entry names no memory; the descriptor is closed once, here.
        unsafe { core.push(opcode::Close::new(types::Fd(fd)).build().user_data(key.user_data())) };
    }

    fn message(&self) -> Box<Message> {
        self.core.borrow_mut().messages.pop().unwrap_or_else(Message::new)
    }

    fn give_back(&self, message: Box<Message>) {
        let messages = &mut self.core.borrow_mut().messages;
        if messages.len() < SPARE_MESSAGES {
            messages.push(message);
        }
    }

    fn wheel(&self) -> &RefCell<Wheel> {
        &self.wheel
    }
}

impl Core {
    /// # Safety
    /// The memory and the descriptors that the entry names must live until its last completion.
    unsafe fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: the caller's promise.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            // What the kernel takes now makes room; an error shows again, and is told, in the next turn.
            let _ = self.uring.submit();
            // SAFETY: the caller's promise.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Submits, and waits for a completion until `timeout` is over; `None` waits for as long as it takes.
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: `push` was promised the same for this entry.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        let timeout = if self.backlog.is_empty() { timeout } else { Some(Duration::ZERO) };
        let result = match timeout {
            None => self.uring.submit_and_wait(1),
            Some(Duration::ZERO) => {
                let queued = self.uring.submission().len() as u32;
                // SAFETY: no argument is passed; the flag only asks for completions that are ready.
                unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) }
            }
            Some(timeout) => {
                let timeout = types::Timespec::from(timeout);
                self.uring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&timeout))
            }
        };
        match result {
            Ok(_) => Ok(()),
            // Time is up; a signal came; completions must be taken, or memory found, before more can be submitted: then this turn takes what is there.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Submits parked receives again, as many as there are buffers for. A long one makes do with a small buffer.
    fn unpark(&mut self) {
        for _ in 0..self.parked.len() {
            let Some(key) = self.parked.pop_front() else { return };
            let Some(operation) = self.operations.get_mut(key) else { continue };
            let State::Parked(waker) = &mut operation.state else { continue };
            let waker = waker.take();
            let Some(entry) = operation.resubmission(|size| self.buffers.available(size)) else {
                operation.state = State::Parked(waker);
                self.parked.push_back(key);
                continue;
            };
            operation.state = State::Waiting(waker);
            // SAFETY: the operation owns what its entry names, as it did the first time.
            unsafe { self.push(entry.user_data(key.user_data())) };
        }
    }

    fn recycle(&mut self, filled: Option<Filled>) {
        if let Some(Filled { size, id, .. }) = filled {
            self.buffers.release(size, id);
        }
    }

    fn listen_for_knocks(&mut self, bell: &Doorbell) {
        let poll = opcode::PollAdd::new(types::Fd(bell.event_fd()), libc::POLLIN as u32).multi(true).build();
        // SAFETY: the entry names no memory; the ring owns a clone of its own bell for as long as it lives.
        unsafe { self.push(poll.user_data(Key::EVENT.user_data())) };
    }
}

/// `IORING_ENTER_GETEVENTS` of the kernel's interface.
const ENTER_GETEVENTS: u32 = 1;

/// What a completion means for its operation.
enum Next {
    Wait,
    Wake(Option<Waker>),
    /// Bytes that nobody wants.
    Recycle(Filled),
    Park,
    /// The last completion of an operation that nobody waits for.
    Forget(Option<Filled>),
}

impl Operation {
    /// The buffer that a completion brought.
    fn filled(&self, id: u16, result: i32) -> Option<Filled> {
        let size = match &self.kind {
            Kind::Receive { size } => *size,
            Kind::Datagrams { .. } => Size::Large,
            _ => return None,
        };
        Some(Filled { size, id, len: result.max(0) as u32 })
    }

    fn complete(&mut self, result: i32, filled: Option<Filled>, more: bool) -> Next {
        if let (State::Abandoned, kind) = (&self.state, &self.kind) {
            match kind {
                Kind::Accept { .. } if result >= 0 => {
                    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
                    drop(unsafe { OwnedFd::from_raw_fd(result) });
                }
                Kind::Knock(bell) if result < 0 => bell.write_event(),
                _ => {}
            }
            return match (more, filled) {
                (false, filled) => Next::Forget(filled),
                (true, Some(filled)) => Next::Recycle(filled),
                (true, None) => Next::Wait,
            };
        }
        match &mut self.kind {
            Kind::Receive { .. } | Kind::Datagrams { .. } if result == -libc::ENOBUFS => {
                self.state = State::Parked(self.state.take_waker());
                return Next::Park;
            }
            Kind::Accept { accepted } if result >= 0 => {
                // SAFETY: as above.
                accepted.push_back(unsafe { OwnedFd::from_raw_fd(result) });
            }
            Kind::Datagrams { received, .. } if result >= 0 => received.extend(filled),
            _ => {}
        }
        let waker = self.state.take_waker();
        if !more {
            let filled = filled.filter(|_| matches!(self.kind, Kind::Receive { .. }));
            self.state = State::Done { result, filled };
        }
        Next::Wake(waker)
    }

    /// The entry with which a parked receive is submitted again, if `available` has a size that serves.
    fn resubmission(&mut self, available: impl Fn(Size) -> bool) -> Option<squeue::Entry> {
        let fd = types::Fd(self.socket.as_ref()?.as_raw_fd());
        match &mut self.kind {
            Kind::Receive { size } => {
                *size = [*size, Size::Small].into_iter().find(|size| available(*size))?;
                Some(stream::receive_entry(fd, *size, Expect::Now))
            }
            Kind::Datagrams { header, .. } => available(Size::Large).then(|| datagram::receive_entry(fd, header)),
            _ => None,
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let operations = self.core.get_mut().operations.len();
        if operations > 0 && !self.quiesce(DROP_PATIENCE) {
            // The kernel may still write to memory of these operations: better lost than freed.
            let core = self.core.get_mut();
            core.buffers.leak();
            std::mem::forget(std::mem::replace(&mut core.operations, Operations::new()));
        }
    }
}

/// How long a dropped ring waits for the kernel to end what is in flight.
const DROP_PATIENCE: Duration = Duration::from_secs(5);
