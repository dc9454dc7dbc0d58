//! What it costs that threads meet: a hop from one thread to a ring that sleeps on another, by either way to knock, and a command alone.
//!
//! A hop is half of a round trip between two threads that both sleep in their rings, so most of it is the kernel's: the wake-up of a CPU. Each thread
//! has a CPU of its own, as shards have. Left to itself, the scheduler would put both on one for some wake-ups and not for others, and the benchmark
//! would show its choice and not the doorbells' cost.
#![expect(clippy::disallowed_methods, reason = "benchmarks read the clock")]

use std::hint::black_box;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use glommio::{LocalExecutorBuilder, Placement};
use postern::ids::ShardId;
use postern::mesh::{Control, INBOX_MESSAGES, Mesh, Message, Port};
use postern::ring::{BufferCounts, Ring, RingConfig, Wait};

const ASKER: ShardId = ShardId(0);
const ANSWERER: ShardId = ShardId(1);

/// How the receiver's ring is woken.
#[derive(Clone, Copy)]
enum Knock {
    /// As threads do that have no ring: a system call of its own.
    Eventfd,
    /// As shards do: with the sender's next turn, which also waits for the answer.
    MsgRing,
}

/// One thread's end of the mesh, and the ring that it sleeps in.
struct End {
    mesh: Mesh,
    port: Port,
    ring: Rc<Ring>,
    knock: Knock,
}

impl End {
    /// The end of the calling thread.
    fn new(mesh: &Mesh, id: ShardId, knock: Knock) -> Self {
        let buffers = BufferCounts { small: 1, large: 1 };
        let ring = Ring::new(RingConfig { buffers, clock: Instant::now }).expect("a ring");
        let port = mesh.join(id, ring.doorbell());
        Self { mesh: mesh.clone(), port, ring, knock }
    }

    fn send(&mut self, to: ShardId, control: Control) {
        match self.knock {
            Knock::Eventfd => self.mesh.command(to, control),
            Knock::MsgRing => self.port.command(&self.ring, to, control),
        }
    }

    /// The next message; sleeps in the ring until there is one.
    fn receive(&mut self) -> Control {
        loop {
            match self.port.receive() {
                Some(Message::Control(control)) => return control,
                Some(Message::News(news)) => panic!("nobody sends news here: {news:?}"),
                None => {
                    self.ring.turn(Wait::UntilEvent).expect("a turn");
                    self.ring.answer_door();
                }
            }
        }
    }

    /// Answers every question, until the drain.
    fn answer(mut self) {
        loop {
            match self.receive() {
                Control::Count { asker, question } => {
                    self.send(asker, Control::Counts { question, values: Box::default() });
                }
                Control::Drain => return,
                other => panic!("not a question: {other:?}"),
            }
        }
    }
}

/// Keeps the calling thread on the CPU of its shard's number. The executor pins the thread that makes it, and is not needed for more.
fn pin(id: ShardId) {
    let executor = LocalExecutorBuilder::new(Placement::Fixed(id.index())).io_memory(64 * 1024).make();
    drop(executor.expect("two CPUs, and io_uring allowed"));
}

fn hops(criterion: &mut Criterion) {
    pin(ASKER);
    let mut group = criterion.benchmark_group("mesh/hop");
    for (name, knock) in [("eventfd", Knock::Eventfd), ("msg_ring", Knock::MsgRing)] {
        let mesh = Mesh::new(2);
        let mut asker = End::new(&mesh, ASKER, knock);
        let answering = thread::spawn({
            let mesh = mesh.clone();
            move || {
                pin(ANSWERER);
                End::new(&mesh, ANSWERER, knock).answer();
            }
        });
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|hops| {
                let round_trips = hops.div_ceil(2);
                let start = Instant::now();
                for question in 0..round_trips {
                    asker.send(ANSWERER, Control::Count { asker: ASKER, question: question as u32 });
                    black_box(asker.receive());
                }
                // As many hops as were asked for, or one more.
                start.elapsed().mul_f64(hops as f64 / (2 * round_trips) as f64)
            });
        });
        mesh.command(ANSWERER, Control::Drain);
        answering.join().expect("no panic");
    }
    group.finish();
}

/// Without the receiver: an inbox is filled, and emptied off the clock. The first command of each filling queues a knock, the others find it pending.
fn commands(criterion: &mut Criterion) {
    let mesh = Mesh::new(2);
    let mut sender = End::new(&mesh, ASKER, Knock::MsgRing);
    let mut receiver = End::new(&mesh, ANSWERER, Knock::MsgRing);
    criterion.bench_function("mesh/command", |bencher| {
        bencher.iter_custom(|commands| {
            let (mut left, mut elapsed) = (commands, Duration::ZERO);
            while left > 0 {
                let filling = left.min(INBOX_MESSAGES as u64);
                let start = Instant::now();
                for question in 0..filling {
                    sender.send(ANSWERER, Control::Count { asker: ASKER, question: question as u32 });
                }
                elapsed += start.elapsed();
                left -= filling;
                assert!(!sender.port.is_blocked(), "no more was sent than an inbox takes");
                sender.ring.turn(Wait::No).expect("a turn");
                (0..filling).for_each(|_| drop(receiver.receive()));
                while !receiver.ring.answer_door() {
                    receiver.ring.turn(Wait::UntilEvent).expect("a turn");
                }
            }
            elapsed
        });
    });
}

criterion_group!(benches, hops, commands);
criterion_main!(benches);
