//! Thousands of streams against each other while everything goes wrong that can.
//!
//! Two kinds of conversations share each ring. *Orderly* ones send what their plan says in both directions, and must receive exactly what the other
//! side's plan says. *Unruly* ones time out, reset, half-close, drop futures at any stage, hold buffers and are killed at random; their listener comes
//! and goes. There are too few buffers for all, and sometimes almost no room in the kernel's queues. At the end nothing may be left: no operation, buffer,
//! timer or descriptor.
//!
//! `TORTURE_SEED` replays a failure, `TORTURE_ROUNDS` goes on for longer.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::SystemTime;

use super::*;

const ROUNDS: u64 = 16;
const ORDERLY: u64 = 80;
const UNRULY: u64 = 120;
const SENT_MAX: u64 = 300_000;

#[test]
fn nothing_is_lost_and_nothing_is_left() {
    let from_env = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let nanos = || SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos().into();
    let seed = from_env("TORTURE_SEED").unwrap_or_else(nanos);
    for seed in (seed..).take(from_env("TORTURE_ROUNDS").unwrap_or(ROUNDS) as usize) {
        // Captured unless the test fails.
        println!("TORTURE_SEED={seed} TORTURE_ROUNDS=1");
        let before = descriptors();
        match seed % 4 {
            0 => two_rings(seed),
            _ => one_ring(seed),
        }
        assert_eq!(descriptors(), before);
    }
}

fn one_ring(seed: u64) {
    let (tell, hear) = channel();
    torture(seed, tell, hear);
}

