//! Sends that are posted: the kernel says nothing of one that goes out whole at once.

use std::io::Read;

use super::*;

fn post(stream: &Stream, for_good: bool, outgoing: Outgoing) -> Posted {
    if for_good { stream.post_for_good(outgoing) } else { stream.post(outgoing) }
}

/// Fills what the kernel holds between the two.
fn stuff(stream: &Stream) -> usize {
    let socket = stream.socket.as_socket2();
    let mut stuffed = 0;
    while let Ok(count) = socket.send_with_flags(&[b'.'; 10_000], libc::MSG_DONTWAIT) {
        stuffed += count;
    }
    stuffed
}

#[test]
fn one_that_goes_out_whole_brings_no_completion() {
    for for_good in [false, true] {
        let executor = Executor::new();
        let (left, right) = pair(&executor.ring, Family::Tcp);
        executor.settle();
        let mut posted = post(&left, for_good, Outgoing::new(b"quiet".to_vec(), None, b"ly"));
        assert_eq!(executor.ring.turn(Wait::No).expect("a turn"), 0);
        let Poll::Ready((sent, rest)) = posted.try_sent() else { panic!("it has gone out") };
        sent.expect("the peer is there");
        assert_eq!(rest.sent(), if for_good { 0 } else { 7 });
        assert_eq!(executor.run(receive_exact(&right, 7)), b"quietly");
        drop((left, right, posted));
        executor.assert_idle();
    }
}

/// Nothing else ends the wait.
#[test]
fn whoever_waits_for_one_is_woken() {
    for for_good in [false, true] {
        let executor = Executor::new();
        let (left, right) = pair(&executor.ring, Family::Unix);
        executor.settle();
        let mut posted = post(&left, for_good, Outgoing::new(b"heard".to_vec(), None, b""));
        executor.run(std::future::poll_fn(|cx| posted.poll_sent(cx))).0.expect("the peer is there");
        drop((left, right, posted));
        executor.assert_idle();
    }
}

#[test]
fn one_that_finds_no_room_waits_for_it() {
    for (for_good, tail) in [(false, &b""[..]), (false, b" and a tail"), (true, b""), (true, b" and a tail")] {
        let executor = Executor::new();
        let (left, right) = plain_pair(Family::Unix);
        let (left, mut right) = (Stream::new(&executor.ring, left), UnixStream::from(right));
        let stuffed = stuff(&left);
        let mut posted = post(&left, for_good, Outgoing::new(b"content".to_vec(), None, tail));
        executor.settle();
        assert!(posted.try_sent().is_pending());
        let mut received = vec![0; stuffed];
        right.read_exact(&mut received).expect("what was stuffed in");
        executor.settle();
        let Poll::Ready((sent, _)) = posted.try_sent() else { panic!("there is room") };
        sent.expect("the peer is there");
        let mut received = vec![0; 7 + tail.len()];
        right.read_exact(&mut received).expect("what was posted");
        assert_eq!(received, [b"content", tail].concat());
        drop((left, posted));
        executor.assert_idle();
    }
}

/// The kernel keeps completions for which its queue has no room, the failure of a post among them: silence is no success then.
#[test]
fn a_failure_that_the_completion_queue_has_no_room_for_is_not_taken_for_success() {
    let executor = Executor::on(Ring::with_queues(config(1, 1), 4, 8).expect("a ring"));
    let gone: Vec<_> = (0..60).map(|_| pair(&executor.ring, Family::Unix).0).collect();
    executor.settle();
    let mut posts: Vec<_> = gone.iter().map(|left| left.post(Outgoing::new(b"lost".to_vec(), None, b""))).collect();
    for posted in &mut posts {
        let (sent, rest) = executor.run(std::future::poll_fn(|cx| posted.poll_sent(cx)));
        assert_eq!(sent.expect_err("nobody is there").raw_os_error(), Some(libc::EPIPE));
        assert_eq!(rest.sent(), 0);
    }
    drop((gone, posts));
    executor.assert_idle();
}

#[test]
fn one_that_is_taken_back_before_its_turn_leaves_nothing() {
    let executor = Executor::new();
    let (left, right) = pair(&executor.ring, Family::Tcp);
    drop(left.post(Outgoing::new(b"never mind".to_vec(), None, b"")));
    drop((left, right));
    executor.assert_idle();
}
