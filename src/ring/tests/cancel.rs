//! Futures dropped at every stage: before they are submitted, in the kernel, and done but not looked at.

use std::io::Write;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Stage {
    Queued,
    InKernel,
    Done,
}

const STAGES: [Stage; 3] = [Stage::Queued, Stage::InKernel, Stage::Done];

/// Makes a future, brings it to each stage, drops it there, and looks what is left.
fn drop_at_every_stage<F>(name: &str, begin: impl Fn(&Executor) -> (F, Box<dyn FnOnce()>)) {
    for stage in STAGES {
        let before = descriptors();
        let executor = Executor::with_buffers(4, 2);
        let (future, finish) = begin(&executor);
        match stage {
            Stage::Queued => drop((future, finish)),
            Stage::InKernel => {
                executor.settle();
                drop((future, finish));
            }
            Stage::Done => {
                executor.settle();
                finish();
                executor.settle();
                drop(future);
            }
        }
        executor.assert_idle();
        drop(executor);
        assert_eq!(descriptors(), before, "{name} {stage:?}");
    }
}

/// Polls `future` once with a waker that nobody looks at.
fn begun<T: 'static>(future: impl Future<Output = T> + 'static) -> Pin<Box<dyn Future<Output = T>>> {
    let mut future: Pin<Box<dyn Future<Output = T>>> = Box::pin(future);
    assert!(poll_once(&mut future).is_pending());
    future
}

#[test]
fn a_receive() {
    for size in Size::ALL {
        drop_at_every_stage("receive", |executor| {
            let (stream, mut peer) = half_pair(&executor.ring);
            let finish = move || peer.write_all(b"too late").expect("room");
            (stream.receive(size, Expect::Later), Box::new(finish))
        });
    }
}

#[test]
fn a_receive_that_is_parked() {
    drop_at_every_stage("parked receive", |executor| {
        let (filler, mut filler_peer) = half_pair(&executor.ring);
        let mut held = Vec::new();
        for _ in 0..4 {
            filler_peer.write_all(b"x").expect("room");
            held.push(executor.run(filler.receive(Size::Small, Expect::Now)));
        }
        let (stream, mut peer) = half_pair(&executor.ring);
        peer.write_all(b"more").expect("room");
        ((stream.receive(Size::Small, Expect::Now), held, peer), Box::new(|| {}))
    });
}

#[test]
fn a_send_of_one_part_and_of_several() {
    for parts in [1, 3] {
        drop_at_every_stage("send", |executor| {
            let (stream, peer) = half_pair(&executor.ring);
            let (source, mut source_peer) = half_pair(&executor.ring);
            source_peer.write_all(&[3; 5000]).expect("room");
            let content = executor.run(source.receive(Size::Small, Expect::Now)).expect("bytes");
            // Fills the socket, so that the send that is dropped waits.
            while stream.socket.as_socket2().send_with_flags(&[1; 60_000], libc::MSG_DONTWAIT).is_ok() {}
            let content = content.filter(|_| parts > 1);
            let sending = stream.send(Outgoing::new(vec![2; 100_000], content, if parts > 1 { b"tail" } else { b"" }));
            (sending, Box::new(move || drop(peer)))
        });
    }
}

#[test]
fn a_post() {
    for for_good in [false, true] {
        drop_at_every_stage("post", |executor| {
            let (stream, peer) = half_pair(&executor.ring);
            let outgoing = Outgoing::new(vec![2; 9_000_000], None, b"tail");
            let posted = if for_good { stream.post_for_good(outgoing) } else { stream.post(outgoing) };
            (posted, Box::new(move || drop(peer)))
        });
    }
}

#[test]
fn a_connect() {
    drop_at_every_stage("connect", |executor| {
        let (listener, address) = listening(8);
        let ring = executor.ring.clone();
        let connecting = begun(async move { Stream::connect(&ring, address).await });
        ((connecting, listener), Box::new(|| {}))
    });
}

#[test]
fn a_connect_that_hangs_on_a_full_backlog() {
    let path = std::env::temp_dir().join(format!("ring-backlog-{}", std::process::id()));
    drop_at_every_stage("connect", |executor| {
        let _ = std::fs::remove_file(&path);
        let listener = Plain::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        let address = SockAddr::unix(&path).expect("a short path");
        listener.bind(&address).expect("removed above");
        listener.listen(0).expect("bound");
        let ring = executor.ring.clone();
        let connecting: Vec<_> = (0..6)
            .map(|_| {
                let (ring, address) = (ring.clone(), address.clone());
                begun(async move { Stream::connect(&ring, address).await })
            })
            .collect();
        (connecting, Box::new(move || drop(listener)))
    });
    let _ = std::fs::remove_file(&path);
}

#[test]
fn an_accept() {
    drop_at_every_stage("accept", |executor| {
        let (fd, address) = listening(8);
        let mut listener = Listener::new(&executor.ring, fd);
        let accepting = begun(async move { listener.accept().await });
        let connect = move || {
            let peer = std::net::TcpStream::connect(address.as_socket().expect("TCP")).expect("somebody listens");
            drop(peer);
        };
        (accepting, Box::new(connect))
    });
}

