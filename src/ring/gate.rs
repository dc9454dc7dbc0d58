//! The one system call with which a ring submits and waits.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::IoUring;

/// `io_uring_enter(2)` for one ring, by the calling thread's registration of it where the kernel has such: that saves looking its descriptor up each
/// time, which costs atomic operations in a process of several threads.
///
/// A registration keeps the ring in the kernel, and a thread has few, so it ends with the gate: drop that before the ring's descriptor.
pub(super) struct Gate {
    descriptor: RawFd,
    /// Where among those that the thread has registered.
    place: Option<u32>,
}

/// Of the kernel's interface, `linux/io_uring.h`.
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

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
        let descriptor = uring.as_raw_fd();
        let mut registration = RingRegistration { place: u32::MAX, reserved: 0, ring: descriptor as u64 };
        let registered = register(descriptor, REGISTER_RING_FDS, &mut registration);
        Self { descriptor, place: (registered == 1).then_some(registration.place) }
    }

    /// Submits `queued` entries and waits until `wanted` completions are there. Runs what the kernel has deferred in either case.
    ///
    /// # Errors
    /// See the manual page.
    pub fn enter(&self, queued: usize, wanted: u32) -> io::Result<()> {
        let (ring, flags) = match self.place {
            Some(place) => (place as RawFd, ENTER_GETEVENTS | ENTER_REGISTERED_RING),
            None => (self.descriptor, ENTER_GETEVENTS),
        };
        // SAFETY: passes no memory: no signal mask, no time-out. What the queued entries name is promised where they are pushed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                ring,
                queued as libc::c_uint,
                wanted,
                flags,
                std::ptr::null::<libc::c_void>(),
                0usize,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            register(self.descriptor, UNREGISTER_RING_FDS, &mut RingRegistration { place, reserved: 0, ring: 0 });
        }
    }
}

/// Registers a ring with the calling thread, or ends that. Returns how many were, or a negative number.
fn register(descriptor: RawFd, operation: u32, registration: &mut RingRegistration) -> libc::c_long {
    // SAFETY: passes one live registration and the count of one, for the kernel to read and to fill in the place.
    unsafe { libc::syscall(libc::SYS_io_uring_register, descriptor, operation, &raw mut *registration, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel has sixteen places for each thread.
    #[test]
    fn a_thread_can_register_any_number_of_rings_one_after_the_other() {
        let mut places = Vec::new();
        for _ in 0..40 {
            let uring = super::super::probe::build(1, 2).expect("a ring");
            places.push(Gate::new(&uring).place);
        }
        assert_eq!(places, [places[0]; 40]);
    }
}
