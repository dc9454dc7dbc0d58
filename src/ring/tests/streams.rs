use std::os::fd::BorrowedFd;

use super::*;

/// Longer than any socket's buffers, so that sends are partial.
const LONG: usize = 3_000_000;

#[test]
fn what_is_sent_arrives_in_order_and_then_the_end() {
    for family in FAMILIES {
        for (size, count) in [(Size::Small, 0), (Size::Small, 1), (Size::Small, LONG), (Size::Large, LONG)] {
            let executor = Executor::new();
            let (left, right) = pair(&executor.ring, family);
            executor.spawn(async move {
                send_all(&left, &pattern(1, 0, count)).await.expect("the peer reads");
            });
            let received = executor.run(receive_to_end(&right, size)).expect("the peer closes in order");
            assert!(received == pattern(1, 0, count), "{family:?} {size:?} {count}");
            drop(right);
            executor.assert_idle();
        }
    }
}

#[test]
fn parts_are_sent_in_order_whichever_are_empty() {
    for family in FAMILIES {
        for present in 0..8 {
            let executor = Executor::new();
            let (left, right) = pair(&executor.ring, family);
            let (source, sink) = pair(&executor.ring, family);
            let mut expected = Vec::new();
            let mut outgoing = Outgoing::default();
            executor.run(async {
                if present & 1 != 0 {
                    outgoing.head = b"head ".to_vec();
                    expected.extend_from_slice(b"head ");
                }
                if present & 2 != 0 {
                    send_all(&source, b"<content>").await.expect("sent");
                    let mut content = sink.receive(Size::Small, Expect::Later).await.expect("bytes").expect("no end");
                    content.keep(1..8);
                    content[0] = b'C';
                    outgoing.content = Some(content);
                    expected.extend_from_slice(b"Content");
                }
                if present & 4 != 0 {
                    outgoing.tail = b" tail";
                    expected.extend_from_slice(b" tail");
                }
                let (sent, rest) = left.send(outgoing).await;
                sent.expect("the peer is there");
                assert_eq!(rest.remaining(), 0);
                assert_eq!(rest.content.as_deref(), (present & 2 != 0).then_some(&b"Content"[..]));
                assert_eq!(receive_exact(&right, expected.len()).await, expected);
            });
            drop((left, right, source, sink));
            executor.assert_idle();
        }
    }
}

#[test]
fn long_vectored_sends_resume_inside_any_part() {
    static TAIL: [u8; 700_000] = [7; 700_000];
    let executor = Executor::new();
    let (left, right) = pair(&executor.ring, Family::Tcp);
    executor.spawn(async move {
        let mut outgoing = Outgoing::new(vec![5; 900_000], None, &TAIL);
        while outgoing.remaining() > 0 {
            let (sent, rest) = left.send(outgoing).await;
            sent.expect("the peer reads");
            outgoing = rest;
        }
    });
    let received = executor.run(receive_to_end(&right, Size::Large)).expect("the peer closes in order");
    assert!(received == [vec![5; 900_000], TAIL.to_vec()].concat());
}

#[test]
fn received_content_is_forwarded_without_a_copy() {
    let executor = Executor::new();
    let (source, inlet) = pair(&executor.ring, Family::Tcp);
    let (outlet, sink) = pair(&executor.ring, Family::Unix);
    executor.spawn(async move { send_all(&source, &pattern(2, 0, LONG)).await.expect("the relay reads") });
    executor.spawn(async move {
        while let Some(buf) = inlet.receive(Size::Large, Expect::Now).await.expect("bytes") {
            let mut outgoing = Outgoing::new(Vec::new(), Some(buf), b"");
            while outgoing.remaining() > 0 {
                let (sent, rest) = outlet.send(outgoing).await;
                sent.expect("the sink reads");
                outgoing = rest;
            }
        }
    });
    let received = executor.run(receive_to_end(&sink, Size::Small)).expect("the relay closes in order");
    assert!(received == pattern(2, 0, LONG));
    drop(sink);
    executor.assert_idle();
}

