//! The ring against real sockets, driven by the smallest executor there is.

mod buffers;
mod cancel;
mod datagrams;
mod doorbells;
mod listeners;
mod posts;
mod queues;
mod streams;
mod timers;
mod torture;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::{Domain, SockAddr, Socket as Plain, Type};

use super::*;

const COUNTS: BufferCounts = BufferCounts { small: 64, large: 16 };

fn config(small: u16, large: u16) -> RingConfig {
    RingConfig { buffers: BufferCounts { small, large }, clock: Instant::now }
}

/// Tasks on one ring: polls who is ready, then turns the ring.
struct Executor {
    ring: Rc<Ring>,
    tasks: RefCell<Slab<Option<BoxedTask>>>,
    ready: Arc<Ready>,
    started: Instant,
    /// Ends every wait now and then, so that a lost wake-up fails a test instead of stopping it.
    watchdog: RefCell<Timer>,
}

type BoxedTask = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Default)]
struct Ready(Mutex<VecDeque<usize>>);

struct TaskWaker {
    ready: Arc<Ready>,
    id: usize,
}

/// The future given to [`Executor::run`], among the ids of tasks.
const MAIN: usize = usize::MAX;
/// Far beyond what any test takes.
const PATIENCE: Duration = Duration::from_secs(300);

impl Executor {
    fn new() -> Self {
        Self::on(Ring::new(RingConfig { buffers: COUNTS, clock: Instant::now }).expect("a ring"))
    }

    fn with_buffers(small: u16, large: u16) -> Self {
        Self::on(Ring::new(config(small, large)).expect("a ring"))
    }

    fn on(ring: Rc<Ring>) -> Self {
        let watchdog = RefCell::new(Timer::new(&ring));
        Self { ring, tasks: RefCell::default(), ready: Arc::default(), started: Instant::now(), watchdog }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> usize {
        let id = self.tasks.borrow_mut().insert(Some(Box::pin(task)));
        self.ready.push(id);
        id
    }

    /// Drops a task wherever it stands. One that has ended is left alone.
    fn cancel(&self, id: usize) {
        let task = self.tasks.borrow_mut().get_mut(id).and_then(Option::take);
        drop(task);
    }

    fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        self.ready.push(MAIN);
        loop {
            while let Some(id) = self.ready.pop() {
                if id == MAIN {
                    let waker = self.waker(MAIN);
                    if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return output;
                    }
                } else {
                    self.poll_task(id);
                }
            }
            self.turn(Wait::UntilEvent);
            self.ring.answer_door();
        }
    }

    /// Lets everything run that can run without an event that is yet to come.
    fn settle(&self) {
        let mut idle = 0;
        while idle < 3 {
            while let Some(id) = self.ready.pop() {
                self.poll_task(id);
            }
            idle = if self.turn(Wait::No) == 0 { idle + 1 } else { 0 };
        }
    }

    fn turn(&self, wait: Wait) -> usize {
        assert!(self.started.elapsed() < PATIENCE, "stuck: {:?}", self.ring.usage());
        let soon = self.ring.now() + PATIENCE / 10;
        let polled = self.watchdog.borrow_mut().poll_expired(soon, &mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        let came = self.ring.turn(wait).expect("a turn");
        // Virtual time may pass in leaps, but not within a wait.
        assert!(wait == Wait::No || self.ring.now() < soon, "the watchdog ended the wait: a wake-up was lost");
        came
    }

    /// Whether nothing is left: no operation, buffer or timer but the watchdog.
    fn assert_idle(&self) {
        self.settle();
        while self.ring.usage().operations > 0 {
            self.turn(Wait::UntilEvent);
        }
        let RingUsage { operations, buffers, timers, .. } = self.ring.usage();
        assert_eq!((operations, buffers, timers), (0, 0, 1), "(operations, buffers, timers)");
    }

    fn poll_task(&self, id: usize) {
        let Some(mut task) = self.tasks.borrow_mut().get_mut(id).and_then(Option::take) else { return };
        let waker = self.waker(id);
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            self.tasks.borrow_mut()[id] = Some(task);
        }
    }

    fn waker(&self, id: usize) -> Waker {
        Arc::new(TaskWaker { ready: self.ready.clone(), id }).into()
    }
}

impl Ready {
    fn push(&self, id: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(id);
    }

    fn pop(&self) -> Option<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.id);
    }
}

