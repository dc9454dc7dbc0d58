//! The kernel's two queues, full.

use super::*;

#[test]
fn more_submissions_than_the_queue_holds_travel_in_one_turn() {
    for (submissions, completions) in [(1, 2), (4, 8), (SUBMISSIONS, COMPLETIONS)] {
        let executor = Executor::on(Ring::with_queues(config(1500, 1), submissions, completions).expect("a ring"));
        let streams: Vec<_> = (0..1500).map(|_| pair(&executor.ring, Family::Unix)).collect();
        let receiving: Vec<_> = streams.iter().map(|(left, _)| left.receive(Size::Small, Expect::Later)).collect();
        let sending: Vec<_> = streams
            .iter()
            .zip(0u32..)
            .map(|((_, right), index)| right.send(Outgoing::new(index.to_le_bytes().to_vec(), None, b"")))
            .collect();
        executor.run(async {
            for (receive, index) in receiving.into_iter().zip(0u32..) {
                assert_eq!(receive.await.expect("bytes").as_deref(), Some(&index.to_le_bytes()[..]));
            }
            for send in sending {
                send.await.0.expect("sent");
            }
        });
        drop(streams);
        executor.assert_idle();
    }
}

#[test]
fn cancels_beyond_the_queue_reach_their_operations() {
    let executor = Executor::on(Ring::with_queues(config(8, 1), 2, 4).expect("a ring"));
    let streams: Vec<_> = (0..500).map(|_| pair(&executor.ring, Family::Unix)).collect();
    let receiving: Vec<_> = streams.iter().map(|(left, _)| left.receive(Size::Small, Expect::Later)).collect();
    drop(receiving);
    drop(streams);
    executor.assert_idle();
}

/// What the kernel has no room for waits in order, and goes first.
#[test]
fn the_backlog_keeps_its_order() {
    let executor = Executor::on(Ring::with_queues(config(8, 1), 2, 4).expect("a ring"));
    let (left, right) = pair(&executor.ring, Family::Tcp);
    let sends: Vec<_> = (0..200u8).map(|index| left.send(Outgoing::new(vec![index], None, b""))).collect();
    let received = executor.run(receive_exact_or_more(&right, 200));
    assert_eq!(received, (0..200u8).collect::<Vec<_>>());
    drop(sends);
}