#[test]
fn a_receive_and_a_send_of_datagrams() {
    drop_at_every_stage("datagrams", |executor| {
        let anywhere = (Ipv4Addr::LOCALHOST, 0).into();
        let mut socket = Datagram::bind(&executor.ring, anywhere, 1 << 20).expect("a free port");
        let to = socket.local().expect("bound");
        let sending = socket.send(Packet { bytes: b"to self".to_vec(), to, segment: None });
        let receiving = begun(async move {
            let mut batch = Vec::new();
            socket.receive(&mut batch).await.map(|()| batch)
        });
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let finish = move || assert_eq!(peer.send_to(b"hello", to).expect("room"), 5);
        ((sending, receiving), Box::new(finish))
    });
}

#[test]
fn a_sleep_and_a_receive_within_a_deadline() {
    drop_at_every_stage("timer", |executor| {
        let (stream, mut peer) = half_pair(&executor.ring);
        let mut timer = Timer::new(&executor.ring);
        let far = executor.ring.now() + PATIENCE;
        let sleeping = begun(async move { timer.sleep_until(far).await });
        let mut timer = Timer::new(&executor.ring);
        let waiting = begun(async move { timer.within(far, stream.receive(Size::Small, Expect::Later)).await });
        ((sleeping, waiting), Box::new(move || peer.write_all(b"x").expect("room")))
    });
}

#[test]
fn a_knock() {
    drop_at_every_stage("knock", |executor| {
        let other = Ring::new(config(1, 1)).expect("a ring");
        executor.ring.knock(&other.doorbell());
        (other, Box::new(|| {}))
    });
}

#[test]
fn bytes_sent_before_a_send_is_given_up_are_a_prefix() {
    let executor = Executor::new();
    let (left, right) = pair(&executor.ring, Family::Tcp);
    let whole = pattern(9, 0, 9_000_000);
    let sending = left.send(Outgoing::new(whole.clone(), None, b""));
    executor.settle();
    drop(sending);
    drop(left);
    let received = executor.run(receive_to_end(&right, Size::Large)).expect("in order");
    assert!(whole.starts_with(&received));
}

#[test]
fn a_cancel_does_not_hit_the_next_user_of_its_slot() {
    let executor = Executor::new();
    let (left, mut left_peer) = half_pair(&executor.ring);
    let (right, mut right_peer) = half_pair(&executor.ring);
    for round in 0..200u8 {
        let first = left.receive(Size::Small, Expect::Now);
        executor.turn(Wait::No);
        // The completion is there when the cancel is queued, and the slot is free when the cancel runs.
        left_peer.write_all(&[round]).expect("room");
        drop(first);
        executor.turn(Wait::No);
        let second = right.receive(Size::Small, Expect::Later);
        executor.turn(Wait::No);
        right_peer.write_all(&[round]).expect("room");
        assert_eq!(executor.run(second).expect("not cancelled").as_deref(), Some(&[round][..]));
    }
    executor.assert_idle();
}

#[test]
fn a_dropped_ring_ends_what_is_in_flight() {
    let before = descriptors();
    let executor = Executor::new();
    let mut peers = Vec::new();
    for _ in 0..20 {
        let (stream, mut peer) = half_pair(&executor.ring);
        peer.write_all(&[1; 100]).expect("room");
        let content = executor.run(stream.receive(Size::Small, Expect::Now)).expect("bytes");
        while stream.socket.as_socket2().send_with_flags(&[1; 60_000], libc::MSG_DONTWAIT).is_ok() {}
        // In the kernel when the ring goes: a receive, and a send that holds a buffer of the same ring.
        drop(stream.receive(Size::Small, Expect::Later));
        drop(stream.send(Outgoing::new(vec![2; 1000], content, b"tail")));
        peers.push(peer);
    }
    let ring = Rc::downgrade(&executor.ring);
    drop(executor);
    assert!(ring.upgrade().is_none());
    drop(peers);
    assert_eq!(descriptors(), before);
}

#[test]
fn what_outlives_the_executor_keeps_the_ring_and_then_ends_it() {
    let before = descriptors();
    let executor = Executor::new();
    let ring = Rc::downgrade(&executor.ring);
    let (stream, mut peer) = half_pair(&executor.ring);
    let receiving = stream.receive(Size::Small, Expect::Later);
    executor.settle();
    peer.write_all(b"x").expect("room");
    let (other, _other_peer) = half_pair(&executor.ring);
    let waiting = other.receive(Size::Small, Expect::Later);
    drop(executor);
    assert!(ring.upgrade().is_some());
    drop((receiving, stream, peer, waiting));
    drop((other, _other_peer));
    assert!(ring.upgrade().is_none());
    assert_eq!(descriptors(), before);
}