#[test]
fn after_shutdown_of_writing_the_other_direction_goes_on() {
    for family in FAMILIES {
        let executor = Executor::new();
        let (left, right) = pair(&executor.ring, family);
        executor.run(async {
            send_all(&left, b"question").await.expect("sent");
            left.shutdown_write().await.expect("connected");
            assert_eq!(receive_to_end(&right, Size::Small).await.expect("in order"), b"question");
            assert!(right.receive(Size::Small, Expect::Now).await.expect("the end, again").is_none());
            send_all(&right, b"answer").await.expect("still open this way");
            assert_eq!(receive_exact(&left, 6).await, b"answer");
            let (sent, _) = left.send(Outgoing::new(b"more".to_vec(), None, b"")).await;
            assert_eq!(sent.expect_err("shut down").raw_os_error(), Some(libc::EPIPE));
        });
    }
}

#[test]
fn a_stream_set_to_reset_on_close_resets_its_peer() {
    let executor = Executor::new();
    let (left, right) = pair(&executor.ring, Family::Tcp);
    executor.run(async {
        let receiving = right.receive(Size::Small, Expect::Later);
        left.reset_on_close();
        drop(left);
        let error = receiving.await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let (sent, rest) = right.send(Outgoing::new(b"late".to_vec(), None, b"")).await;
        assert!(sent.is_err());
        assert_eq!(rest.remaining(), 4);
    });
    drop(right);
    executor.assert_idle();
}

#[test]
fn a_connection_that_cannot_be_made_says_why() {
    let executor = Executor::new();
    let (listener, refused) = listening(1);
    drop(listener);
    let missing = SockAddr::unix("/nonexistent/socket").expect("a short path");
    for (address, kind) in [(refused, io::ErrorKind::ConnectionRefused), (missing, io::ErrorKind::NotFound)] {
        let connected = executor.run(Stream::connect(&executor.ring, address));
        assert_eq!(connected.err().map(|error| error.kind()), Some(kind));
        executor.assert_idle();
    }
}

#[test]
fn both_ends_of_a_connection_know_each_other_and_block() {
    let executor = Executor::new();
    let (fd, address) = listening(8);
    let mut listener = Listener::new(&executor.ring, fd);
    executor.run(async {
        let left = Stream::connect(&executor.ring, address.clone()).await.expect("somebody listens");
        let right = listener.accept().await.expect("connected");
        assert_eq!(left.peer(), address.as_socket());
        assert_eq!(left.peer(), right.local());
        assert_eq!(left.local(), right.peer());
        for stream in [&left, &right] {
            // With O_NONBLOCK the kernel would answer EAGAIN instead of waiting.
            assert!(!stream.socket.as_socket2().nonblocking().expect("a socket"));
        }
    });
    let (left, _right) = pair(&executor.ring, Family::Unix);
    assert_eq!((left.peer(), left.local()), (None, None));
}

#[test]
fn a_plain_peer_sees_bytes_end_and_reset() {
    use std::io::{Read, Write};
    let executor = Executor::new();
    let (stream, mut peer) = half_pair(&executor.ring);
    peer.write_all(b"ping").expect("room");
    executor.run(async {
        assert_eq!(receive_exact(&stream, 4).await, b"ping");
        send_all(&stream, b"pong").await.expect("room");
    });
    drop(stream);
    executor.settle();
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).expect("closed in order");
    assert_eq!(answer, b"pong");
}

#[test]
fn a_closed_stream_leaves_no_descriptor() {
    let before = descriptors();
    let executor = Executor::new();
    for family in FAMILIES {
        for _ in 0..50 {
            let (left, right) = pair(&executor.ring, family);
            drop(left.receive(Size::Small, Expect::Later));
            let receiving = right.receive(Size::Small, Expect::Later);
            drop((left, right));
            drop(receiving);
        }
        executor.assert_idle();
    }
    drop(executor);
    assert_eq!(descriptors(), before);
}

