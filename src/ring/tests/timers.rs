use std::io::Write;

use super::*;

thread_local!(static CLOCK: Cell<Option<Instant>> = const { Cell::new(None) });

fn virtual_now() -> Instant {
    CLOCK.get().unwrap_or_else(|| {
        let start = Instant::now();
        CLOCK.set(Some(start));
        start
    })
}

fn pass(time: Duration) {
    CLOCK.set(Some(virtual_now() + time));
}

fn in_virtual_time() -> Executor {
    Executor::on(Ring::new(RingConfig { buffers: COUNTS, clock: virtual_now }).expect("a ring"))
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_sleep_ends_at_its_deadline_and_not_before() {
    let executor = in_virtual_time();
    let woken = Rc::new(Cell::new(false));
    let (ring, flag) = (executor.ring.clone(), woken.clone());
    executor.spawn(async move {
        let mut timer = Timer::new(&ring);
        timer.sleep_until(ring.now() + 50 * MS).await;
        flag.set(true);
    });
    executor.settle();
    pass(49 * MS);
    executor.settle();
    assert!(!woken.get());
    pass(MS);
    executor.settle();
    assert!(woken.get());
    executor.assert_idle();
}

#[test]
fn a_sleep_in_real_time_ends_without_another_event() {
    let executor = Executor::new();
    let mut timer = Timer::new(&executor.ring);
    for ms in [0, 1, 2, 5, 20] {
        let end = Instant::now() + ms * MS;
        executor.run(timer.sleep_until(end));
        assert!(Instant::now() >= end, "{ms} ms ended early");
    }
}

#[test]
fn the_wait_of_a_turn_counts_from_when_it_begins() {
    let executor = in_virtual_time();
    let mut timer = Timer::new(&executor.ring);
    let deadline = executor.ring.now() + Duration::from_secs(3600);
    assert!(timer.poll_expired(deadline, &mut Context::from_waker(Waker::noop())).is_pending());
    // The tasks between two turns took until after the deadline: a wait for the rest of the hour would hang.
    pass(Duration::from_secs(3601));
    executor.ring.turn(Wait::UntilEvent).expect("a turn");
    assert!(timer.poll_expired(deadline, &mut Context::from_waker(Waker::noop())).is_ready());
}

#[test]
fn what_is_ready_wins_over_the_deadline() {
    let executor = in_virtual_time();
    let (stream, mut peer) = half_pair(&executor.ring);
    peer.write_all(b"x").expect("room");
    let mut timer = Timer::new(&executor.ring);
    let deadline = executor.ring.now();
    let receiving = stream.receive(Size::Small, Expect::Now);
    executor.settle();
    pass(MS);
    let received = executor.run(timer.within(deadline, receiving));
    assert_eq!(received.expect("ready").expect("bytes").as_deref(), Some(&b"x"[..]));
}

#[test]
fn the_deadline_wins_over_what_never_comes_and_the_timer_is_used_again() {
    let executor = Executor::new();
    let (stream, mut peer) = half_pair(&executor.ring);
    let mut timer = Timer::new(&executor.ring);
    executor.run(async {
        for _ in 0..3 {
            let receiving = stream.receive(Size::Small, Expect::Later);
            assert_eq!(timer.within(Instant::now() + 2 * MS, receiving).await.err(), Some(Expired));
        }
        let receiving = stream.receive(Size::Small, Expect::Later);
        peer.write_all(b"x").expect("room");
        let far = Instant::now() + PATIENCE;
        assert!(timer.within(far, receiving).await.expect("in time").expect("bytes").is_some());
    });
    drop((timer, stream));
    executor.assert_idle();
}

#[test]
fn a_cleared_or_dropped_timer_wakes_nobody() {
    let executor = in_virtual_time();
    let mut cleared = Timer::new(&executor.ring);
    let mut dropped = Timer::new(&executor.ring);
    let deadline = executor.ring.now() + MS;
    let waker = executor.waker(MAIN);
    for timer in [&mut cleared, &mut dropped] {
        assert!(timer.poll_expired(deadline, &mut Context::from_waker(&waker)).is_pending());
    }
    cleared.clear();
    drop(dropped);
    pass(2 * MS);
    executor.turn(Wait::No);
    assert_eq!(executor.ready.pop(), None);
    drop(cleared);
    executor.assert_idle();
}

#[test]
fn a_deadline_beyond_all_ticks_is_far_away() {
    let executor = in_virtual_time();
    let mut timer = Timer::new(&executor.ring);
    let mut seconds = 1u64 << 62;
    let end = loop {
        match executor.ring.now().checked_add(Duration::from_secs(seconds)) {
            Some(end) => break end,
            None => seconds /= 2,
        }
    };
    let waker = executor.waker(MAIN);
    assert!(timer.poll_expired(end, &mut Context::from_waker(&waker)).is_pending());
    for hours in [1, 24, 24 * 365] {
        pass(Duration::from_secs(3600 * hours));
        executor.turn(Wait::No);
        assert_eq!(executor.ready.pop(), None, "{hours}");
    }
}

#[test]
fn a_timer_goes_off_after_everything_in_flight_was_cancelled() {
    let executor = Executor::new();
    let mut timer = Timer::new(&executor.ring);
    let soon = Instant::now() + 200 * MS;
    let waker = executor.waker(MAIN);
    assert!(timer.poll_expired(soon, &mut Context::from_waker(&waker)).is_pending());
    // Puts the alarm into the kernel: the knock ends the wait at once.
    executor.ring.doorbell().knock();
    executor.turn(Wait::UntilEvent);
    executor.ring.answer_door();
    executor.settle();
    // Something to wait for, so that quiescing has something to cancel.
    let (stream, _peer) = half_pair(&executor.ring);
    let receiving = stream.receive(Size::Small, Expect::Later);
    assert!(executor.ring.quiesce(Duration::from_secs(60)));
    drop(receiving);
    executor.settle();
    executor.ring.answer_door();
    while executor.ready.pop().is_none() {
        executor.turn(Wait::UntilEvent);
        executor.ring.answer_door();
    }
}
