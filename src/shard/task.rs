//! Tasks of a shard: every poll is counted, and a panic costs one task.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    /// How often any task of this thread's shard was polled.
    static POLLS: Cell<u64> = const { Cell::new(0) };
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Runs `future` to its end on this shard. If it panics it is dropped, with a line in the log; the shard goes on.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(Guarded { future: Some(future) }).detach();
}

/// How often tasks were polled so far: while it grows, something was runnable.
pub fn polls() -> u64 {
    POLLS.get()
}

/// How many tasks of this shard have panicked.
pub fn panics() -> u64 {
    PANICS.get()
}

pin_project_lite::pin_project! {
    struct Guarded<F> {
        #[pin]
        future: Option<F>,
    }
}

impl<F: Future<Output = ()>> Future for Guarded<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        POLLS.set(POLLS.get() + 1);
        let mut future = self.project().future;
        let Some(running) = future.as_mut().as_pin_mut() else {
            return Poll::Ready(());
        };
        // Unwind safety: the future is never polled again after a panic, and what it shares lies in cells that are only borrowed within calls that do not
        // unwind half-way through an update.
        match catch_unwind(AssertUnwindSafe(|| running.poll(cx))) {
            Ok(polled) => polled,
            Err(_) => {
                PANICS.set(PANICS.get() + 1);
                // The panic hook has said where and why.
                let dropped = catch_unwind(AssertUnwindSafe(|| future.set(None)));
                if dropped.is_err() {
                    tracing::error!("dropping a task that had panicked panicked again");
                }
                Poll::Ready(())
            }
        }
    }
}
