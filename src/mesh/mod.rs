//! The only place where two threads meet.
//!
//! Each shard has one bounded inbox that every other thread may push to without a lock, and a doorbell that wakes the shard's ring. Whoever pushes
//! knocks; nobody polls. *News* that finds the inbox full is dropped and counted. *Control* that finds it full waits with its sender, in order, and is pushed
//! again at each of the sender's turns, so that it is delayed and never lost.
//!
//! This room knows no HTTP and no policy.

mod lane;
mod message;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

pub use lane::{Lane, LaneEnd, lane};
pub use message::{CertificateReport, Control, Message, News};

use crate::ids::ShardId;
use crate::ring::{Doorbell, Ring};

/// Messages that wait for one shard. At 40 bytes each a shard's inbox takes 40 KiB.
pub const INBOX_MESSAGES: usize = 1024;

struct Inbox {
    messages: ArrayQueue<Message>,
    dropped_news: AtomicU64,
    /// Known once the shard's ring exists.
    doorbell: OnceLock<Doorbell>,
}

/// The inboxes of all shards.
#[derive(Clone)]
pub struct Mesh(Arc<[Inbox]>);

impl Mesh {
    pub fn new(shards: usize) -> Self {
        let inbox = || Inbox {
            messages: ArrayQueue::new(INBOX_MESSAGES),
            dropped_news: AtomicU64::new(0),
            doorbell: OnceLock::new(),
        };
        Self((0..shards).map(|_| inbox()).collect())
    }

    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.0.len() as u16).map(ShardId)
    }

    /// The shard's own end. Messages sent before this call wait in the inbox, and are what the first knock announces.
    pub fn join(&self, id: ShardId, doorbell: Doorbell) -> Port {
        let inbox = &self.0[id.index()];
        let known = inbox.doorbell.set(doorbell);
        assert!(known.is_ok(), "a shard joins once");
        inbox.knock();
        Port { mesh: self.clone(), id, outbox: VecDeque::new() }
    }

    /// Sends news from a thread that is no shard.
    pub fn tell(&self, to: ShardId, news: News) {
        let inbox = &self.0[to.index()];
        match inbox.messages.push(Message::News(news)) {
            Ok(()) => inbox.knock(),
            Err(_) => inbox.count_drop(),
        }
    }

    /// Sends control from a thread that is no shard; waits while the inbox is full.
    pub fn command(&self, to: ShardId, control: Control) {
        let inbox = &self.0[to.index()];
        let mut message = Message::Control(control);
        while let Err(refused) = inbox.messages.push(message) {
            message = refused;
            inbox.knock();
            std::thread::park_timeout(FULL_INBOX_PAUSE);
        }
        inbox.knock();
    }
}

/// How long a thread that is no shard waits before it tries a full inbox again.
const FULL_INBOX_PAUSE: Duration = Duration::from_millis(1);

impl Inbox {
    /// A shard without a doorbell has not joined yet: joining knocks.
    fn knock(&self) {
        if let Some(doorbell) = self.doorbell.get() {
            doorbell.knock();
        }
    }

    fn count_drop(&self) {
        self.dropped_news.fetch_add(1, Ordering::Relaxed);
    }
}

/// One shard's end of the mesh.
pub struct Port {
    mesh: Mesh,
    id: ShardId,
    /// Control for full inboxes. Senders ask one question at a time per scrape, so it holds a few messages per shard.
    outbox: VecDeque<(ShardId, Message)>,
}

impl Port {
    pub fn id(&self) -> ShardId {
        self.id
    }

    pub fn shards(&self) -> usize {
        self.mesh.0.len()
    }

    /// The other shards.
    pub fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let own = self.id;
        self.mesh.shards().filter(move |id| *id != own)
    }

    /// What has arrived, oldest first.
    pub fn receive(&mut self) -> Option<Message> {
        self.mesh.0[self.id.index()].messages.pop()
    }

    /// Sends control. It is delivered, if not now then by [`flush`](Self::flush).
    pub fn command(&mut self, ring: &Ring, to: ShardId, control: Control) {
        self.outbox.push_back((to, Message::Control(control)));
        self.flush(ring);
    }

    /// Sends what waited for room. Called at each of the shard's turns while something waits.
    pub fn flush(&mut self, ring: &Ring) {
        // Once a shard has refused a message its later ones wait too, although it may have made room meanwhile: they stay in order.
        let mut refused = Vec::new();
        for _ in 0..self.outbox.len() {
            let Some((to, message)) = self.outbox.pop_front() else { return };
            if refused.contains(&to) {
                self.outbox.push_back((to, message));
                continue;
            }
            let inbox = &self.mesh.0[to.index()];
            if let Err(message) = inbox.messages.push(message) {
                self.outbox.push_back((to, message));
                refused.push(to);
            }
            if let Some(doorbell) = inbox.doorbell.get() {
                ring.knock(doorbell);
            }
        }
    }

    /// Whether control still waits for room somewhere. Nobody announces the room: the shard tries again at its next turn, for which its tick makes sure.
    pub fn is_blocked(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// News for this shard that found its inbox full, ever.
    pub fn dropped_news(&self) -> u64 {
        self.mesh.0[self.id.index()].dropped_news.load(Ordering::Relaxed)
    }
}

