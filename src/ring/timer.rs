//! The shard's timers: a hierarchical wheel whose next deadline bounds every wait of the ring.
//!
//! A proxy sets far more deadlines than ever pass: each request moves several, nearly all later than the one before. So a [`Wheel`] entry keeps
//! two times: the *target* that its owner wants, and the tick it is *linked* at. Moving a target later is one store; the entry is found too early
//! when its old tick comes, and linked anew at its target. Only a target earlier than the link moves the entry at once.
//!
//! Ticks are milliseconds. Six levels of 64 slots reach 2.1 years; a target beyond that is linked at the far end and found too early, like any other.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::Ring;

const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const LEVELS: usize = 6;
/// The farthest link: all slots of the top level but the one that `now` lies in.
const REACH: u64 = (SLOTS as u64 - 1) << (LEVEL_BITS * (LEVELS as u32 - 1));

const NOWHERE: u32 = u32::MAX;

struct Entry {
    /// When the owner wants to be woken, if it does.
    target: Option<Instant>,
    /// What the target was when the entry was linked, if it is linked; never later than `target` while both are set.
    linked: Option<Instant>,
    previous: u32,
    next: u32,
    /// Where the list that holds the entry begins: `level * SLOTS + slot`.
    home: u16,
    waker: Option<Waker>,
}

/// Timers by the tick they are due, with their owners' wakers.
pub struct Wheel {
    epoch: Instant,
    /// All ticks up to and including this one have been handed out.
    now: u64,
    entries: Slab<Entry>,
    heads: Box<[u32; SLOTS * LEVELS]>,
    /// A bit per slot that is not empty.
    occupied: [u64; LEVELS],
    /// What [`next`](Self::next) says; looked up again only when links have changed.
    next: Cell<Option<Option<Instant>>>,
}

impl Wheel {
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            now: 0,
            entries: Slab::new(),
            heads: Box::new([NOWHERE; SLOTS * LEVELS]),
            occupied: [0; LEVELS],
            next: Cell::new(None),
        }
    }

    /// A timer with no target.
    pub fn insert(&mut self) -> usize {
        self.entries.insert(Entry {
            target: None,
            linked: None,
            previous: NOWHERE,
            next: NOWHERE,
            home: 0,
            waker: None,
        })
    }

    /// Forgets the timer; its waker is handed back so that the caller can drop it where that is safe.
    #[must_use]
    pub fn remove(&mut self, key: usize) -> Option<Waker> {
        self.unlink(key);
        self.entries.remove(key).waker
    }

    /// The number of timers that exist, with a target or without.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Wakes `waker` once `at` has come. Returns the waker that this one replaces.
    #[must_use]
    pub fn set(&mut self, key: usize, at: Instant, waker: &Waker) -> Option<Waker> {
        let entry = &mut self.entries[key];
        entry.target = Some(at);
        let replaced = match &entry.waker {
            Some(known) if known.will_wake(waker) => None,
            _ => entry.waker.replace(waker.clone()),
        };
        if entry.linked.is_none_or(|linked| at < linked) {
            self.unlink(key);
            self.link(key, at);
        }
        replaced
    }

    /// The owner no longer waits. Its link stays where it is and is dropped when found, or used again by a later target.
    pub fn clear(&mut self, key: usize) {
        self.entries[key].target = None;
    }

    /// Hands out the wakers of all timers due at `now`.
    pub fn advance(&mut self, now: Instant, woken: &mut impl Extend<Waker>) {
        if self.next().is_none_or(|next| now < next) {
            return;
        }
        let tick_now = self.tick_at(now);
        while let Some((tick, level, slot)) = self.next_slot()
            && tick <= tick_now
        {
            self.now = self.now.max(tick);
            self.empty_slot(level, slot, now, woken);
        }
        self.now = self.now.max(tick_now);
    }

    /// When [`advance`](Self::advance) must be called next; never later than the earliest target.
    pub fn next(&self) -> Option<Instant> {
        if let Some(known) = self.next.get() {
            return known;
        }
        let next = self.next_slot().map(|(tick, ..)| self.epoch + Duration::from_millis(tick));
        self.next.set(Some(next));
        next
    }

    fn empty_slot(&mut self, level: usize, slot: usize, now: Instant, woken: &mut impl Extend<Waker>) {
        let home = level * SLOTS + slot;
        let mut key = std::mem::replace(&mut self.heads[home], NOWHERE);
        self.occupied[level] &= !(1 << slot);
        self.next.set(None);
        while key != NOWHERE {
            let entry = &mut self.entries[key as usize];
            let next = entry.next;
            (entry.linked, entry.previous, entry.next) = (None, NOWHERE, NOWHERE);
            match entry.target {
                Some(target) if target <= now => {
                    entry.target = None;
                    woken.extend(entry.waker.take());
                }
                Some(target) => self.link(key as usize, target),
                None => {}
            }
            key = next;
        }
    }

    /// The first slot that has entries: the tick at which it must be emptied, its level and its place.
    fn next_slot(&self) -> Option<(u64, usize, usize)> {
        let mut first: Option<(u64, usize, usize)> = None;
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = LEVEL_BITS * level as u32;
            let here = self.now >> shift;
            let ahead = self.occupied[level].rotate_right((here % SLOTS as u64) as u32).trailing_zeros();
            let slot_number = here + u64::from(ahead);
            let tick = (slot_number << shift).max(self.now);
            if first.is_none_or(|(earliest, ..)| tick < earliest) {
                first = Some((tick, level, (slot_number % SLOTS as u64) as usize));
            }
        }
        first
    }

    fn link(&mut self, key: usize, target: Instant) {
        let tick = self.tick_at_or_after(target).max(self.now + 1).min(self.now + REACH);
        // The level whose slots tell `tick` from `now`: the highest bit in which they differ.
        let differing = 63 - (tick ^ self.now).leading_zeros();
        let level = ((differing / LEVEL_BITS) as usize).min(LEVELS - 1);
        let slot = ((tick >> (LEVEL_BITS * level as u32)) % SLOTS as u64) as usize;
        let home = level * SLOTS + slot;
        let head = self.heads[home];
        if head != NOWHERE {
            self.entries[head as usize].previous = key as u32;
        }
        let entry = &mut self.entries[key];
        (entry.linked, entry.previous, entry.next, entry.home) = (Some(target), NOWHERE, head, home as u16);
        self.heads[home] = key as u32;
        self.occupied[level] |= 1 << slot;
        self.next.set(None);
    }

    fn unlink(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        if entry.linked.is_none() {
            return;
        }
        let (previous, next, home) = (entry.previous, entry.next, usize::from(entry.home));
        (entry.linked, entry.previous, entry.next) = (None, NOWHERE, NOWHERE);
        if next != NOWHERE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NOWHERE {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[home] = next;
            if next == NOWHERE {
                self.occupied[home / SLOTS] &= !(1 << (home % SLOTS));
                self.next.set(None);
            }
        }
    }

    fn tick_at(&self, at: Instant) -> u64 {
        ticks(at.saturating_duration_since(self.epoch), Duration::subsec_millis)
    }

    fn tick_at_or_after(&self, at: Instant) -> u64 {
        ticks(at.saturating_duration_since(self.epoch), |since| since.subsec_nanos().div_ceil(1_000_000))
    }
}

