//! Dialogues about connections that several requests share. A connection is a number.

use std::time::Duration;

use super::super::tests::plan;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

type Pool = Upstream<u32, u32>;

fn pool(protocol: Protocol, max_connections: u32) -> (Pool, Instant) {
    let mut plan = plan(1, max_connections, 8);
    plan.protocol = Protocol::H2;
    let mut pool: Pool = Upstream::new(&plan, 0, 1, 7);
    // As if there were TLS.
    pool.protocol = protocol;
    pool.targets.iter_mut().for_each(|(_, target)| target.speaks = Speaks::of(protocol));
    (pool, Instant::now())
}

fn dial(pool: &mut Pool, now: Instant) -> TargetId {
    let Checkout::Dial { target } = pool.checkout(now, false, None, false) else { panic!("no leave to dial") };
    target
}

/// The shared connection that a request gets a place on.
fn place(pool: &mut Pool, now: Instant, granted: bool) -> (SharedId, u32) {
    let Checkout::Share { id, handle, .. } = pool.checkout(now, false, None, granted) else { panic!("no place") };
    (id, handle)
}

fn wait(pool: &mut Pool, now: Instant) -> Ticket {
    assert_eq!(pool.checkout(now, false, None, false), Checkout::Wait);
    pool.enqueue()
}

#[test]
fn one_connection_is_dialled_and_all_share_it() {
    let (mut pool, now) = pool(Protocol::H2, 4);
    let target = dial(&mut pool, now);
    let waiting = [wait(&mut pool, now), wait(&mut pool, now)];
    let (id, granted) = pool.opened_shared(target, 1, 10, now);
    assert_eq!(granted, waiting);
    for _ in granted {
        assert_eq!(place(&mut pool, now, true), (id, 1));
    }
    assert_eq!(place(&mut pool, now, false), (id, 1));
    assert_eq!(pool.usage(), (1, 0, 0));
}

#[test]
fn another_is_dialled_when_the_first_takes_no_more() {
    let (mut pool, now) = pool(Protocol::H2, 2);
    let target = dial(&mut pool, now);
    let (first, _) = pool.opened_shared(target, 1, 2, now);
    assert_eq!(place(&mut pool, now, false), (first, 1));
    let target = dial(&mut pool, now);
    let (second, _) = pool.opened_shared(target, 2, 2, now);
    assert_eq!(place(&mut pool, now, false), (second, 2));
    // Both are full, and there may be no third.
    let ticket = wait(&mut pool, now);
    assert_eq!(pool.leave(target, first, now), Some(ticket));
    assert_eq!(place(&mut pool, now, true), (first, 1));
}

#[test]
fn a_peer_that_takes_more_lets_those_in_who_wait() {
    let (mut pool, now) = pool(Protocol::H2, 1);
    let target = dial(&mut pool, now);
    let (id, _) = pool.opened_shared(target, 1, 1, now);
    let waiting = [wait(&mut pool, now), wait(&mut pool, now)];
    assert_eq!(pool.limited(target, id, 3), waiting);
    assert_eq!(pool.limited(target, id, 3), []);
    place(&mut pool, now, true);
    // It has thought better of it, so whoever was told waits again.
    assert_eq!(pool.limited(target, id, 1), []);
    assert_eq!(pool.checkout(now, false, None, true), Checkout::Wait);
}

#[test]
fn a_dial_that_fails_passes_its_turn_on() {
    let (mut pool, now) = pool(Protocol::H2, 4);
    let target = dial(&mut pool, now);
    let ticket = wait(&mut pool, now);
    assert_eq!(pool.not_opened(target), Some(ticket));
    let Checkout::Dial { .. } = pool.checkout(now, false, None, true) else { panic!("its turn") };
}

#[test]
fn an_endpoint_that_turns_out_not_to_share_is_dialled_by_everybody() {
    let (mut pool, now) = pool(Protocol::Auto, 4);
    let target = dial(&mut pool, now);
    let ticket = wait(&mut pool, now);
    assert_eq!(pool.opened_exclusive(target), [ticket]);
    let Checkout::Dial { .. } = pool.checkout(now, false, None, true) else { panic!("leave to dial") };
    dial(&mut pool, now);
    assert_eq!(pool.usage(), (3, 0, 0));
}

#[test]
fn a_forgotten_connection_takes_no_more_and_is_open_until_it_has_closed() {
    let (mut pool, now) = pool(Protocol::H2, 1);
    let target = dial(&mut pool, now);
    let (id, _) = pool.opened_shared(target, 1, 10, now);
    pool.forget(target, id);
    let ticket = wait(&mut pool, now);
    assert_eq!(pool.leave(target, id, now), None);
    assert_eq!(pool.closed(target), Some(ticket));
    let Checkout::Dial { .. } = pool.checkout(now, false, None, true) else { panic!("room for another") };
}

#[test]
fn a_connection_that_nobody_uses_goes_stale_and_one_that_is_used_grows_old() {
    let (mut pool, now) = pool(Protocol::H2, 4);
    let target = dial(&mut pool, now);
    let (id, _) = pool.opened_shared(target, 1, 10, now);
    pool.evict(now + 30 * SECOND, |_| false);
    assert_eq!(place(&mut pool, now, false), (id, 1));
    assert_eq!(pool.leave(target, id, now + 30 * SECOND), None);
    assert_eq!(pool.leave(target, id, now + 30 * SECOND), None);
    assert_eq!(pool.usage(), (1, 1, 0));
    pool.evict(now + 39 * SECOND, |_| false);
    assert_eq!(place(&mut pool, now, false), (id, 1));
    pool.evict(now + 60 * SECOND, |_| false);
    dial(&mut pool, now);
}
