//! The one place where a core sleeps.
//!
//! The executor has no hook that says "nothing is runnable": so the driver, a task itself, goes to the end of the run queue again and again until a
//! whole pass has polled nobody. Only then does it turn the ring, which submits everything that those tasks queued and waits, in one system call.
//! Tasks that do not come to rest see the ring turn now and then, without a wait.

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
        if !run_tasks().await {
            ring.turn(Wait::No)?;
        } else if busy_poll.is_zero() || !poll_busily(ring, busy_poll)? {
            ring.turn(Wait::UntilEvent)?;
        }
        if after_turn() {
            return Ok(());
        }
    }
}

/// Passes over the run queue until a pass has polled nobody. Returns whether one did: if not, tasks are still runnable, and a turn must not sleep.
async fn run_tasks() -> bool {
    for _ in 0..MAX_PASSES {
        let before = task::polls();
        Pass::default().await;
        if task::polls() == before {
            return true;
        }
    }
    false
}

/// Turns without sleeping until something completes or a timer goes off, for at most `limit`. Returns whether something did.
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Instant;

    use super::*;
    use crate::ring::{BufferCounts, RingConfig, Timer};

    const MS: Duration = Duration::from_millis(1);
    /// After this a shard that sleeps for good is woken, so that its test fails instead of hanging.
    const WATCHDOG: Duration = Duration::from_secs(20);

    fn on_a_shard<T: 'static>(main: impl Future<Output = T> + 'static) -> T {
        glommio::LocalExecutor::default().run(main)
    }

    fn ring(clock: fn() -> Instant) -> Rc<Ring> {
        Ring::new(RingConfig { buffers: BufferCounts { small: 1, large: 1 }, clock }).expect("a ring")
    }

    /// A millisecond passes with each look: time is counted in turns.
    fn counted_now() -> Instant {
        thread_local!(static NOW: Cell<Option<Instant>> = const { Cell::new(None) });
        let now = NOW.get().map_or_else(Instant::now, |before| before + MS);
        NOW.set(Some(now));
        now
    }

    /// Notes when it was done, by the ring's clock.
    fn note<F: Future<Output = ()> + 'static>(ring: &Rc<Ring>, future: F) -> Rc<Cell<Option<Instant>>> {
        let (noted, ring) = (Rc::new(Cell::new(None)), ring.clone());
        let done = noted.clone();
        task::spawn(async move {
            future.await;
            done.set(Some(ring.now()));
            // Only a turn makes the driver look whether it is over.
            ring.doorbell().knock();
        });
        noted
    }

    fn sleep(ring: &Rc<Ring>, time: Duration) -> Rc<Cell<Option<Instant>>> {
        let (mut timer, end) = (Timer::new(ring), ring.now() + time);
        note(ring, async move { timer.sleep_until(end).await })
    }

    async fn yield_times(times: u32) {
        for _ in 0..times {
            Pass::default().await;
        }
    }

    #[test]
    fn a_timer_that_goes_off_while_polling_busily_is_acted_on_at_once() {
        on_a_shard(async {
            let ring = ring(counted_now);
            let begun = ring.now();
            let slept = sleep(&ring, 10 * MS);
            let watched = sleep(&ring, WATCHDOG);
            drive(&ring, 100 * MS, || slept.get().or(watched.get()).is_some()).await.expect("turns");
            let slept = slept.get().expect("before the watchdog") - begun;
            assert!((10 * MS..50 * MS).contains(&slept), "acted on after {slept:?}");
        });
    }

    #[test]
    fn a_shard_that_has_polled_in_vain_sleeps_and_is_woken() {
        on_a_shard(async {
            let ring = ring(Instant::now);
            let (slept, watched) = (sleep(&ring, 30 * MS), sleep(&ring, WATCHDOG));
            let mut turns = 0u32;
            drive(&ring, MS, || {
                turns += 1;
                slept.get().or(watched.get()).is_some()
            })
            .await
            .expect("turns");
            assert!(slept.get().is_some() && watched.get().is_none());
            assert!(turns < 30, "{turns} turns that brought nothing");
        });
    }

    #[test]
    fn a_task_that_never_rests_does_not_keep_timers_from_going_off() {
        on_a_shard(async {
            let ring = ring(Instant::now);
            let slept = sleep(&ring, 5 * MS);
            let until = slept.clone();
            let restless = note(&ring, async move {
                while until.get().is_none() {
                    Pass::default().await;
                }
            });
            drive(&ring, Duration::ZERO, || restless.get().is_some()).await.expect("turns");
        });
    }

    #[test]
    fn a_task_that_yields_more_often_than_there_are_passes_goes_on() {
        for busy_poll in [Duration::ZERO, MS] {
            on_a_shard(async move {
                let ring = ring(Instant::now);
                let yielded = note(&ring, yield_times(10 * MAX_PASSES));
                let watched = sleep(&ring, WATCHDOG);
                drive(&ring, busy_poll, || yielded.get().or(watched.get()).is_some()).await.expect("turns");
                assert!(watched.get().is_none(), "slept while a task could run");
            });
        }
    }
}