/// A count that all shards share, with a bound: so many and no more in the whole process.
#[derive(Clone)]
pub struct Gauge {
    count: Arc<AtomicU32>,
    limit: u32,
}

/// One of a [`Gauge`]'s count, given back when dropped.
pub struct Counted(Arc<AtomicU32>);

impl Gauge {
    pub fn new(limit: u32) -> Self {
        Self { count: Arc::new(AtomicU32::new(0)), limit }
    }

    /// One more, unless that is over the limit.
    pub fn enter(&self) -> Option<Counted> {
        if self.count.fetch_add(1, Ordering::Relaxed) < self.limit {
            return Some(Counted(self.count.clone()));
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::ids::UpstreamId;
    use crate::ring::{BufferCounts, RingConfig};

    fn ring() -> std::rc::Rc<Ring> {
        Ring::new(RingConfig { buffers: BufferCounts { small: 4, large: 1 }, clock: Instant::now }).expect("a ring")
    }

    fn news() -> News {
        News::Resolved { upstream: UpstreamId(0), endpoint: 0, addresses: Box::default() }
    }

    #[test]
    fn news_for_a_full_inbox_is_dropped_and_counted_while_control_waits_in_order() {
        let mesh = Mesh::new(2);
        let (ring, other) = (ring(), ring());
        let mut sender = mesh.join(ShardId(0), ring.doorbell());
        let mut receiver = mesh.join(ShardId(1), other.doorbell());
        for _ in 0..INBOX_MESSAGES + 3 {
            mesh.tell(ShardId(1), news());
        }
        assert_eq!(receiver.dropped_news(), 3);

        for question in 0..3 {
            sender.command(&ring, ShardId(1), Control::Count { asker: ShardId(0), question });
        }
        assert!(sender.is_blocked());
        while receiver.receive().is_some() {}
        sender.flush(&ring);
        assert!(!sender.is_blocked());
        let questions: Vec<_> = std::iter::from_fn(|| receiver.receive())
            .map(|message| match message {
                Message::Control(Control::Count { question, .. }) => question,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(questions, [0, 1, 2]);
    }

    #[test]
    fn what_was_sent_before_a_shard_joined_is_announced_when_it_joins() {
        let mesh = Mesh::new(1);
        mesh.command(ShardId(0), Control::Drain);
        let ring = ring();

        let mut port = mesh.join(ShardId(0), ring.doorbell());

        ring.turn(crate::ring::Wait::No).expect("a turn");
        assert!(ring.answer_door());
        assert!(matches!(port.receive(), Some(Message::Control(Control::Drain))));
    }

    #[test]
    fn a_full_inbox_holds_up_nobody_elses_messages() {
        let mesh = Mesh::new(3);
        let rings = [ring(), ring(), ring()];
        let mut sender = mesh.join(ShardId(0), rings[0].doorbell());
        let mut third = mesh.join(ShardId(2), rings[2].doorbell());
        for _ in 0..INBOX_MESSAGES {
            mesh.tell(ShardId(1), news());
        }

        sender.command(&rings[0], ShardId(1), Control::Drain);
        sender.command(&rings[0], ShardId(2), Control::Open);

        assert!(matches!(third.receive(), Some(Message::Control(Control::Open))));
        assert!(sender.is_blocked());
    }

    #[test]
    fn a_gauge_admits_its_limit_and_again_once_one_has_left() {
        let gauge = Gauge::new(2);
        let first = gauge.enter().expect("room");
        let _second = gauge.enter().expect("room");
        assert!(gauge.enter().is_none());
        drop(first);
        assert!(gauge.enter().is_some());
    }
}