/// Whole seconds as ticks and the rest as `subsec` counts it.
fn ticks(since: Duration, subsec: impl Fn(&Duration) -> u32) -> u64 {
    since.as_secs().saturating_mul(1000).saturating_add(u64::from(subsec(&since)))
}

/// One deadline at a time for one task, kept for the task's life so that setting it allocates nothing.
pub struct Timer {
    ring: Rc<Ring>,
    key: usize,
}

/// The deadline of [`Timer::within`] came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has passed")]
pub struct Expired;

impl Timer {
    pub fn new(ring: &Rc<Ring>) -> Self {
        Self { ring: ring.clone(), key: ring.wheel().borrow_mut().insert() }
    }

    /// `future`'s output, unless `deadline` comes first. Precise to about a millisecond, and never early.
    pub fn within<F: Future + Unpin>(&mut self, deadline: Instant, future: F) -> Within<'_, F> {
        Within { timer: self, deadline, future }
    }

    /// Waits until `deadline`.
    pub async fn sleep_until(&mut self, deadline: Instant) {
        let _ = self.within(deadline, std::future::pending::<()>()).await;
    }

    /// Ready once `deadline` has come; until then the task of `cx` is woken when it does.
    pub fn poll_expired(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<Expired> {
        if self.ring.now() >= deadline {
            return Poll::Ready(Expired);
        }
        let replaced = self.ring.wheel().borrow_mut().set(self.key, deadline, cx.waker());
        drop(replaced);
        Poll::Pending
    }

    /// No longer waits for anything.
    pub fn clear(&mut self) {
        self.ring.wheel().borrow_mut().clear(self.key);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let waker = self.ring.wheel().borrow_mut().remove(self.key);
        drop(waker);
    }
}

/// See [`Timer::within`].
pub struct Within<'t, F> {
    timer: &'t mut Timer,
    deadline: Instant,
    future: F,
}

impl<F: Future + Unpin> Future for Within<'_, F> {
    type Output = Result<F::Output, Expired>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(output) = Pin::new(&mut this.future).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        this.timer.poll_expired(this.deadline, cx).map(Err)
    }
}

impl<F> Drop for Within<'_, F> {
    fn drop(&mut self) {
        self.timer.clear();
    }
}