#[test]
fn quiesce_ends_everything_that_futures_still_wait_for() {
    let executor = Executor::with_buffers(0, 1);
    let (fd, address) = listening(8);
    let mut listener = Listener::new(&executor.ring, fd);
    let mut socket = Datagram::bind(&executor.ring, (Ipv4Addr::LOCALHOST, 0).into(), 1 << 20).expect("a free port");
    let (stream, _peer) = half_pair(&executor.ring);
    let ring = executor.ring.clone();
    executor.run(async {
        // One that is done, so that its slot is there without the kernel's doing.
        let connecting = begun(async move { Stream::connect(&ring, address).await });
        let (parked, waiting) = (stream.receive(Size::Small, Expect::Now), stream.receive(Size::Large, Expect::Later));
        let mut batch = Vec::new();
        let mut arriving = Box::pin(socket.receive(&mut batch));
        assert!(poll_once(&mut arriving).is_pending());
        assert!(poll_once(&mut Box::pin(listener.accept())).is_pending());
        executor.ring.turn(Wait::No).expect("a turn");
        assert!(executor.ring.quiesce(Duration::from_secs(60)));
        for receive in [parked, waiting] {
            assert_eq!(receive.await.expect_err("cancelled").raw_os_error(), Some(libc::ECANCELED));
        }
        assert_eq!(arriving.await.expect_err("cancelled").raw_os_error(), Some(libc::ECANCELED));
        drop(connecting);
    });
    drop((listener, socket, stream));
    executor.assert_idle();
}

/// A waker that calls back into the ring, as a task does that is dropped by being woken.
#[test]
fn wakers_may_use_the_ring() {
    struct Meddler(Mutex<Option<Box<dyn FnOnce()>>>);
    // SAFETY: the test has one thread.
    unsafe impl std::marker::Send for Meddler {}
    // SAFETY: as above.
    unsafe impl Sync for Meddler {}
    impl Wake for Meddler {
        fn wake(self: Arc<Self>) {
            let meddle = self.0.lock().expect("one thread").take();
            meddle.into_iter().for_each(|meddle| meddle());
        }
    }

    let executor = Executor::new();
    let (stream, mut peer) = half_pair(&executor.ring);
    let (other, _other_peer) = half_pair(&executor.ring);
    let victim = other.receive(Size::Small, Expect::Later);
    let mut timer = Timer::new(&executor.ring);
    let ring = executor.ring.clone();
    let meddle = move || {
        drop(victim);
        timer.clear();
        drop(other.receive(Size::Large, Expect::Now));
        drop((other, timer));
        ring.turn(Wait::No).expect("a turn within a turn");
        ring.usage();
    };
    let waker = Waker::from(Arc::new(Meddler(Mutex::new(Some(Box::new(meddle))))));
    let mut receiving = stream.receive(Size::Small, Expect::Later);
    assert!(Pin::new(&mut receiving).poll(&mut Context::from_waker(&waker)).is_pending());
    executor.settle();
    peer.write_all(b"x").expect("room");
    executor.settle();
    assert!(poll_once(&mut receiving).is_ready());
    drop(stream);
    executor.assert_idle();
}

#[test]
fn a_waker_that_panics_leaves_the_ring_usable() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("as planned");
        }
    }

    let executor = Executor::new();
    let (stream, mut peer) = half_pair(&executor.ring);
    let waker = Waker::from(Arc::new(Bomb));
    let mut receiving = stream.receive(Size::Small, Expect::Later);
    assert!(Pin::new(&mut receiving).poll(&mut Context::from_waker(&waker)).is_pending());
    peer.write_all(b"x").expect("room");
    // Another that is woken by the same turn, after the one that panics.
    let (other, mut other_peer) = half_pair(&executor.ring);
    let mut waiting = other.receive(Size::Small, Expect::Later);
    assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(&executor.waker(7))).is_pending());
    other_peer.write_all(b"y").expect("room");
    let turned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| executor.turn(Wait::No)));
    assert!(turned.is_err());
    executor.turn(Wait::UntilEvent);
    assert_eq!(executor.ready.pop(), Some(7));
    drop((waiting, other));
    assert_eq!(executor.run(receiving).expect("bytes").as_deref(), Some(&b"x"[..]));
    drop(stream);
    executor.assert_idle();
}

#[test]
fn a_ring_whose_clock_panics_while_it_is_dropped_leaks_what_the_kernel_may_use() {
    thread_local!(static BROKEN: Cell<bool> = const { Cell::new(false) });
    fn clock() -> Instant {
        assert!(!BROKEN.get(), "as planned");
        Instant::now()
    }

    let buffers = BufferCounts { small: 1, large: 1 };
    let ring = Ring::new(RingConfig { buffers, clock }).expect("a ring");
    let (stream, _peer) = half_pair(&ring);
    drop(stream.receive(Size::Small, Expect::Later));
    let socket = Rc::downgrade(&stream.socket);
    let memory = Rc::downgrade(&ring.buffers);
    BROKEN.set(true);
    drop((stream, ring));
    assert!(socket.upgrade().is_some() && memory.upgrade().is_some());
}
