//! Full buffers from the shards to one thread that may block, and empty ones back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

/// The shards' side.
#[derive(Clone)]
pub struct Lane(Arc<Queues>);

/// The writing thread's side.
pub struct LaneEnd(Arc<Queues>);

struct Queues {
    full: ArrayQueue<Vec<u8>>,
    empty: ArrayQueue<Vec<u8>>,
    closed: AtomicBool,
    /// The thread that takes what is full.
    taker: std::sync::OnceLock<Thread>,
}

/// A lane for at most `capacity` full buffers on their way.
pub fn lane(capacity: usize) -> (Lane, LaneEnd) {
    let queues = Arc::new(Queues {
        full: ArrayQueue::new(capacity),
        empty: ArrayQueue::new(capacity),
        closed: AtomicBool::new(false),
        taker: std::sync::OnceLock::new(),
    });
    (Lane(queues.clone()), LaneEnd(queues))
}

impl Lane {
    /// Hands a full buffer over and returns an empty one. When the other side is behind, the buffer comes back as an error: its owner drops what is in it.
    ///
    /// # Errors
    /// The buffer, when the lane is full.
    pub fn exchange(&self, full: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
        self.0.full.push(full)?;
        if let Some(taker) = self.0.taker.get() {
            taker.unpark();
        }
        Ok(self.0.empty.pop().unwrap_or_default())
    }

    /// Nothing more will come: the taker ends once it has taken everything.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        if let Some(taker) = self.0.taker.get() {
            taker.unpark();
        }
    }
}

impl LaneEnd {
    /// Passes each full buffer to `write`, on the calling thread, until the lane is closed and empty.
    pub fn drain(self, mut write: impl FnMut(&[u8])) {
        let known = self.0.taker.set(std::thread::current());
        assert!(known.is_ok(), "a lane has one end");
        loop {
            let closed = self.0.closed.load(Ordering::Acquire);
            while let Some(mut full) = self.0.full.pop() {
                write(&full);
                full.clear();
                // Full only when shards take none back: then the allocation may go.
                let _ = self.0.empty.push(full);
            }
            if closed {
                return;
            }
            // The time-out covers what was pushed before this thread made itself known.
            std::thread::park_timeout(IDLE_LOOK);
        }
    }
}

/// How long the taker sleeps when nobody wakes it.
const IDLE_LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_accepted_is_written_in_order_before_the_taker_ends() {
        let (lane, end) = lane(4);
        let taker = std::thread::spawn(move || {
            let mut written = Vec::new();
            end.drain(|bytes| written.extend_from_slice(bytes));
            written
        });
        let mut expected = Vec::new();
        for byte in 0..200u8 {
            let mut full = vec![byte];
            while let Err(refused) = lane.exchange(full) {
                full = refused;
                std::thread::yield_now();
            }
            expected.push(byte);
        }
        lane.close();
        assert_eq!(taker.join().expect("the taker ends"), expected);
    }

    #[test]
    fn a_full_lane_gives_the_buffer_back() {
        let (lane, _end) = lane(1);
        assert!(lane.exchange(vec![1]).is_ok());
        assert_eq!(lane.exchange(vec![2]), Err(vec![2]));
    }
}
