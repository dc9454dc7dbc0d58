//! An upstream's bookkeeping as dialogues. A connection is a number.

use std::path::PathBuf;

use super::*;
use crate::config::plan::{EndpointPlan, KeepalivePlan, ProxyVersion, UpstreamLimits, UpstreamTimeouts};

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    upstream: Upstream<u32>,
    now: Instant,
    next_connection: u32,
}

pub fn plan(endpoints: usize, max_connections: u32, max_pending: u32) -> UpstreamPlan {
    let endpoint = |index: usize| EndpointPlan {
        target: EndpointTarget::Unix(PathBuf::from(format!("/run/{index}"))),
        authority: format!("endpoint-{index}"),
    };
    UpstreamPlan {
        name: "app".into(),
        protocol: Protocol::H1,
        endpoints: (0..endpoints).map(endpoint).collect(),
        tls: None,
        proxy_protocol: None,
        balance: Balance::RoundRobin,
        limits: UpstreamLimits {
            max_connections,
            max_pending,
            pending_timeout: SECOND,
            max_head: 8192,
            max_fields: 100,
        },
        timeouts: UpstreamTimeouts { connect: SECOND, first_byte: SECOND, idle: SECOND, tunnel_idle: SECOND },
        keepalive: KeepalivePlan { idle: 10 * SECOND, max_age: 60 * SECOND },
        dns_refresh: SECOND,
    }
}

impl Bench {
    fn new(plan: &UpstreamPlan) -> Self {
        Self { upstream: Upstream::new(plan, 0, 1, 7), now: Instant::now(), next_connection: 0 }
    }

