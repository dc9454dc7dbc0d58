//! What is in flight in the kernel, and who owns what until when.
//!
//! Every submission has a slot here, and the slot owns all that the kernel may touch: the socket (so that its descriptor cannot be closed and reused),
//! the bytes being sent, the address being connected to. It keeps them until the kernel's last completion for that submission, whatever happens to
//! the future that waits for it. Dropping the future *abandons* the slot: a cancel is queued, and the slot dies with its last completion.
//!
//! A completion carries the slot's [`Key`], whose generation tells it from a later operation in the same place.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::{squeue, types};
use slab::Slab;

use super::buffers::{Buf, LARGE_QUEUE, Size};
use super::doorbell::Doorbell;
use super::outgoing::Departure;
use super::socket::Socket;
use super::stream::Expect;
use super::{Ring, datagram, stream};

/// Names one operation; travels through the kernel as its `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

/// The index of completions that no slot waits for.
const NO_SLOT: u32 = u32::MAX;

impl Key {
    /// Completions of cancels: what they say shows in the cancelled operation's own completion.
    pub const IGNORED: Self = Self { index: NO_SLOT, generation: 0 };
    /// Another ring's message.
    pub const KNOCK: Self = Self { index: NO_SLOT, generation: 1 };
    /// The ring's own poll of its doorbell's event descriptor.
    pub const EVENT: Self = Self { index: NO_SLOT, generation: 2 };
    /// The time-out that ends a wait.
    pub const ALARM: Self = Self { index: NO_SLOT, generation: 3 };

    pub fn user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub fn from_user_data(user_data: u64) -> Self {
        Self { index: user_data as u32, generation: (user_data >> 32) as u32 }
    }
}

/// What the kernel does with an operation's socket, and what the operation owns meanwhile.
pub(super) enum Kind {
    Receive {
        size: Size,
    },
    Send(Box<Departure>),
    Connect {
        _address: Box<socket2::SockAddr>,
    },
    Accept(Box<Accepting>),
    Datagrams(Box<Receiving>),
    SendDatagrams(Box<datagram::Departure>),
    /// Nobody waits: the descriptor is gone when this completes.
    Close,
    /// Nobody waits: if the message cannot be delivered, the bell's event descriptor is written instead.
    Knock(Doorbell),
}

/// What a listener's operation has brought.
#[derive(Default)]
pub(super) struct Accepting {
    pub accepted: VecDeque<OwnedFd>,
}

/// What a datagram socket's operation has brought, and what the kernel reads of it.
pub(super) struct Receiving {
    pub received: VecDeque<Buf>,
    pub header: libc::msghdr,
}

/// When a send is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// When some of it has gone out.
    Some,
    /// When all of it has gone out. What was sent is given back.
    Whole,
    /// When all of it has gone out. What was sent is not wanted back, and if nobody waits the operation is gone without a word.
    Gone,
}

pub(super) enum State {
    Waiting(Option<Waker>),
    /// Not in the kernel: the receive waits for a buffer to come back.
    Parked(Option<Waker>),
    /// The last completion has come. A multishot operation that ended is done, too, with the error that ended it.
    Done {
        result: i32,
        buf: Option<Buf>,
    },
    Abandoned,
}

pub(super) struct Operation {
    generation: u32,
    pub state: State,
    pub kind: Kind,
    pub socket: Option<Rc<Socket>>,
    /// Cancelled because it brought more than anybody took. What it has brought is still there, and then it can begin anew.
    stopping: bool,
}

// A busy shard has several of them in flight for each connection, and touches each two or three times: they are to fit the cache.
const _: () = assert!(size_of::<Operation>() <= 80);

/// Connections accepted ahead of who takes them. Beyond this, the kernel's backlog holds them: it costs no descriptors, and refuses when it is full.
pub(super) const ACCEPTED_AHEAD: usize = 256;
/// Datagram buffers received ahead of who takes them: more than one turn can bring.
pub(super) const DATAGRAMS_AHEAD: usize = LARGE_QUEUE as usize;

/// What a completion means for its operation.
pub(super) enum Next {
    Wait,
    Wake(Option<Waker>),
    /// There was no buffer of this size.
    Park(Size),
    /// Part of what is to be sent has gone out, or none for want of room, and the rest is to follow.
    SendRest,
    /// Everything has gone out, and nobody wants to hear of it.
    Vanish,
    /// The last completion of an operation that nobody waits for.
    Forget,
}

