//! Receive buffers that the kernel picks only when data is there: two groups of provided buffers per ring.
//!
//! An idle connection holds no buffer: its receive names a group, and the kernel takes a buffer of it when bytes arrive. Who reads gets the buffer as a
//! [`Buf`], and dropping the `Buf` gives it back. What is free waits on a stack, the most recently used on top, and only a small part of it lies in
//! the kernel's queue, so that a lightly loaded shard touches few pages however many buffers it could use. The memory is reserved when the ring is
//! made and costs nothing until it is touched.
//!
//! When a group is empty the kernel refuses the receive; the ring then parks the operation and submits it again when a buffer comes back. Nothing is lost.

use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{fmt, io};

use io_uring::{Submitter, types};

use super::Ring;

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
const LARGE_QUEUE: u16 = 32;

/// A buffer that the kernel filled, named without owning it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub size: Size,
    pub id: u16,
    pub len: u32,
}

pub(super) struct Buffers {
    small: Group,
    large: Group,
}

impl Buffers {
    pub fn new(counts: BufferCounts, submitter: &Submitter<'_>) -> io::Result<Self> {
        Ok(Self {
            small: Group::new(Size::Small, counts.small, SMALL_QUEUE, submitter)?,
            large: Group::new(Size::Large, counts.large, LARGE_QUEUE, submitter)?,
        })
    }

    /// Notes that the kernel took a buffer out of its queue.
    pub fn taken(&mut self, size: Size) {
        self.group_mut(size).queued -= 1;
    }

    /// Takes a buffer back. It reaches the kernel with the next [`refill`](Self::refill).
    pub fn release(&mut self, size: Size, id: u16) {
        self.group_mut(size).free.push(id);
    }

    /// Offers free buffers to the kernel.
    pub fn refill(&mut self) {
        self.small.refill();
        self.large.refill();
    }

    /// Whether a receive of this size would find a buffer after a refill.
    pub fn available(&self, size: Size) -> bool {
        let group = self.group(size);
        group.queued > 0 || !group.free.is_empty()
    }

    /// Buffers that are out: held by a [`Buf`] or by an operation.
    pub fn outstanding(&self) -> usize {
        self.small.outstanding() + self.large.outstanding()
    }

    pub fn memory(&self, size: Size, id: u16) -> NonNull<u8> {
        self.group(size).memory(id)
    }

    /// Never gives the memory back: the kernel may still write to it.
    pub fn leak(&mut self) {
        for group in [&mut self.small, &mut self.large] {
            group.memory.leak();
            group.queue.leak();
        }
    }

    fn group(&self, size: Size) -> &Group {
        match size {
            Size::Small => &self.small,
            Size::Large => &self.large,
        }
    }

    fn group_mut(&mut self, size: Size) -> &mut Group {
        match size {
            Size::Small => &mut self.small,
            Size::Large => &mut self.large,
        }
    }
}

impl Size {
    /// The id of the group in the kernel.
    pub(super) fn group(self) -> u16 {
        match self {
            Self::Small => 0,
            Self::Large => 1,
        }
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
        // SAFETY: the queue is page-aligned, zeroed, large enough for `entries`, and outlives the ring: `Core` drops its ring before its buffers.
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

    fn leak(&mut self) {
        self.1 = 0;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.1 > 0 {
            // SAFETY: the mapping is ours alone; nothing borrows from it once its owner is dropped.
            unsafe { libc::munmap(self.0.as_ptr(), self.1) };
        }
    }
}

/// Received bytes, in a buffer that goes back to its ring when this is dropped.
///
/// It dereferences to the window of bytes that are still of interest; [`advance`](Self::advance) and [`keep`](Self::keep) narrow it.
pub struct Buf {
    ring: Rc<Ring>,
    memory: NonNull<u8>,
    start: u32,
    end: u32,
    id: u16,
    size: Size,
}

impl Buf {
    pub(super) fn new(ring: Rc<Ring>, memory: NonNull<u8>, filled: Filled) -> Self {
        assert!(filled.len as usize <= filled.size.bytes(), "the kernel fills no more than the buffer's length");
        Self { ring, memory, start: 0, end: filled.len, id: filled.id, size: filled.size }
    }

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
        // buffer's only owner until drop, and `ring` keeps the memory mapped.
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
        self.ring.release(self.size, self.id);
    }
}