/// The wheel of a [`Ring`], in a cell of its own so that timers and operations never wait for one another's borrow.
pub(super) type SharedWheel = RefCell<Wheel>;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Bench {
        wheel: Wheel,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Self { wheel: Wheel::new(start), start }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn timer(&mut self, ms: u64) -> (usize, Arc<Count>) {
            let count = Arc::new(Count::default());
            let key = self.wheel.insert();
            let at = self.at(ms);
            assert!(self.wheel.set(key, at, &count.clone().into()).is_none());
            (key, count)
        }

        /// Advances as a driver does: to each next deadline in turn, up to `ms`.
        fn run_until(&mut self, ms: u64) {
            let end = self.at(ms);
            let mut woken = Vec::new();
            while let Some(next) = self.wheel.next()
                && next <= end
            {
                self.wheel.advance(next, &mut woken);
            }
            self.wheel.advance(end, &mut woken);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    fn fired(count: &Arc<Count>) -> u32 {
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_timer_fires_at_its_time_and_never_before_across_all_levels() {
        for ms in [1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 262_143, 262_144, 16_777_216, 1_073_741_825] {
            let mut bench = Bench::new();
            let (_, count) = bench.timer(ms);
            bench.run_until(ms - 1);
            assert_eq!(fired(&count), 0, "{ms} fired early");
            bench.run_until(ms);
            assert_eq!(fired(&count), 1, "{ms} did not fire");
            bench.run_until(ms * 2 + 100);
            assert_eq!(fired(&count), 1, "{ms} fired twice");
        }
    }

    #[test]
    fn a_timer_moved_later_fires_once_at_the_later_time() {
        let mut bench = Bench::new();
        let (key, count) = bench.timer(10);
        for ms in [20, 500, 70_000] {
            let at = bench.at(ms);
            let waker = count.clone().into();
            let _ = bench.wheel.set(key, at, &waker);
        }
        bench.run_until(69_999);
        assert_eq!(fired(&count), 0);
        bench.run_until(70_000);
        assert_eq!(fired(&count), 1);
    }

    #[test]
    fn a_timer_moved_earlier_fires_at_the_earlier_time() {
        let mut bench = Bench::new();
        let (key, count) = bench.timer(70_000);
        let at = bench.at(3);
        let _ = bench.wheel.set(key, at, &count.clone().into());
        bench.run_until(3);
        assert_eq!(fired(&count), 1);
    }

    #[test]
    fn a_cleared_timer_is_silent_and_its_link_is_used_again() {
        let mut bench = Bench::new();
        let (key, count) = bench.timer(10);
        bench.wheel.clear(key);
        let at = bench.at(40);
        let _ = bench.wheel.set(key, at, &count.clone().into());
        bench.wheel.clear(key);
        bench.run_until(1000);
        assert_eq!(fired(&count), 0);
        assert_eq!(bench.wheel.next(), None);
    }

    #[test]
    fn a_removed_timer_leaves_its_neighbours_linked() {
        let mut bench = Bench::new();
        let timers: Vec<_> = (0..5).map(|_| bench.timer(7)).collect();
        for index in [2, 0, 4] {
            drop(bench.wheel.remove(timers[index].0));
        }
        bench.run_until(7);
        let counts: Vec<_> = timers.iter().map(|(_, count)| fired(count)).collect();
        assert_eq!(counts, [0, 1, 0, 1, 0]);
    }

    #[test]
    fn a_driver_that_wakes_late_still_fires_everything_due() {
        let mut bench = Bench::new();
        let timers: Vec<_> = (1..2000).step_by(7).map(|ms| (ms, bench.timer(ms).1)).collect();
        let mut woken = Vec::new();
        bench.wheel.advance(bench.at(1000), &mut woken);
        woken.into_iter().for_each(Waker::wake);
        for (ms, count) in timers {
            assert_eq!(fired(&count), u32::from(ms <= 1000), "{ms}");
        }
    }

    /// Random moves against a plain list of targets.
    #[test]
    fn agrees_with_a_sorted_list_under_random_moves() {
        for seed in 1..200u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut next = move |bound: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % bound
            };
            let mut bench = Bench::new();
            let timers: Vec<_> = (0..8).map(|_| (bench.wheel.insert(), Arc::new(Count::default()))).collect();
            let mut model: Vec<(Option<u64>, u32)> = vec![(None, 0); timers.len()];
            let mut now = 0;
            for step in 0..200 {
                let index = next(8) as usize;
                if next(4) == 0 {
                    bench.wheel.clear(timers[index].0);
                    model[index].0 = None;
                } else {
                    let reach = 1 << next(20);
                    let target = now + 1 + next(reach);
                    let at = bench.at(target);
                    let _ = bench.wheel.set(timers[index].0, at, &timers[index].1.clone().into());
                    model[index].0 = Some(target);
                }
                let reach = 1 << next(14);
                now += next(reach);
                bench.run_until(now);
                for (target, fired) in &mut model {
                    if target.is_some_and(|target| target <= now) {
                        (*target, *fired) = (None, *fired + 1);
                    }
                }
                for (index, (_, count)) in timers.iter().enumerate() {
                    assert_eq!(fired(count), model[index].1, "seed {seed}, step {step}, timer {index}");
                }
            }
        }
    }
}