/// All operations of a ring.
pub(super) struct Operations {
    slots: Slab<Operation>,
    next_generation: u32,
}

impl Operations {
    pub fn new() -> Self {
        Self { slots: Slab::new(), next_generation: 0 }
    }

    /// An operation that a future will wait for.
    pub fn insert(&mut self, kind: Kind, socket: Option<Rc<Socket>>) -> Key {
        self.insert_in(State::Waiting(None), kind, socket)
    }

    /// An operation that nobody waits for.
    pub fn insert_detached(&mut self, kind: Kind) -> Key {
        self.insert_in(State::Abandoned, kind, None)
    }

    fn insert_in(&mut self, state: State, kind: Kind, socket: Option<Rc<Socket>>) -> Key {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let index = self.slots.insert(Operation { generation, state, kind, socket, stopping: false });
        Key { index: u32::try_from(index).expect("fewer operations than 2^32"), generation }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut Operation> {
        self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)
    }

    pub fn remove(&mut self, key: Key) -> Operation {
        self.slots.remove(key.index as usize)
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Clones of the wakers of all who wait.
    pub fn wakers(&self) -> Vec<Waker> {
        let waiting = self.slots.iter().filter_map(|(_, slot)| match &slot.state {
            State::Waiting(waker) | State::Parked(waker) => waker.clone(),
            State::Done { .. } | State::Abandoned => None,
        });
        waiting.collect()
    }

    /// How many have completions to come.
    pub fn unfinished(&self) -> usize {
        self.slots.iter().filter(|(_, slot)| !matches!(slot.state, State::Done { .. })).count()
    }
}

impl Kind {
    /// The size of the buffers that the kernel picks for it.
    pub fn size(&self) -> Option<Size> {
        match self {
            Self::Receive { size } => Some(*size),
            Self::Datagrams(_) => Some(Size::Large),
            Self::Send(_)
            | Self::Connect { .. }
            | Self::Accept(_)
            | Self::SendDatagrams(_)
            | Self::Close
            | Self::Knock(_) => None,
        }
    }
}

impl Operation {
    /// Takes in one completion, the last one unless there are `more`.
    pub fn complete(&mut self, result: i32, buf: Option<Buf>, more: bool) -> Next {
        if let State::Abandoned = self.state {
            match &self.kind {
                Kind::Accept(_) if result >= 0 => {
                    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
                    drop(unsafe { OwnedFd::from_raw_fd(result) });
                }
                Kind::Knock(bell) if result < 0 => bell.write_event(),
                _ => {}
            }
            return if more { Next::Wait } else { Next::Forget };
        }
        if result == -libc::ENOBUFS
            && let Some(size) = self.kind.size()
        {
            self.state = State::Parked(self.state.take_waker());
            // A cancel that is queued finds nothing any more: once submitted again, the operation can be overrun again.
            self.stopping = false;
            return Next::Park(size);
        }
        if let Kind::Send(departure) = &mut self.kind {
            if std::mem::take(&mut departure.quiet) && result == -libc::EAGAIN {
                return Next::SendRest;
            }
            if departure.until != Until::Some
                && let Ok(sent) = usize::try_from(result)
            {
                departure.outgoing.advance(sent);
                if departure.outgoing.remaining() > 0 && sent > 0 {
                    return Next::SendRest;
                }
                if departure.until == Until::Gone && matches!(self.state, State::Waiting(None)) {
                    return Next::Vanish;
                }
            }
        }
        let unclaimed = match &mut self.kind {
            Kind::Accept(accepting) if result >= 0 => {
                // SAFETY: as above.
                accepting.accepted.push_back(unsafe { OwnedFd::from_raw_fd(result) });
                None
            }
            Kind::Datagrams(receiving) if result >= 0 => {
                receiving.received.extend(buf);
                None
            }
            _ => buf,
        };
        let waker = self.state.take_waker();
        if !more {
            self.state = State::Done { result, buf: unclaimed };
        }
        Next::Wake(waker)
    }

    /// Takes in that the kernel, having had its say, has said nothing of this: a quiet send has gone out whole. `None` if there was something to say.
    pub fn complete_unheard(&mut self) -> Option<Next> {
        let Kind::Send(departure) = &self.kind else { return None };
        if !departure.quiet {
            return None;
        }
        let sent = i32::try_from(departure.outgoing.remaining()).expect("sends are small");
        Some(self.complete(sent, None, false))
    }

