use std::io::Write;

use super::*;

#[test]
fn idle_streams_hold_no_buffer() {
    let executor = Executor::with_buffers(4, 1);
    let streams: Vec<_> = (0..100).map(|_| pair(&executor.ring, Family::Unix)).collect();
    for expect in [Expect::Now, Expect::Later] {
        let receiving: Vec<_> = streams.iter().map(|(left, _)| left.receive(Size::Small, expect)).collect();
        executor.settle();
        assert_eq!(executor.ring.usage().operations, 100);
        assert_eq!(executor.ring.usage().buffers, 0);
        drop(receiving);
        executor.assert_idle();
    }
}

#[test]
fn readers_that_find_no_buffer_are_served_when_one_comes_back() {
    const READERS: usize = 40;
    let executor = Executor::with_buffers(2, 0);
    let (mut peers, served) = (Vec::new(), Rc::new(Cell::new(0)));
    for _ in 0..READERS {
        let (stream, mut peer) = half_pair(&executor.ring);
        peer.write_all(b"hello").expect("room");
        peers.push(peer);
        let (ring, served) = (executor.ring.clone(), served.clone());
        executor.spawn(async move {
            let buf = stream.receive(Size::Small, Expect::Now).await.expect("bytes").expect("no end");
            assert_eq!(&buf[..], b"hello");
            assert!(ring.usage().buffers <= 2);
            pause(&ring, 3).await;
            served.set(served.get() + 1);
        });
    }
    executor.run(async {
        while served.get() < READERS {
            pause(&executor.ring, 1).await;
        }
    });
    assert!(executor.ring.usage().parked_total > 0);
    executor.assert_idle();
}

#[test]
fn parked_readers_are_not_all_tried_again_for_each_buffer() {
    const READERS: usize = 300;
    let executor = Executor::with_buffers(1, 0);
    let peers: Vec<_> = (0..READERS).map(|_| half_pair(&executor.ring)).collect();
    let receives: Vec<_> = peers
        .iter()
        .map(|(stream, peer)| {
            (&*peer).write_all(b"x").expect("room");
            stream.receive(Size::Small, Expect::Now)
        })
        .collect();
    executor.run(async {
        for receive in receives {
            assert_eq!(receive.await.expect("bytes").as_deref(), Some(&b"x"[..]));
        }
    });
    let parked = executor.ring.usage().parked_total;
    assert!(parked <= 2 * READERS as u64, "{parked} refusals");
}

/// A reader that is tried again may find its socket empty and leave the buffer to the next; nobody may sleep on that.
#[test]
fn a_parked_reader_is_served_past_others_that_have_nothing_to_read() {
    let executor = Executor::with_buffers(1, 0);
    let (holder, mut holder_peer) = half_pair(&executor.ring);
    holder_peer.write_all(b"hold").expect("room");
    let held = executor.run(holder.receive(Size::Small, Expect::Now)).expect("bytes");
    let idle: Vec<_> = (0..20).map(|_| pair(&executor.ring, Family::Unix)).collect();
    let waiting: Vec<_> = idle.iter().map(|(left, _)| left.receive(Size::Small, Expect::Now)).collect();
    let (last, mut last_peer) = half_pair(&executor.ring);
    last_peer.write_all(b"last").expect("room");
    let receiving = last.receive(Size::Small, Expect::Now);
    executor.settle();
    assert_eq!(executor.ring.usage().parked_total, 21);
    drop(held);
    assert_eq!(executor.run(receiving).expect("bytes").as_deref(), Some(&b"last"[..]));
    drop(waiting);
    executor.assert_idle();
}

#[test]
fn a_long_receive_makes_do_with_a_small_buffer() {
    let executor = Executor::with_buffers(1, 0);
    let (stream, mut peer) = half_pair(&executor.ring);
    peer.write_all(&pattern(3, 0, 2 * SMALL_BYTES)).expect("room");
    drop(peer);
    let received = executor.run(receive_to_end(&stream, Size::Large)).expect("in order");
    assert!(received == pattern(3, 0, 2 * SMALL_BYTES));
}

#[test]
fn a_short_receive_leaves_the_large_buffers_alone() {
    let executor = Executor::with_buffers(0, 1);
    let (stream, mut peer) = half_pair(&executor.ring);
    peer.write_all(b"x").expect("room");
    let receiving = stream.receive(Size::Small, Expect::Now);
    executor.settle();
    assert_eq!(executor.ring.usage(), RingUsage { operations: 1, buffers: 0, timers: 1, parked_total: 1 });
    drop(receiving);
    executor.assert_idle();
}

