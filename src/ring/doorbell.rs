//! How another thread wakes a shard that sleeps in its ring.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes one ring from anywhere. Knocks that come before the ring looks are one knock.
#[derive(Clone)]
pub struct Doorbell(Arc<Bell>);

struct Bell {
    /// The ring, for messages of other rings.
    ring: OwnedFd,
    /// An eventfd that the ring polls, for threads that have no ring.
    event: OwnedFd,
    /// Somebody has knocked and the ring has not looked yet.
    pending: AtomicBool,
}

impl Doorbell {
    pub(super) fn new(ring: OwnedFd) -> io::Result<Self> {
        // SAFETY: `eventfd` takes no pointers.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above made this descriptor, and nobody else has it.
        let event = unsafe { std::os::fd::FromRawFd::from_raw_fd(event) };
        Ok(Self(Arc::new(Bell { ring, event, pending: AtomicBool::new(false) })))
    }

    /// Wakes the ring, from a thread without a ring of its own; a shard uses [`Ring::knock`](super::Ring::knock).
    pub fn knock(&self) {
        if self.begin_knock() {
            self.write_event();
        }
    }

    /// Whether the ring must be woken: false when an earlier knock is still on its way.
    pub(super) fn begin_knock(&self) -> bool {
        !self.0.pending.swap(true, Ordering::AcqRel)
    }

    /// What the owner calls before it looks at what the knock announced.
    ///
    /// A swap, not a store: it reads what the last `begin_knock` wrote, and so sees all that its caller did before. Whoever swaps later knocks again.
    pub(super) fn answer(&self) {
        self.0.pending.swap(false, Ordering::AcqRel);
    }

    pub(super) fn write_event(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes eight bytes from a live array. It fails only when the counter is full, which means that the ring is already woken.
        unsafe { libc::write(self.0.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(super) fn ring_fd(&self) -> RawFd {
        self.0.ring.as_raw_fd()
    }

    pub(super) fn event_fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }
}
