//! A descriptor that stays open while anything in the kernel uses it, and is closed by the ring.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};

use super::Ring;

/// Shared by a stream and by its operations in flight; the last of them closes it.
pub(super) struct Socket {
    /// Weak, because a ring that is torn down still holds operations, and they hold sockets.
    ring: Weak<Ring>,
    fd: RawFd,
}

impl Socket {
    pub fn new(ring: &Rc<Ring>, fd: OwnedFd) -> Rc<Self> {
        Rc::new(Self { ring: Rc::downgrade(ring), fd: fd.into_raw_fd() })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open until this socket is dropped, which the borrow outlives.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// For the system calls of `socket2` on the same descriptor.
    pub fn as_socket2(&self) -> socket2::SockRef<'_> {
        socket2::SockRef::from(self)
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl std::os::fd::AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        Socket::as_fd(self)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        match self.ring.upgrade() {
            Some(ring) => ring.close(self.fd),
            // SAFETY: the descriptor is ours and no operation uses it: each holds this socket.
            None => drop(unsafe { OwnedFd::from_raw_fd(self.fd) }),
        }
    }
}