#[test]
fn parked_readers_can_be_given_up_in_any_order() {
    let executor = Executor::with_buffers(0, 0);
    let streams: Vec<_> = (0..9).map(|_| pair(&executor.ring, Family::Unix)).collect();
    let mut receiving: Vec<_> = streams
        .iter()
        .zip([Size::Small, Size::Large].into_iter().cycle())
        .map(|((left, _), size)| Some(left.receive(size, Expect::Now)))
        .collect();
    executor.settle();
    for index in [4, 0, 8, 1, 7] {
        receiving[index] = None;
        executor.settle();
    }
    assert_eq!(executor.ring.usage().operations, 4);
    drop(receiving);
    executor.assert_idle();
}

#[test]
fn the_end_of_a_stream_and_errors_use_no_buffer_up() {
    let executor = Executor::with_buffers(1, 1);
    for _ in 0..10 {
        for size in Size::ALL {
            for reset in [false, true] {
                let (stream, peer) = half_pair(&executor.ring);
                if reset {
                    Plain::from(peer).set_linger(Some(Duration::ZERO)).expect("a socket option");
                } else {
                    drop(peer);
                }
                assert_eq!(executor.run(stream.receive(size, Expect::Later)).is_err(), reset);
            }
        }
    }
    executor.assert_idle();
}

#[test]
fn a_relay_whose_receiver_stalls_holds_one_buffer() {
    let executor = Executor::with_buffers(64, 16);
    let (source, inlet) = pair(&executor.ring, Family::Unix);
    let (outlet, sink) = pair(&executor.ring, Family::Unix);
    executor.spawn(async move {
        loop {
            if send_all(&source, &[1; 100_000]).await.is_err() {
                return;
            }
        }
    });
    executor.spawn(async move {
        while let Ok(Some(buf)) = inlet.receive(Size::Small, Expect::Now).await {
            let mut outgoing = Outgoing::new(Vec::new(), Some(buf), b"");
            while outgoing.remaining() > 0 {
                let (sent, rest) = outlet.send(outgoing).await;
                if sent.is_err() {
                    return;
                }
                outgoing = rest;
            }
        }
    });
    executor.settle();
    assert_eq!(executor.ring.usage().buffers, 1);
    drop(sink);
    executor.assert_idle();
}

#[test]
fn every_buffer_is_handed_out_before_any_twice_and_none_overlap() {
    for (small, large) in [(1, 1), (3, 2), (255, 31), (256, 32), (257, 33), (700, 70)] {
        let executor = Executor::with_buffers(small, large);
        let mut held = Vec::new();
        for (size, count) in [(Size::Small, small), (Size::Large, large)] {
            let (stream, mut peer) = half_pair(&executor.ring);
            for index in 0..count {
                peer.write_all(&index.to_le_bytes()).expect("room");
                let buf = executor.run(stream.receive(size, Expect::Now)).expect("bytes").expect("no end");
                held.push((index.to_le_bytes(), buf));
            }
        }
        assert_eq!(executor.ring.usage().buffers, usize::from(small) + usize::from(large));
        assert!(held.iter().all(|(sent, buf)| buf[..] == sent[..]));
        drop(held);
        executor.assert_idle();
    }
}

#[test]
fn any_count_of_buffers_is_possible() {
    for small in [0, 1, 255, 32_768, 32_769, 65_535] {
        let executor = Executor::with_buffers(small, 0);
        let (stream, mut peer) = half_pair(&executor.ring);
        peer.write_all(b"x").expect("room");
        let mut receiving = stream.receive(Size::Small, Expect::Now);
        executor.settle();
        assert_eq!(poll_once(&mut receiving).is_ready(), small > 0, "{small}");
    }
}

#[test]
fn the_window_of_a_buffer_narrows_from_both_sides() {
    let executor = Executor::new();
    let (stream, mut peer) = half_pair(&executor.ring);
    peer.write_all(b"0123456789").expect("room");
    let mut buf = executor.run(stream.receive(Size::Small, Expect::Now)).expect("bytes").expect("no end");
    buf.advance(2);
    assert_eq!(&buf[..], b"23456789");
    buf.keep(1..5);
    assert_eq!(&buf[..], b"3456");
    buf.make_ascii_uppercase();
    buf[0] = b'x';
    assert_eq!(&buf[..], b"x456");
    buf.keep(4..4);
    buf.advance(0);
    assert!(buf.is_empty());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| buf.advance(1))).is_err());
}

#[test]
fn a_buffer_outlives_its_ring() {
    let executor = Executor::new();
    let (stream, mut peer) = half_pair(&executor.ring);
    peer.write_all(b"still here").expect("room");
    let mut buf = executor.run(stream.receive(Size::Small, Expect::Now)).expect("bytes").expect("no end");
    let ring = Rc::downgrade(&executor.ring);
    drop((executor, stream));
    assert!(ring.upgrade().is_none());
    buf[0] = b'S';
    assert_eq!(&buf[..], b"Still here");
}