#[test]
fn a_descriptor_stays_open_while_an_operation_uses_it() {
    let executor = Executor::new();
    let (left, right) = pair(&executor.ring, Family::Unix);
    let fd = left.socket.as_raw_fd();
    let receiving = left.receive(Size::Small, Expect::Later);
    drop(left);
    executor.settle();
    // SAFETY: only asks whether the number is in use.
    let open = || unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().is_ok();
    assert!(open());
    executor.run(async {
        send_all(&right, b"late").await.expect("the receive holds the socket");
        assert_eq!(receiving.await.expect("bytes").as_deref(), Some(&b"late"[..]));
    });
    assert!(executor.run(receive_to_end(&right, Size::Small)).expect("closed in order").is_empty());
}

#[test]
fn what_is_posted_goes_out_whole_while_nobody_waits() {
    for for_good in [false, true] {
        for count in [0, 1, LONG] {
            let executor = Executor::new();
            let (left, right) = pair(&executor.ring, Family::Tcp);
            let outgoing = Outgoing::new(pattern(8, 0, count), None, b" and a tail");
            let mut posted = if for_good { left.post_for_good(outgoing) } else { left.post(outgoing) };
            let received = executor.run(receive_exact_or_more(&right, count + 11));
            assert!(received == [pattern(8, 0, count), b" and a tail".to_vec()].concat());
            executor.settle();
            let Poll::Ready((sent, rest)) = posted.try_sent() else { panic!("everything has arrived") };
            sent.expect("the peer reads");
            assert_eq!(rest.sent(), if for_good { 0 } else { count + 11 });
            drop((left, right, posted));
            executor.assert_idle();
        }
    }
}

#[test]
fn what_is_posted_to_a_peer_that_has_gone_fails_for_whoever_asks() {
    for for_good in [false, true] {
        let executor = Executor::new();
        let (left, right) = pair(&executor.ring, Family::Unix);
        drop(right);
        executor.settle();
        let outgoing = Outgoing::new(b"too late".to_vec(), None, b"");
        let mut posted = if for_good { left.post_for_good(outgoing) } else { left.post(outgoing) };
        executor.settle();
        let (sent, rest) = executor.run(std::future::poll_fn(|cx| posted.poll_sent(cx)));
        assert_eq!(sent.expect_err("nobody is there").raw_os_error(), Some(libc::EPIPE));
        assert_eq!(rest.remaining(), 8);
        drop((left, posted));
        executor.assert_idle();
    }
}

#[test]
fn everyone_who_waits_can_be_woken() {
    let executor = Executor::new();
    let (left, _right) = pair(&executor.ring, Family::Unix);
    let mut receiving = left.receive(Size::Small, Expect::Later);
    let mut polls = 0;
    executor.run(std::future::poll_fn(|cx| {
        polls += 1;
        assert!(Pin::new(&mut receiving).poll(cx).is_pending());
        if polls == 1 {
            executor.ring.wake_all();
            return Poll::Pending;
        }
        Poll::Ready(())
    }));
}

/// Both are there before anybody looks.
#[test]
fn a_reset_that_came_with_bytes_is_told_after_them() {
    let executor = Executor::new();
    let (stream, mut peer) = half_pair(&executor.ring);
    io::Write::write_all(&mut peer, b"last").expect("room");
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a socket option");
    drop(peer);
    let received = executor.run(stream.receive(Size::Small, Expect::Later)).expect("bytes").expect("no end");
    assert_eq!(&received[..], b"last");
    let end = executor.run(stream.receive(Size::Small, Expect::Later));
    assert_eq!(end.expect_err("a reset").raw_os_error(), Some(libc::ECONNRESET));
}
