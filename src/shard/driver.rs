//! The one place where a core sleeps.
//!
//! The executor has no hook that says "nothing is runnable": so the driver, a task itself, goes to the end of the run queue again and again until a
//! whole pass has polled nobody. Only then does it turn the ring, which submits everything that those tasks queued and waits, in one system call.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::task;
use crate::ring::{Ring, Wait};

/// Passes over the run queue between two turns. A task that always yields at once cannot keep the ring from its turn.
const MAX_PASSES: u32 = 32;

/// Drives `ring` until `after_turn` says that the shard is over. It is called after each turn, before the woken tasks run.
///
/// # Errors
/// What the ring's turn says: nothing from which a shard could recover.
pub async fn drive(ring: &Rc<Ring>, busy_poll: Duration, mut after_turn: impl FnMut() -> bool) -> io::Result<()> {
    loop {
        for _ in 0..MAX_PASSES {
            let before = task::polls();
            Pass::default().await;
            if task::polls() == before {
                break;
            }
        }
        if busy_poll.is_zero() || !poll_busily(ring, busy_poll)? {
            ring.turn(Wait::UntilEvent)?;
        }
        if after_turn() {
            return Ok(());
        }
    }
}

/// Turns without sleeping until something completes, for at most `limit`. Returns whether something did.
fn poll_busily(ring: &Ring, limit: Duration) -> io::Result<bool> {
    let end = ring.now() + limit;
    loop {
        if ring.turn(Wait::No)? > 0 {
            return Ok(true);
        }
        if ring.now() >= end {
            return Ok(false);
        }
    }
}

/// Lets every other runnable task run once.
#[derive(Default)]
struct Pass {
    yielded: bool,
}

impl Future for Pass {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
