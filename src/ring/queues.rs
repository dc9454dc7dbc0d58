//! The queues that a ring shares with the kernel, and what is in them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::task::Waker;
use std::time::Instant;

use io_uring::{IoUring, opcode, squeue, types};

use super::buffers::{SharedBuffers, Size};
use super::doorbell::Doorbell;
use super::gate::Gate;
use super::operation::{Key, Next, Operation, Operations, State};
use super::outgoing::Departure;
use super::{SPARE_DEPARTURES, Scratch, stream};

pub(super) struct Core {
    gate: Gate,
    pub uring: IoUring,
    pub operations: Operations,
    /// When the time-out that is in the kernel goes off.
    pub alarm: Option<Instant>,
    alarm_after: Box<types::Timespec>,
    /// Sends of which the kernel says something only if they do not go out whole at once.
    pub quiet: Vec<Key>,
    /// Submissions that found the queue full.
    backlog: VecDeque<squeue::Entry>,
    /// Receives that found no buffer, by the size that they asked for.
    pub parked: [VecDeque<Key>; Size::ALL.len()],
    #[expect(
        clippy::vec_box,
        reason = "a departure must not move while the kernel may read it, so boxes are what is lent"
    )]
    pub departures: Vec<Box<Departure>>,
}

impl Core {
    pub fn new(uring: IoUring) -> Self {
        Self {
            gate: Gate::new(&uring),
            uring,
            operations: Operations::new(),
            alarm: None,
            alarm_after: Box::default(),
            quiet: Vec::new(),
            backlog: VecDeque::new(),
            parked: Default::default(),
            departures: Vec::with_capacity(SPARE_DEPARTURES),
        }
    }

    /// # Safety
    /// The memory and the descriptors that the entry names must live until its last completion.
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
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

