use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::*;

/// Enough that every interleaving of knocking and answering comes up.
const KNOCKS: u32 = 100_000;

#[test]
fn a_plain_thread_wakes_a_sleeping_ring() {
    let executor = Executor::new();
    let bell = executor.ring.doorbell();
    let knocking = thread::spawn(move || bell.knock());
    while !executor.ring.answer_door() {
        executor.turn(Wait::UntilEvent);
    }
    knocking.join().expect("no panic");
    assert!(!executor.ring.answer_door());
}

#[test]
fn a_knock_before_the_first_turn_is_heard() {
    let executor = Executor::new();
    executor.ring.doorbell().knock();
    executor.turn(Wait::UntilEvent);
    assert!(executor.ring.answer_door());
}

#[test]
fn no_turn_waits_while_a_knock_is_unanswered() {
    let executor = Executor::new();
    executor.ring.doorbell().knock();
    while executor.turn(Wait::No) == 0 {}
    executor.turn(Wait::UntilEvent);
    assert!(executor.ring.now() < executor.started + PATIENCE / 10, "the watchdog ended the wait");
    assert!(executor.ring.answer_door());
}

#[test]
fn a_ring_wakes_another_and_itself() {
    let executor = Executor::new();
    let other = Executor::new();
    for _ in 0..10 {
        executor.ring.knock(&other.ring.doorbell());
        executor.settle();
        other.turn(Wait::UntilEvent);
        assert!(other.ring.answer_door());
        executor.ring.knock(&executor.ring.doorbell());
        while !executor.ring.answer_door() {
            executor.turn(Wait::UntilEvent);
        }
    }
    executor.assert_idle();
    other.assert_idle();
}

#[test]
fn knocks_before_the_answer_are_one() {
    let executor = Executor::new();
    let bell = executor.ring.doorbell();
    for _ in 0..1000 {
        bell.knock();
        executor.ring.knock(&bell);
    }
    assert_eq!(executor.ring.usage().operations, 0);
    while !executor.ring.answer_door() {
        executor.turn(Wait::UntilEvent);
    }
    executor.settle();
    assert!(!executor.ring.answer_door());
}

/// Each value is published, then announced; a wake-up that is lost leaves the ring asleep until the watchdog.
#[test]
fn no_knock_of_a_plain_thread_is_lost() {
    let executor = Executor::new();
    let (sent, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let bell = executor.ring.doorbell();
    let knocking = thread::spawn({
        let (sent, seen) = (sent.clone(), seen.clone());
        move || {
            for value in 1..=KNOCKS {
                sent.store(value, Ordering::Relaxed);
                bell.knock();
                // Lockstep every so often, so that each such knock must wake a ring that sleeps.
                while value % 16 == 0 && seen.load(Ordering::Relaxed) < value {
                    thread::yield_now();
                }
            }
        }
    });
    while seen.load(Ordering::Relaxed) < KNOCKS {
        executor.turn(Wait::UntilEvent);
        if executor.ring.answer_door() {
            seen.store(sent.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    knocking.join().expect("no panic");
}

#[test]
fn no_knock_between_two_rings_is_lost() {
    let (tell_bell, hear_bell) = std::sync::mpsc::channel();
    let value = Arc::new(AtomicU32::new(0));
    let side = |mine: u32, value: Arc<AtomicU32>, bells: Box<dyn FnOnce(Doorbell) -> Doorbell + std::marker::Send>| {
        thread::spawn(move || {
            let executor = Executor::new();
            let theirs = bells(executor.ring.doorbell());
            // The value is ours to raise when its parity is ours.
            loop {
                let now = value.load(Ordering::Relaxed);
                if now >= KNOCKS {
                    executor.ring.knock(&theirs);
                    executor.settle();
                    executor.assert_idle();
                    return;
                }
                if now % 2 == mine {
                    value.store(now + 1, Ordering::Relaxed);
                    executor.ring.knock(&theirs);
                    continue;
                }
                while !executor.ring.answer_door() {
                    executor.turn(Wait::UntilEvent);
                }
            }
        })
    };
    let (tell_other, hear_other) = std::sync::mpsc::channel();
    let left = side(
        0,
        value.clone(),
        Box::new(move |bell| {
            tell_bell.send(bell).expect("the other side waits");
            hear_other.recv().expect("the other side tells")
        }),
    );
    let right = side(
        1,
        value,
        Box::new(move |bell| {
            tell_other.send(bell).expect("the other side waits");
            hear_bell.recv().expect("the other side tells")
        }),
    );
    left.join().expect("no panic");
    right.join().expect("no panic");
}

#[test]
fn a_bell_outlives_its_ring() {
    let before = descriptors();
    let executor = Executor::new();
    let bells = [(); 2].map(|()| Ring::new(config(1, 1)).expect("a ring").doorbell());
    bells[0].knock();
    executor.ring.knock(&bells[1]);
    executor.assert_idle();
    drop((bells, executor));
    assert_eq!(descriptors(), before);
}

#[test]
fn a_bell_of_a_thread_that_has_ended_takes_knocks() {
    let executor = Executor::new();
    let bell = thread::spawn(|| Ring::new(config(1, 1)).expect("a ring").doorbell()).join().expect("no panic");
    executor.ring.knock(&bell);
    executor.assert_idle();
}

/// A message that cannot be delivered is written to the event descriptor instead.
#[test]
fn a_knock_that_fails_falls_back_to_the_event_descriptor() {
    let executor = Executor::new();
    let not_a_ring = std::fs::File::open("/dev/null").expect("a device");
    let bell = Doorbell::new(not_a_ring.into()).expect("an event descriptor");
    executor.ring.knock(&bell);
    executor.assert_idle();
    let mut count = [0; 8];
    // SAFETY: reads eight bytes into a live array.
    let read = unsafe { libc::read(bell.event_fd(), count.as_mut_ptr().cast(), count.len()) };
    assert_eq!((read, u64::from_ne_bytes(count)), (8, 1));
}
