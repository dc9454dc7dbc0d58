//! The timer wheel with 100,000 timers: moving one later or earlier, and letting all of them come.
//!
//! Moving later is what a proxy does with nearly every deadline, and must cost a store. The deadlines spread over a minute, so they lie on several
//! levels of the wheel, and one that comes has been linked anew on its way down.
#![expect(clippy::disallowed_methods, reason = "benchmarks read the clock")]

use std::hint::black_box;
use std::task::Waker;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use postern::ring::Wheel;

const TIMERS: usize = 100_000;
/// Timers next to one another in memory have deadlines far apart: this is prime to `SPREAD_MS`.
const STRIDE: usize = 7919;
const SPREAD_MS: usize = 60_000;
const MS: Duration = Duration::from_millis(1);

/// A wheel full of timers with deadlines from `first` on, with their keys and deadlines.
fn filled(epoch: Instant, first: Duration) -> (Wheel, Vec<(usize, Instant)>) {
    let mut wheel = Wheel::new(epoch);
    let timers = (0..TIMERS).map(|index| {
        let key = wheel.insert();
        let at = epoch + first + MS * (index * STRIDE % SPREAD_MS) as u32;
        assert!(wheel.set(key, at, Waker::noop()).is_none());
        (key, at)
    });
    let timers = timers.collect();
    (wheel, timers)
}

fn moves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer");
    let epoch = Instant::now();
    for (name, later) in [("set_later", true), ("set_earlier", false)] {
        // A day ahead: no number of moves leads into the past.
        let (mut wheel, mut timers) = filled(epoch, Duration::from_secs(86_400));
        let mut index = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                index = (index + STRIDE) % TIMERS;
                let (key, at) = &mut timers[index];
                *at = if later { *at + MS } else { *at - MS };
                black_box(wheel.set(*key, *at, Waker::noop()));
            });
        });
    }
    group.finish();
}

fn advance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer");
    group.throughput(Throughput::Elements(TIMERS as u64)).sample_size(20);
    let epoch = Instant::now();
    let full = || (filled(epoch, MS).0, Vec::with_capacity(TIMERS));
    group.bench_function("advance", |bencher| {
        bencher.iter_batched_ref(
            full,
            |(wheel, woken)| {
                // As a driver does: from each next deadline to the one after it.
                while let Some(next) = wheel.next() {
                    wheel.advance(next, woken);
                }
                assert_eq!(woken.len(), TIMERS);
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, moves, advance);
criterion_main!(benches);
