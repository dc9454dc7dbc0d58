//! Receive buffers that the kernel picks only when data is there: two groups of provided buffers per ring.
//!
//! An idle connection holds no buffer: its receive names a group, and the kernel takes a buffer of it when bytes arrive. Who reads gets the buffer as a
//! [`Buf`], and dropping the `Buf` gives it back. What is free waits on a stack, the most recently used on top, and only a small part of it lies in
//! the kernel's queue, so that a lightly loaded shard touches few pages however many buffers it could use. The memory is reserved when the ring is
//! made and costs nothing until it is touched.
//!
//! When a group is empty the kernel refuses the receive; the ring then parks the operation and submits it again when a buffer comes back. Nothing is lost.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{fmt, io};

use io_uring::{Submitter, types};

/// Which size a receive asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For heads and small content: [`SMALL_BYTES`].
    Small,
    /// For content known to be long, and for datagrams: [`LARGE_BYTES`].
    Large,
}

/// An odd number of cache lines, so that the first lines of neighbouring buffers do not compete for one set of the cache.
pub const SMALL_BYTES: usize = 127 * 64;
/// Holds what one receive of a loopback or offloading NIC can bring, and the largest UDP datagram (65,527 bytes over IPv6) behind the 108 bytes
/// that describe it.
pub const LARGE_BYTES: usize = 1027 * 64;

/// How many buffers of each size a ring may use.
#[derive(Clone, Copy, Debug)]
pub struct BufferCounts {
    pub small: u16,
    pub large: u16,
}

/// Entries of a group's queue in the kernel: as many receives can complete in one turn before some are parked until the next. A power of two.
const SMALL_QUEUE: u16 = 256;
pub(super) const LARGE_QUEUE: u16 = 32;

/// Both groups of a ring. Each [`Buf`] shares them, and so keeps the memory even when it outlives the ring.
pub(super) struct Buffers {
    small: Group,
    large: Group,
}

/// In a cell of its own, so that a buffer can be dropped anywhere: also where the ring is at work on its operations.
pub(super) type SharedBuffers = Rc<RefCell<Buffers>>;

impl Buffers {
    pub fn new(counts: BufferCounts, submitter: &Submitter<'_>) -> io::Result<Self> {
        Ok(Self {
            small: Group::new(Size::Small, counts.small, SMALL_QUEUE, submitter)?,
            large: Group::new(Size::Large, counts.large, LARGE_QUEUE, submitter)?,
        })
    }

    /// The buffer that the kernel took out of its queue and wrote `len` bytes to.
    pub fn take(shared: &SharedBuffers, size: Size, id: u16, len: u32) -> Buf {
        assert!(len as usize <= size.bytes(), "the kernel fills no more than the buffer's length");
        let mut buffers = shared.borrow_mut();
        let group = buffers.group_mut(size);
        group.queued -= 1;
        Buf { buffers: shared.clone(), memory: group.memory(id), start: 0, end: len, id, size }
    }

    /// Offers free buffers to the kernel, among them those of every [`Buf`] dropped since the last time.
    pub fn refill(&mut self) {
        self.small.refill();
        self.large.refill();
    }

    /// How many receives of this size the kernel has buffers for.
    pub fn queued(&self, size: Size) -> u16 {
        match size {
            Size::Small => self.small.queued,
            Size::Large => self.large.queued,
        }
    }

    /// Buffers that are out: each is a [`Buf`] somewhere, or on its way to become one.
    pub fn outstanding(&self) -> usize {
        self.small.outstanding() + self.large.outstanding()
    }

    fn group_mut(&mut self, size: Size) -> &mut Group {
        match size {
            Size::Small => &mut self.small,
            Size::Large => &mut self.large,
        }
    }
}

impl Size {
    pub(super) const ALL: [Self; 2] = [Self::Small, Self::Large];

    /// The id of the group in the kernel.
    pub(super) fn group(self) -> u16 {
        self as u16
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::Small => SMALL_BYTES,
            Self::Large => LARGE_BYTES,
        }
    }
}