    /// Whether more has come than anybody took. Says so once: the operation is to be cancelled then.
    pub fn is_overrun(&mut self) -> bool {
        let overrun = match &self.kind {
            Kind::Accept(accepting) => accepting.accepted.len() > ACCEPTED_AHEAD,
            Kind::Datagrams(receiving) => receiving.received.len() > DATAGRAMS_AHEAD,
            _ => false,
        };
        overrun && !std::mem::replace(&mut self.stopping, true)
    }

    /// How a multishot operation ended: an error, or `None` when it can just begin anew.
    pub fn ended(&self) -> Option<Option<io::Error>> {
        let State::Done { result, .. } = self.state else { return None };
        let fault = result < 0 && !(self.stopping && result == -libc::ECANCELED);
        Some(fault.then(|| io::Error::from_raw_os_error(-result)))
    }

    /// The entry with which a parked receive is submitted again. Takes its buffer off what is `queued`, by size; `None` if there is none that serves,
    /// or if nobody has taken what came before.
    pub fn resubmission(&mut self, queued: &mut [u16; Size::ALL.len()]) -> Option<squeue::Entry> {
        let fd = types::Fd(self.socket.as_ref()?.as_raw_fd());
        let mut take = |size: Size| {
            let left = queued[size as usize].checked_sub(1)?;
            queued[size as usize] = left;
            Some(size)
        };
        match &mut self.kind {
            Kind::Receive { size } => {
                *size = take(*size).or_else(|| take(Size::Small))?;
                Some(stream::receive_entry(fd, *size, Expect::Now))
            }
            Kind::Datagrams(receiving) if receiving.received.len() > DATAGRAMS_AHEAD => None,
            Kind::Datagrams(receiving) => take(Size::Large).map(|_| datagram::receive_entry(fd, &receiving.header)),
            _ => None,
        }
    }

    /// What the operation's future yields. Only for one that is done.
    pub fn end(mut self) -> Ended {
        let State::Done { result, buf } = std::mem::replace(&mut self.state, State::Abandoned) else {
            unreachable!("its last completion has come")
        };
        Ended { result, buf, operation: self }
    }
}

impl State {
    pub fn take_waker(&mut self) -> Option<Waker> {
        match self {
            Self::Waiting(waker) | Self::Parked(waker) => waker.take(),
            Self::Done { .. } | Self::Abandoned => None,
        }
    }

    /// Remembers who waits. Returns a waker that was replaced, to be dropped outside the ring's borrow.
    pub fn wait(&mut self, cx: &Context<'_>) -> Option<Waker> {
        let (Self::Waiting(waker) | Self::Parked(waker)) = self else {
            return None;
        };
        match waker {
            Some(known) if known.will_wake(cx.waker()) => None,
            _ => waker.replace(cx.waker().clone()),
        }
    }
}

/// The end of an operation that somebody waited for.
pub(super) struct Ended {
    pub result: i32,
    pub buf: Option<Buf>,
    pub operation: Operation,
}

/// The waiting side of one operation: a future of its end. Dropped before that, it abandons the operation.
pub(super) struct InFlight {
    pub ring: Rc<Ring>,
    pub key: Option<Key>,
}

impl Future for InFlight {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = self.get_mut();
        let key = this.key.expect("not polled again after it was ready");
        let ended = std::task::ready!(this.ring.poll_operation(key, cx));
        this.key = None;
        Poll::Ready(ended)
    }
}

impl InFlight {
    /// Whether the operation ended without a word: see [`Until::Gone`]. Notes it, too.
    ///
    /// Its key may name another operation only after 2^32 later ones, within the seconds for which a send may be unobserved.
    pub fn has_vanished(&mut self) -> bool {
        if self.key.is_some_and(|key| self.ring.exists(key)) {
            return false;
        }
        self.key = None;
        true
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.ring.abandon(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cancel of an overrun operation finds nothing when the buffers have run out in the same batch.
    #[test]
    fn an_operation_that_is_parked_while_it_is_being_stopped_can_be_stopped_again() {
        let mut operations = Operations::new();
        let key = operations.insert(Kind::Receive { size: Size::Large }, None);
        let operation = operations.get_mut(key).expect("inserted above");
        operation.stopping = true;

        assert!(matches!(operation.complete(-libc::ENOBUFS, None, false), Next::Park(Size::Large)));

        assert!(!operation.stopping);
    }
}