fn two_rings(seed: u64) {
    let ((tell_left, hear_left), (tell_right, hear_right)) = (channel(), channel());
    let left = thread::spawn(move || torture(seed, tell_right, hear_left));
    let right = thread::spawn(move || torture(seed ^ u64::MAX, tell_left, hear_right));
    for side in [left, right] {
        if let Err(panic) = side.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Where orderly streams of one ring connect to, and how to wake it.
type Neighbour = (SockAddr, Doorbell);

/// One ring's share of a round. What it tells of itself it may hear back: then it is its own neighbour.
fn torture(seed: u64, tell: Sender<Neighbour>, hear: Receiver<Neighbour>) {
    let mut random = Random::new(seed);
    let (submissions, completions) = [(1, 2), (8, 16), (64, 128), (SUBMISSIONS, COMPLETIONS)][random.below(4) as usize];
    let (small, large) = (1 + random.below(64) as u16, random.below(9) as u16);
    let ring = Ring::with_queues(config(small, large), submissions, completions).expect("a ring");
    let world = Rc::new(World { executor: Executor::on(ring), alive: Cell::new(0), unruly: RefCell::default() });
    let (fd, address) = listening(1024);
    tell.send((address, world.ring().doorbell())).expect("somebody listens");
    let (address, bell) = hear.recv().expect("somebody tells");

    let orderly = Rc::new(Cell::new(0));
    world.spawn(serve_orderly(world.clone(), fd, orderly.clone()));
    for index in 0..ORDERLY {
        let (address, orderly) = (address.clone(), orderly.clone());
        world.spawn(open_orderly(world.clone(), random.below(1 << 40) << 8 | index, address, orderly));
    }
    let (flaky, flaky_address) = listening(16);
    world.spawn(serve_unruly(world.clone(), flaky, random.below(1 << 40)));
    for _ in 0..UNRULY {
        let seed = random.below(1 << 40);
        world.spawn_unruly(open_unruly(world.clone(), seed, flaky_address.clone(), bell.clone()));
    }
    world.spawn_unruly(exchange_datagrams(world.clone(), random.below(1 << 40)));
    world.spawn(kill(world.clone(), random.below(1 << 40)));
    world.executor.run(async {
        let mut timer = Timer::new(world.ring());
        while world.alive.get() > 0 {
            timer.sleep_until(Instant::now() + Duration::from_millis(1)).await;
        }
    });

    assert_eq!(orderly.get(), 4 * ORDERLY, "each of two ends sends and receives");
    world.executor.assert_idle();
}

struct World {
    executor: Executor,
    alive: Cell<usize>,
    unruly: RefCell<Vec<usize>>,
}

/// Counts a task down however it ends.
struct Alive(Rc<World>);

impl World {
    fn ring(&self) -> &Rc<Ring> {
        &self.executor.ring
    }

    fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) -> usize {
        self.alive.set(self.alive.get() + 1);
        let alive = Alive(self.clone());
        self.executor.spawn(async move {
            let _alive = alive;
            task.await;
        })
    }

    /// A task that may be killed at any time.
    fn spawn_unruly(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let id = self.spawn(task);
        self.unruly.borrow_mut().push(id);
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
    }
}

// === orderly ===

/// What one end of an orderly stream sends; both ends know both plans from the stream's number.
fn planned(stream: u64, end: u64) -> usize {
    let mut random = Random::new(stream * 2 + end);
    let most = [1, 100, 10_000, SENT_MAX][random.below(4) as usize];
    random.below(most) as usize
}

async fn open_orderly(world: Rc<World>, stream: u64, address: SockAddr, finished: Rc<Cell<u64>>) {
    let connected = Stream::connect(world.ring(), address).await.expect("somebody listens");
    send_all(&connected, &stream.to_le_bytes()).await.expect("somebody reads");
    converse(&world, connected, (stream, 0), Vec::new(), finished);
}

async fn serve_orderly(world: Rc<World>, fd: OwnedFd, finished: Rc<Cell<u64>>) {
    let mut listener = Listener::new(world.ring(), fd);
    for _ in 0..ORDERLY {
        let accepted = listener.accept().await.expect("a connection");
        let (inner, finished) = (world.clone(), finished.clone());
        world.spawn(async move {
            let mut first = Vec::new();
            while first.len() < size_of::<u64>() {
                let buf = accepted.receive(Size::Small, Expect::Now).await.expect("bytes").expect("a number");
                first.extend_from_slice(&buf);
            }
            let rest = first.split_off(size_of::<u64>());
            let stream = u64::from_le_bytes(first.try_into().expect("eight bytes"));
            converse(&inner, accepted, (stream, 1), rest, finished);
        });
    }
}

/// Sends and receives at once, in two tasks; `first` is what has been received already.
fn converse(world: &Rc<World>, stream: Stream, (id, end): (u64, u64), first: Vec<u8>, finished: Rc<Cell<u64>>) {
    let stream = Rc::new(stream);
    let (sender, sent) = (stream.clone(), finished.clone());
    let (mut random, ring) = (Random::new(id * 2 + end + 1), world.ring().clone());
    world.spawn(async move {
        let (whole, mut at) = (planned(id, end), 0);
        while at < whole {
            let len = (whole - at).min(1 + random.below(40_000) as usize);
            let mut outgoing = Outgoing::new(pattern(id * 2 + end, at, len), None, b"");
            at += len;
            match random.below(3) {
                0 => {
                    while outgoing.remaining() > 0 {
                        let (result, rest) = sender.send(outgoing).await;
                        result.expect("an orderly peer reads to the end");
                        outgoing = rest;
                    }
                }
                way => {
                    let for_good = way == 1;
                    let mut posted = if for_good { sender.post_for_good(outgoing) } else { sender.post(outgoing) };
                    // Sometimes it is all gone before anybody asks.
                    pause(&ring, random.below(3) as usize).await;
                    let (result, rest) = std::future::poll_fn(|cx| posted.poll_sent(cx)).await;
                    result.expect("an orderly peer reads to the end");
                    assert!(rest.remaining() == 0 && (for_good || rest.sent() == len));
                }
            }
            if random.one_in(8) {
                pause(&ring, 2).await;
            }
        }
        sender.shutdown_write().await.expect("connected");
        sent.set(sent.get() + 1);
    });
    let mut random = Random::new(id * 2 + end + 2);
    world.spawn(async move {
        let theirs = id * 2 + 1 - end;
        assert!(is_pattern(theirs, 0, &first), "stream {id} starts with other bytes");
        let mut at = first.len();
        loop {
            let size = Size::ALL[random.below(2) as usize];
            let expect = if random.one_in(2) { Expect::Now } else { Expect::Later };
            let Some(buf) = stream.receive(size, expect).await.expect("an orderly peer resets nothing") else { break };
            assert!(is_pattern(theirs, at, &buf), "stream {id} has other bytes from {at} on");
            at += buf.len();
        }
        assert_eq!(at, planned(id, 1 - end), "stream {id}");
        finished.set(finished.get() + 1);
    });
}

// === unruly ===

async fn open_unruly(world: Rc<World>, seed: u64, address: SockAddr, bell: Doorbell) {
    let mut random = Random::new(seed);
    let mut timer = Timer::new(world.ring());
    timer.sleep_until(Instant::now() + Duration::from_micros(random.below(30_000))).await;
    if random.one_in(3) {
        let (left, right) = pair(world.ring(), FAMILIES[random.below(2) as usize]);
        world.spawn_unruly(misbehave(world.clone(), left, random.below(1 << 40)));
        return misbehave(world, right, random.below(1 << 40)).await;
    }
    if random.one_in(2) {
        world.ring().knock(&bell);
    }
    let mut connecting = Box::pin(Stream::connect(world.ring(), address));
    let deadline = Instant::now() + Duration::from_micros(random.below(5000));
    if let Ok(Ok(stream)) = timer.within(deadline, &mut connecting).await {
        misbehave(world.clone(), stream, seed).await;
    }
}

/// Listens on `fd`, goes away in the middle of it, and comes back while anybody is left who might connect.
async fn serve_unruly(world: Rc<World>, fd: OwnedFd, seed: u64) {
    let mut random = Random::new(seed);
    let mut timer = Timer::new(world.ring());
    for _ in 0..8 {
        let mut listener = Listener::new(world.ring(), fd.try_clone().expect("descriptors are left"));
        let end = Instant::now() + Duration::from_micros(random.below(6000));
        loop {
            let mut accepting = Box::pin(listener.accept());
            let Ok(accepted) = timer.within(end, &mut accepting).await else { break };
            let Ok(stream) = accepted else { break };
            if !random.one_in(8) {
                world.spawn_unruly(misbehave(world.clone(), stream, random.below(1 << 40)));
            }
        }
        drop(listener);
        timer.sleep_until(Instant::now() + Duration::from_micros(random.below(1000))).await;
    }
}

/// All that unruly streams send, so that whatever memory the kernel should not have read shows.
const UNRULY_BYTE: u8 = 0xAA;

async fn misbehave(world: Rc<World>, stream: Stream, seed: u64) {
    static TAIL: [u8; 5000] = [UNRULY_BYTE; 5000];
    let mut random = Random::new(seed);
    let mut timer = Timer::new(world.ring());
    for _ in 0..random.below(20) {
        let size = Size::ALL[random.below(2) as usize];
        let expect = if random.one_in(2) { Expect::Now } else { Expect::Later };
        let soon = Instant::now() + Duration::from_micros(random.below(3000));
        let scale = random.below(19);
        let head = vec![UNRULY_BYTE; random.below(1 << scale) as usize];
        match random.below(8) {
            0 | 1 => {
                let Ok(Ok(Some(buf))) = timer.within(soon, stream.receive(size, expect)).await else { return };
                assert!(buf.iter().all(|byte| *byte == UNRULY_BYTE), "an unruly stream has foreign bytes");
                match random.below(3) {
                    0 => timer.sleep_until(soon).await,
                    1 => {
                        let outgoing = Outgoing::new(head, Some(buf), &TAIL);
                        let Ok((Ok(()), _)) = timer.within(soon, stream.send(outgoing)).await else { return };
                    }
                    _ => {}
                }
            }
            2 | 3 => {
                let tail = &TAIL[random.below(5000) as usize..];
                let Ok((Ok(()), _)) = timer.within(soon, stream.send(Outgoing::new(head, None, tail))).await else {
                    return;
                };
            }
            4 => {
                let mut receiving = stream.receive(size, expect);
                let mut sending = stream.send(Outgoing::new(head, None, b""));
                if random.one_in(2) {
                    pause(world.ring(), random.below(3) as usize).await;
                }
                if random.one_in(2) {
                    drop(sending);
                    sending = stream.send(Outgoing::new(Vec::new(), None, &TAIL));
                    let post = if random.one_in(2) { Stream::post } else { Stream::post_for_good };
                    let posted = post(&stream, Outgoing::new(vec![UNRULY_BYTE; 400_000], None, &TAIL));
                    pause(world.ring(), random.below(3) as usize).await;
                    drop(posted);
                }
                let _ = (poll_once(&mut receiving).is_ready(), poll_once(&mut sending).is_ready());
                if random.one_in(2) {
                    return drop((stream, receiving, sending));
                }
                return drop((sending, receiving, stream));
            }
            5 => drop(stream.shutdown_write().await),
            6 if random.one_in(4) => return stream.reset_on_close(),
            _ => timer.sleep_until(soon).await,
        }
    }
}

/// Two datagram sockets that check what they get, read by fits and starts, and are dropped with datagrams in them.
async fn exchange_datagrams(world: Rc<World>, seed: u64) {
    let mut random = Random::new(seed);
    let mut timer = Timer::new(world.ring());
    let bind = || Datagram::bind(world.ring(), (Ipv4Addr::LOCALHOST, 0).into(), 1 << 20).expect("a free port");
    for _ in 0..4 {
        let (here, mut there) = (bind(), bind());
        let to = there.local().expect("bound");
        for _ in 0..random.below(60) {
            let soon = Instant::now() + Duration::from_micros(random.below(500));
            if random.one_in(4) {
                let mut batch = Vec::new();
                let mut receiving = Box::pin(there.receive(&mut batch));
                let _ = timer.within(soon, &mut receiving).await;
                drop(receiving);
                for Received { bytes, segment, .. } in batch {
                    assert!(bytes.chunks(segment).all(|datagram| is_pattern(seed, 0, datagram)));
                }
            } else {
                let segment = 1 + random.below(1400) as u16;
                let len = random.below(64_000).min(60 * u64::from(segment)) as usize;
                let datagram = pattern(seed, 0, usize::from(segment));
                let bytes = datagram.iter().copied().cycle().take(len).collect();
                let _ = timer.within(soon, here.send(Packet { bytes, to, segment: Some(segment) })).await;
            }
        }
    }
}

/// Drops unruly tasks wherever they stand, until only it and those that nobody may kill are left.
async fn kill(world: Rc<World>, seed: u64) {
    let mut random = Random::new(seed);
    let mut timer = Timer::new(world.ring());
    for _ in 0..60 {
        timer.sleep_until(Instant::now() + Duration::from_micros(random.below(2000))).await;
        let victim = {
            let mut unruly = world.unruly.borrow_mut();
            if unruly.is_empty() {
                continue;
            }
            let place = random.below(unruly.len() as u64) as usize;
            unruly.swap_remove(place)
        };
        world.executor.cancel(victim);
    }
}