struct Group {
    size: Size,
    count: u16,
    memory: Mapping,
    /// The queue shared with the kernel: `mask + 1` entries.
    queue: Mapping,
    mask: u16,
    tail: u16,
    /// Entries of the queue that the kernel has not taken.
    queued: u16,
    free: Vec<u16>,
}

impl Group {
    fn new(size: Size, count: u16, queue_entries: u16, submitter: &Submitter<'_>) -> io::Result<Self> {
        let entries = count.clamp(1, queue_entries).next_power_of_two();
        let queue = Mapping::new(usize::from(entries) * size_of::<types::BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * size.bytes())?;
        // SAFETY: the queue is page-aligned, zeroed and large enough for `entries`. It outlives every operation that takes from it: `Ring` waits for
        // those before it drops its buffers, and leaks the buffers if it waits in vain.
        unsafe { submitter.register_buf_ring_with_flags(queue.0.as_ptr() as u64, entries, size.group(), 0)? };
        Ok(Self { size, count, memory, queue, mask: entries - 1, tail: 0, queued: 0, free: (0..count).rev().collect() })
    }

    fn memory(&self, id: u16) -> NonNull<u8> {
        debug_assert!(id < self.count);
        // SAFETY: `id < count`, so the offset lies within the mapping of `count` buffers.
        unsafe { self.memory.0.cast::<u8>().add(usize::from(id) * self.size.bytes()) }
    }

    fn refill(&mut self) {
        if self.queued > self.mask || self.free.is_empty() {
            return;
        }
        let base = self.queue.0.cast::<types::BufRingEntry>();
        while self.queued <= self.mask
            && let Some(id) = self.free.pop()
        {
            let address = self.memory(id).as_ptr() as u64;
            // SAFETY: the index is masked into the queue's entries; the kernel reads an entry only after the tail below has passed it, and this one is not
            // queued (`queued <= mask`). Fields are set one by one because the first entry's spare field is the tail.
            let entry = unsafe { base.add(usize::from(self.tail & self.mask)).as_mut() };
            entry.set_addr(address);
            entry.set_len(self.size.bytes() as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            self.queued += 1;
        }
        // SAFETY: `base` is the first entry of the registered queue, aligned and live; the kernel reads the tail with acquire ordering.
        let tail = unsafe { AtomicU16::from_ptr(types::BufRingEntry::tail(base.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn outstanding(&self) -> usize {
        usize::from(self.count) - usize::from(self.queued) - self.free.len()
    }
}

/// Anonymous private memory, unmapped on drop.
struct Mapping(NonNull<libc::c_void>, usize);

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(1);
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(NonNull::new(address).expect("a mapping without MAP_FIXED is never at zero"), bytes))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone; nothing borrows from it once its owner is dropped.
        unsafe { libc::munmap(self.0.as_ptr(), self.1) };
    }
}

/// Received bytes, in a buffer that goes back to its ring when this is dropped.
///
/// It dereferences to the window of bytes that are still of interest; [`advance`](Self::advance) and [`keep`](Self::keep) narrow it.
pub struct Buf {
    buffers: SharedBuffers,
    memory: NonNull<u8>,
    start: u32,
    end: u32,
    id: u16,
    size: Size,
}

impl Buf {
    /// Drops the first `count` bytes from the window.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len());
        self.start += count as u32;
    }

    /// Narrows the window to `range` of itself.
    pub fn keep(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len());
        self.end = self.start + range.end as u32;
        self.start += range.start as u32;
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start..end` lies within the buffer's initialized part (the kernel wrote up to `end` at most, over zeroed pages); this `Buf` is the
        // buffer's only owner until drop, and `buffers` keeps the memory mapped.
        unsafe {
            std::slice::from_raw_parts(self.memory.as_ptr().add(self.start as usize), (self.end - self.start) as usize)
        }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` makes the access exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.memory.as_ptr().add(self.start as usize),
                (self.end - self.start) as usize,
            )
        }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf").field("size", &self.size).field("id", &self.id).field("len", &self.len()).finish()
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.buffers.borrow_mut().group_mut(self.size).free.push(self.id);
    }
}
