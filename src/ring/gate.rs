//! The one system call with which a ring submits and waits.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::IoUring;

/// `io_uring_enter(2)` for one ring, by the calling thread's registration of it where the kernel has such: that saves looking its descriptor up each
/// time, which costs atomic operations in a process of several threads.
pub(super) struct Gate {
    /// The ring's descriptor, or its place among those that the thread has registered.
    ring: RawFd,
    flags: u32,
}

/// Of the kernel's interface, `linux/io_uring.h`.
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingRegistration {
    place: u32,
    reserved: u32,
    ring: u64,
}

impl Gate {
    /// For the calling thread, which is the one that enters.
    pub fn new(uring: &IoUring) -> Self {
        let ring = uring.as_raw_fd();
        let mut registration = RingRegistration { place: u32::MAX, reserved: 0, ring: ring as u64 };
        // SAFETY: passes one live registration and the count of one, for the kernel to read and to fill in the place.
        let registered =
            unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_RING_FDS, &raw mut registration, 1) };
        match registered {
            1 => Self { ring: registration.place as RawFd, flags: ENTER_GETEVENTS | ENTER_REGISTERED_RING },
            _ => Self { ring, flags: ENTER_GETEVENTS },
        }
    }

    /// Submits `queued` entries and waits until `wanted` completions are there. Runs what the kernel has deferred in either case.
    ///
    /// # Errors
    /// See the manual page.
    pub fn enter(&self, queued: usize, wanted: u32) -> io::Result<()> {
        // SAFETY: passes no memory: no signal mask, no time-out. What the queued entries name is promised where they are pushed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.ring,
                queued as libc::c_uint,
                wanted,
                self.flags,
                std::ptr::null::<libc::c_void>(),
                0usize,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