    /// What a request does that finds a connection at once: the connection, its target, and whether it was used before.
    fn take(&mut self) -> (u32, TargetId, bool) {
        match self.upstream.checkout(self.now, false, None, false) {
            Checkout::Reuse { connection, target, .. } => (connection, target, true),
            Checkout::Dial { target } => {
                self.next_connection += 1;
                (self.next_connection, target, false)
            }
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, connection: u32, target: TargetId) -> Option<Ticket> {
        self.upstream.put_back(target, connection, self.now, self.now)
    }

    fn checkout(&mut self, granted: bool) -> Checkout<u32> {
        self.upstream.checkout(self.now, false, None, granted)
    }
}

#[test]
fn a_connection_that_speaks_for_one_client_is_not_kept() {
    let plan = UpstreamPlan { proxy_protocol: Some(ProxyVersion::V2), ..plan(1, 8, 0) };
    let mut bench = Bench::new(&plan);
    let (first, target, _) = bench.take();

    assert_eq!(bench.put(first, target), None);

    assert_eq!(bench.upstream.usage(), (0, 0, 0));
    assert!(!bench.take().2, "used again");
}

#[test]
fn the_last_connection_put_back_is_the_first_used_again() {
    let mut bench = Bench::new(&plan(1, 8, 0));
    let (first, target, _) = bench.take();
    let (second, ..) = bench.take();
    assert_eq!(bench.put(first, target), None);
    assert_eq!(bench.put(second, target), None);
    assert_eq!(bench.take(), (second, target, true));
    assert_eq!(bench.take(), (first, target, true));
    assert!(!bench.take().2, "a third is new");
}

#[test]
fn a_connection_idle_or_alive_for_too_long_is_not_used_again() {
    let mut bench = Bench::new(&plan(1, 8, 0));
    let (connection, target, _) = bench.take();
    let born = bench.now;
    assert_eq!(bench.put(connection, target), None);
    bench.now += 10 * SECOND;
    let (fresh, _, reused) = bench.take();
    assert!(!reused && fresh != connection, "idle for as long as may be");
    assert_eq!(bench.upstream.usage(), (1, 0, 0));

    bench.now = born + 60 * SECOND;
    assert_eq!(bench.upstream.put_back(target, fresh, born, bench.now), None);
    assert_eq!(bench.upstream.usage(), (0, 0, 0), "as old as may be");
}

#[test]
fn eviction_closes_what_is_stale_or_dead_and_nothing_else() {
    let mut bench = Bench::new(&plan(1, 8, 0));
    let taken: Vec<_> = (0..3).map(|_| bench.take()).collect();
    for (connection, target, _) in taken {
        assert_eq!(bench.put(connection, target), None);
    }
    assert_eq!(bench.upstream.evict(bench.now, |connection| *connection == 2), 1);
    assert_eq!(bench.upstream.usage(), (2, 2, 0));
    assert_eq!(bench.upstream.evict(bench.now + 10 * SECOND, |_| false), 2);
    assert_eq!(bench.upstream.usage(), (0, 0, 0));
}

#[test]
fn requests_beyond_the_bound_queue_in_order_and_beyond_that_are_refused() {
    let mut bench = Bench::new(&plan(1, 1, 2));
    let (connection, target, _) = bench.take();
    assert_eq!(bench.checkout(false), Checkout::Wait);
    let first = bench.upstream.enqueue();
    assert_eq!(bench.checkout(false), Checkout::Wait);
    let second = bench.upstream.enqueue();
    assert_eq!(bench.checkout(false), Checkout::QueueFull);

    assert_eq!(bench.put(connection, target), Some(first));
    assert!(matches!(bench.checkout(true), Checkout::Reuse { connection: 1, .. }));
    assert_eq!(bench.upstream.closed(target), Some(second), "a closed connection makes room for a new one");
    assert!(matches!(bench.checkout(true), Checkout::Dial { .. }));
}

#[test]
fn a_newcomer_cannot_overtake_a_grant() {
    let mut bench = Bench::new(&plan(1, 1, 2));
    let (connection, target, _) = bench.take();
    let waiting = bench.upstream.enqueue();
    assert_eq!(bench.put(connection, target), Some(waiting));
    assert_eq!(bench.checkout(false), Checkout::Wait, "the idle connection is promised");
    assert!(matches!(bench.checkout(true), Checkout::Reuse { .. }));
}

#[test]
fn who_leaves_the_queue_makes_room_and_who_leaves_with_a_grant_passes_it_on() {
    let mut bench = Bench::new(&plan(1, 1, 3));
    let (connection, target, _) = bench.take();
    let tickets: Vec<_> = (0..3).map(|_| bench.upstream.enqueue()).collect();
    assert_eq!(bench.upstream.leave_queue(tickets[1]), None);
    assert_eq!(bench.put(connection, target), Some(tickets[0]));
    assert_eq!(bench.upstream.leave_queue(tickets[0]), Some(tickets[2]));
    assert_eq!(bench.upstream.leave_queue(tickets[2]), None);
    assert!(matches!(bench.checkout(false), Checkout::Reuse { .. }), "nobody is promised anything any more");
}

#[test]
fn a_full_upstream_gives_up_an_idle_connection_for_another_target() {
    let mut bench = Bench::new(&plan(2, 2, 0));
    let (a, target_a, _) = bench.take();
    let (b, target_b, _) = bench.take();
    assert_ne!(target_a, target_b, "round robin");
    assert_eq!(bench.put(a, target_a), None);
    assert_eq!(bench.put(b, target_b), None);
    // A fresh one is asked for, and both that may be open are.
    let Checkout::Dial { .. } = bench.upstream.checkout(bench.now, true, None, false) else { panic!("room is made") };
    assert_eq!(bench.upstream.usage(), (2, 1, 0));
}

#[test]
fn round_robin_goes_round_and_avoids_what_is_to_be_avoided() {
    let mut bench = Bench::new(&plan(3, 64, 0));
    let targets: Vec<_> = (0..6).map(|_| bench.take().1).collect();
    assert_eq!(targets[..3], targets[3..]);
    assert!(targets[0] != targets[1] && targets[1] != targets[2] && targets[0] != targets[2]);
    for _ in 0..9 {
        let Checkout::Dial { target } = bench.upstream.checkout(bench.now, true, Some(targets[1]), false) else {
            panic!("room for all")
        };
        assert_ne!(target, targets[1]);
    }
}

#[test]
fn least_request_leaves_a_stalled_target_alone() {
    let mut plan = plan(3, 64, 0);
    plan.balance = Balance::LeastRequest;
    let mut bench = Bench::new(&plan);
    let (_, stalled, _) = bench.take();
    for _ in 0..200 {
        let (connection, target, _) = bench.take();
        assert_ne!(target, stalled, "one of each pair is idle");
        assert_eq!(bench.put(connection, target), None);
    }
}

#[test]
fn addresses_that_are_gone_get_no_requests_and_are_forgotten_with_their_last_connection() {
    let mut plan = plan(1, 8, 0);
    plan.endpoints[0].target = EndpointTarget::Name { host: "app".into(), port: 80 };
    let mut bench = Bench::new(&plan);
    assert_eq!(bench.checkout(false), Checkout::NoTarget, "not looked up yet");
    let [old, new] = ["192.0.2.1:80", "192.0.2.2:80"].map(|text| text.parse().expect("an address"));

    bench.upstream.resolved(0, &[old]);
    let (idle, target, _) = bench.take();
    let (in_use, same, _) = bench.take();
    assert_eq!(target, same);
    assert_eq!(bench.put(idle, target), None);

    bench.upstream.resolved(0, &[new]);
    assert_eq!(bench.upstream.usage(), (1, 0, 0), "its idle connection is closed");
    let (_, other, reused) = bench.take();
    assert!(other != target && !reused);
    assert_eq!(bench.put(in_use, target), None);
    assert_eq!(bench.upstream.usage(), (1, 0, 0), "and so is the one in use, once it is put back");

    bench.upstream.resolved(0, &[new, old]);
    let targets: Vec<_> = (0..2).map(|_| bench.take().1).collect();
    assert_ne!(targets[0], targets[1], "both are used");
}

#[test]
fn every_shard_has_room_for_a_request_that_waits_unless_none_may() {
    for (max_pending, waits) in [(1, true), (0, false)] {
        let mut last: Upstream<u32> = Upstream::new(&plan(1, 8, max_pending), 7, 8, 7);
        let now = Instant::now();
        let Checkout::Dial { .. } = last.checkout(now, false, None, false) else { panic!("one connection is allowed") };
        let second = last.checkout(now, false, None, false);
        assert_eq!(matches!(second, Checkout::Wait), waits, "{second:?}");
        assert_eq!(matches!(second, Checkout::QueueFull), !waits, "{second:?}");
    }
}

#[test]
fn shares_add_up_to_the_whole() {
    for total in 0..50 {
        for shards in 1..8 {
            let sum: u32 = (0..shards).map(|shard| share(total, shard, shards)).sum();
            assert_eq!(sum, total);
        }
    }
}

/// Random requests, closes, leaves and evictions against the invariants.
#[test]
fn counts_hold_under_random_use() {
    for seed in 1..300u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut below = move |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let mut bench = Bench::new(&plan(1 + below(3) as usize, 1 + below(4) as u32, below(4) as u32));
        let (mut in_use, mut waiting, mut granted): (Vec<(u32, TargetId)>, Vec<Ticket>, Vec<Ticket>) =
            Default::default();
        for step in 0..300 {
            let mut told = None;
            match below(6) {
                0 | 1 => {
                    let is_granted = !granted.is_empty();
                    if is_granted {
                        granted.pop();
                    }
                    match bench.upstream.checkout(bench.now, below(4) == 0, None, is_granted) {
                        Checkout::Reuse { connection, target, .. } => in_use.push((connection, target)),
                        Checkout::Dial { target } => {
                            bench.next_connection += 1;
                            in_use.push((bench.next_connection, target));
                        }
                        Checkout::Wait => {
                            assert!(!is_granted, "seed {seed}, step {step}: a grant is kept");
                            waiting.push(bench.upstream.enqueue());
                        }
                        Checkout::QueueFull => assert!(!is_granted, "seed {seed}, step {step}: a grant is kept"),
                        Checkout::NoTarget => unreachable!("all addresses are known"),
                        Checkout::Share { .. } => unreachable!("none is shared"),
                    }
                }
                2 if !in_use.is_empty() => {
                    let (connection, target) = in_use.swap_remove(below(in_use.len() as u64) as usize);
                    told = bench.put(connection, target);
                }
                3 if !in_use.is_empty() => {
                    let (_, target) = in_use.swap_remove(below(in_use.len() as u64) as usize);
                    told = bench.upstream.closed(target);
                }
                4 if !waiting.is_empty() => {
                    let ticket = waiting.swap_remove(below(waiting.len() as u64) as usize);
                    told = bench.upstream.leave_queue(ticket);
                }
                5 if !granted.is_empty() => told = bench.upstream.leave_queue(granted.swap_remove(0)),
                _ => bench.now += SECOND,
            }
            if let Some(ticket) = told {
                let place = waiting.iter().position(|waits| *waits == ticket).expect("only who waits is told");
                granted.push(waiting.remove(place));
            }
            let (open, idle, queued) = bench.upstream.usage();
            assert_eq!(open - idle, in_use.len() as u32, "seed {seed}, step {step}");
            assert!(open <= bench.upstream.max_open, "seed {seed}, step {step}");
            assert_eq!(queued, waiting.len(), "seed {seed}, step {step}");
            let free = bench.upstream.max_open - open + idle;
            assert!(free >= granted.len() as u32, "seed {seed}, step {step}: every grant can be kept");
            assert!(
                waiting.is_empty() || free == granted.len() as u32,
                "seed {seed}, step {step}: nobody waits for nothing"
            );
        }
    }
}