    /// Submits, and waits for a completion if it `may_sleep`.
    pub fn enter(&mut self, may_sleep: bool) -> io::Result<()> {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: `push` was promised the same for this entry.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        let queued = self.uring.submission().len();
        let wanted = u32::from(may_sleep && self.backlog.is_empty());
        let is_passing =
            |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN));
        let entered = match self.gate.enter(queued, wanted) {
            // Completions must be taken, or memory found, before more can be submitted. Having failed to submit, the kernel has not brought any.
            Err(error) if is_passing(&error) => self.gate.enter(0, 0),
            entered => entered,
        };
        match entered {
            Err(error) if is_passing(&error) => Ok(()),
            entered => entered,
        }
    }

    /// Whether somebody waits for a send that may end without waking the kernel's waiter.
    pub fn is_quiet_one_awaited(&mut self) -> bool {
        let Self { quiet, operations, .. } = self;
        quiet.iter().any(|key| {
            operations.get_mut(*key).is_some_and(|operation| matches!(operation.state, State::Waiting(Some(_))))
        })
    }

    /// Ends the quiet sends of which the kernel said nothing.
    ///
    /// It tries each once, while it takes the submission in: so whoever has not failed by the end of the call has gone out. Returns how many wakers that brought.
    pub fn conclude_quiet(&mut self, scratch: &mut Scratch) -> usize {
        let submissions = self.uring.submission();
        if !submissions.is_empty() || submissions.cq_overflow() || !self.backlog.is_empty() {
            return 0;
        }
        drop(submissions);
        let before = scratch.wakers.len();
        for key in self.quiet.drain(..) {
            match self.operations.get_mut(key).and_then(Operation::complete_unheard) {
                None => {}
                Some(Next::Wake(waker)) => scratch.wakers.extend(waker),
                Some(Next::Vanish | Next::Forget) => scratch.ended.push(self.operations.remove(key)),
                Some(Next::Wait | Next::Park(_) | Next::SendRest) => unreachable!("it has gone out whole"),
            }
        }
        scratch.wakers.len() - before
    }

    /// Sees to it that a wait ends at `next`, by a time-out that stays in the kernel from wait to wait: one for each would cost more than most waits.
    pub fn arm_alarm(&mut self, next: Option<Instant>, clock: fn() -> Instant) {
        let Some(next) = next else { return };
        if self.alarm.is_some_and(|alarm| alarm <= next) {
            // It may go off before anything is due. Then it is set anew.
            return;
        }
        if self.alarm.replace(next).is_some() {
            let remove = opcode::TimeoutRemove::new(Key::ALARM.user_data()).build();
            // SAFETY: the entry names no memory.
            unsafe { self.push(remove.user_data(Key::IGNORED.user_data())) };
        }
        *self.alarm_after = types::Timespec::from(next.saturating_duration_since(clock()));
        let alarm = opcode::Timeout::new(&raw const *self.alarm_after).build().user_data(Key::ALARM.user_data());
        // SAFETY: the duration is boxed, lives as long as the ring, and is read when the entry is submitted. One that is written again before that lends its
        // alarm the later duration, which the removal queued behind it undoes.
        unsafe { self.push(alarm) };
    }

    /// Submits parked receives again, no more than there are buffers for: the kernel would only refuse them again. A long one makes do with a small
    /// buffer.
    ///
    /// Returns whether others stay parked that those which were submitted may leave buffers for.
    pub fn unpark(&mut self, buffers: &SharedBuffers) -> bool {
        buffers.borrow_mut().refill();
        let mut queued = Size::ALL.map(|size| buffers.borrow().queued(size));
        let (mut submitted, mut parked) = (false, false);
        for size in Size::ALL {
            for _ in 0..self.parked[size as usize].len() {
                if queued[..=size as usize].iter().all(|queued| *queued == 0) {
                    break;
                }
                let Some(key) = self.parked[size as usize].pop_front() else { break };
                let operation = self.operations.get_mut(key).expect("an operation that is given up leaves the queue");
                let Some(entry) = operation.resubmission(&mut queued) else {
                    self.parked[size as usize].push_back(key);
                    continue;
                };
                operation.state = State::Waiting(operation.state.take_waker());
                submitted = true;
                // SAFETY: the operation owns what its entry names, as it did the first time.
                unsafe { self.push(entry.user_data(key.user_data())) };
            }
            parked |= !self.parked[size as usize].is_empty();
        }
        submitted && parked
    }

    /// Cancels what the kernel has, and ends what is parked. Returns who waited for the latter.
    pub fn cancel_all(&mut self) -> Vec<Waker> {
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        // SAFETY: the entry names no memory.
        unsafe { self.push(cancel.user_data(Key::IGNORED.user_data())) };
        // The alarm is cancelled like everything else: the next wait sets its own.
        self.alarm = None;
        let mut wakers = Vec::new();
        for key in self.parked.iter_mut().flat_map(|parked| parked.drain(..)) {
            let operation = self.operations.get_mut(key).expect("an operation that is given up leaves the queue");
            wakers.extend(operation.state.take_waker());
            operation.state = State::Done { result: -libc::ECANCELED, buf: None };
        }
        wakers
    }

    pub fn cancel(&mut self, key: Key) {
        let cancel = opcode::AsyncCancel::new(key.user_data()).build();
        // SAFETY: the entry names no memory.
        unsafe { self.push(cancel.user_data(Key::IGNORED.user_data())) };
    }

    pub fn send_rest(&mut self, key: Key) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        let Some(socket) = &operation.socket else { return };
        let entry = stream::send_entry(types::Fd(socket.as_raw_fd()), &mut operation.kind);
        // SAFETY: the operation owns what its entry names, as it did the first time.
        unsafe { self.push(entry.user_data(key.user_data())) };
    }

    pub fn listen_for_knocks(&mut self, bell: &Doorbell) {
        let poll = opcode::PollAdd::new(types::Fd(bell.event_fd()), libc::POLLIN as u32).multi(true).build();
        // SAFETY: the entry names no memory; the ring owns a clone of its own bell for as long as it lives.
        unsafe { self.push(poll.user_data(Key::EVENT.user_data())) };
    }
}