/// Polls once, for tests that look at one stage of a future.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets the other tasks run and the ring turn, `times` times.
async fn pause(ring: &Rc<Ring>, times: usize) {
    for _ in 0..times {
        let mut polled = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut polled, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        ring.turn(Wait::No).expect("a turn");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Tcp,
    Unix,
}

const FAMILIES: [Family; 2] = [Family::Tcp, Family::Unix];

/// Two connected streams of one ring.
fn pair(ring: &Rc<Ring>, family: Family) -> (Stream, Stream) {
    let (left, right) = plain_pair(family);
    (Stream::new(ring, left), Stream::new(ring, right))
}

/// A stream of the ring, and its peer outside of it.
fn half_pair(ring: &Rc<Ring>) -> (Stream, std::net::TcpStream) {
    let (left, right) = plain_pair(Family::Tcp);
    (Stream::new(ring, left), right.into())
}

fn plain_pair(family: Family) -> (OwnedFd, OwnedFd) {
    match family {
        Family::Unix => {
            let (left, right) = UnixStream::pair().expect("a pair of sockets");
            (left.into(), right.into())
        }
        Family::Tcp => {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let left = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
            left.set_nodelay(true).expect("a TCP option");
            (left.into(), listener.accept().expect("connected above").0.into())
        }
    }
}

/// A listening socket on loopback, and where.
fn listening(backlog: i32) -> (OwnedFd, SockAddr) {
    let socket = Plain::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    socket.listen(backlog).expect("bound above");
    let address = socket.local_addr().expect("bound above");
    (socket.into(), address)
}

async fn send_all(stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let mut outgoing = Outgoing::new(bytes.to_vec(), None, b"");
    while outgoing.remaining() > 0 {
        let (sent, rest) = stream.send(outgoing).await;
        sent?;
        outgoing = rest;
    }
    Ok(())
}

async fn receive_exact(stream: &Stream, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let buf = stream.receive(Size::Small, Expect::Later).await.expect("bytes").expect("no end yet");
        bytes.extend_from_slice(&buf);
    }
    assert_eq!(bytes.len(), count, "more came than was sent");
    bytes
}

async fn receive_exact_or_more(stream: &Stream, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        bytes.extend_from_slice(&stream.receive(Size::Small, Expect::Later).await.expect("bytes").expect("no end"));
    }
    bytes
}

async fn receive_to_end(stream: &Stream, size: Size) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(buf) = stream.receive(size, Expect::Later).await? {
        bytes.extend_from_slice(&buf);
    }
    Ok(bytes)
}

/// The length of the cycle that all patterns are cut from: prime, so that no power of two and no length of a buffer divides it.
const CYCLE: usize = 65_521;

/// Bytes that tell where in which stream they belong.
fn pattern(stream: u64, offset: usize, count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let part = pattern_part(stream, offset + bytes.len());
        bytes.extend_from_slice(&part[..part.len().min(count - bytes.len())]);
    }
    bytes
}

/// Whether `bytes` are those of `stream` from `offset` on.
fn is_pattern(stream: u64, offset: usize, bytes: &[u8]) -> bool {
    bytes.is_empty() || {
        let part = pattern_part(stream, offset);
        let (here, rest) = bytes.split_at(part.len().min(bytes.len()));
        part.starts_with(here) && is_pattern(stream, offset + here.len(), rest)
    }
}

fn pattern_part(stream: u64, offset: usize) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut random = Random::new(1);
        (0..CYCLE).map(|_| random.below(256) as u8).collect()
    });
    let start = (stream as usize % CYCLE * 7919 + offset) % CYCLE;
    &bytes[start..]
}

/// xorshift64*: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// The descriptors open now. The first call gives the calling thread an empty table of its own (and the threads that it starts from then on), so
/// that tests that run beside do not show in it.
fn descriptors() -> BTreeSet<String> {
    thread_local!(static OWN_TABLE: Cell<bool> = const { Cell::new(false) });
    if !OWN_TABLE.replace(true) {
        let after_stderr = libc::STDERR_FILENO as u32 + 1;
        // SAFETY: takes no pointers; what is closed is so in the new table only, and nothing that this thread has opened is in there yet.
        let result = unsafe { libc::syscall(libc::SYS_close_range, after_stderr, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
        assert_eq!(result, 0, "a table of one's own");
    }
    let entries = std::fs::read_dir("/proc/thread-self/fd").expect("procfs");
    let names = entries.map(|entry| entry.expect("an entry").path());
    // The directory's own descriptor is gone by the time its link is read.
    names.filter(|path| path.read_link().is_ok()).map(|path| format!("{path:?} {:?}", path.read_link())).collect()
}
