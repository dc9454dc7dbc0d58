//! After a 101: bytes in both directions, and no messages any more.
//!
//! Buffers are sent on from where they were received. Of WebSocket the frames are followed, so that a drain can end it by a Close frame to each side;
//! any other protocol goes on until the drain's time is up.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;

use super::connection::{Connection, Inbound};
use super::record::Cut;
use super::transport::Transport;
use super::{Phase, Shard};
use crate::logic::http::ProblemKind;
use crate::logic::websocket::{Passage, Passed, Sender, write_close};
use crate::ring::{Expect, Outgoing, Size, Timer};

/// How long peers may take to answer a drain's Close frames. They have nothing to do first, so this covers a slow network, and a peer that never
/// answers keeps no drain waiting.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What a 101 has switched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    WebSocket,
    Other,
}

impl Protocol {
    /// By its name in the response's `Upgrade`.
    pub fn named(name: &[u8]) -> Self {
        if name.eq_ignore_ascii_case(b"websocket") { Self::WebSocket } else { Self::Other }
    }
}

/// How long a tunnel may be still.
pub struct Patience {
    /// Nothing moves in either direction.
    pub idle: Duration,
    /// The client takes nothing of what there is for it.
    pub client: Duration,
    /// The upstream takes nothing of what there is for it.
    pub upstream: Duration,
}

/// What became of a tunnel.
pub struct Tunnelled {
    pub to_client: u64,
    pub to_upstream: u64,
    /// Why it was ended by us.
    pub cut: Option<Cut>,
    /// Both sides have said that this is all.
    pub is_whole: bool,
}

/// Passes bytes both ways until both sides have closed, one is broken, or something takes longer than it may. Each side's close is passed on as such.
pub async fn tunnel(
    shard: &Shard,
    protocol: Protocol,
    client: &mut Connection,
    upstream: &mut Connection,
    timer: &mut Timer,
    patience: &Patience,
) -> Tunnelled {
    let pace = Pace { last_moved: Cell::new(shard.now()), is_closing: Cell::new(false) };
    let (to_client, to_upstream) = (Flow::default(), Flow::default());
    let pump = |sender, from, inbound, to, flow| {
        let passage = (protocol == Protocol::WebSocket).then(|| Passage::new(sender));
        Pump { shard, sender, passage, from, inbound, to, pace: &pace, flow }
    };
    let upward = pump(Sender::Client, &client.transport, &mut client.inbound, &upstream.transport, &to_upstream);
    let downward = pump(Sender::Server, &upstream.transport, &mut upstream.inbound, &client.transport, &to_client);
    let (upward, downward) = (pin!(upward.run()), pin!(downward.run()));
    let mut both = pin!(both(upward, downward));
    let ended = poll_fn(|cx| {
        if let Poll::Ready(end) = both.as_mut().poll(cx) {
            return Poll::Ready(Ok(end));
        }
        let idle = if pace.is_closing.get() { patience.idle.min(CLOSE_PATIENCE) } else { patience.idle };
        let ends = [
            Some((pace.last_moved.get() + idle, Cut::TunnelIdle)),
            to_client.waiting_since.get().map(|since| (since + patience.client, Cut::ClientStalled)),
            to_upstream
                .waiting_since
                .get()
                .map(|since| (since + patience.upstream, Cut::Untold(ProblemKind::UpstreamTimeout))),
        ];
        let (at, cut) = ends.into_iter().flatten().min_by_key(|(at, _)| *at).expect("the first is always there");
        ready!(timer.poll_expired(at, cx));
        Poll::Ready(Err(cut))
    });
    let ended = ended.await;
    timer.clear();
    Tunnelled {
        to_client: to_client.sent.get(),
        to_upstream: to_upstream.sent.get(),
        // A drain has ended it; that a peer did not answer is no news.
        cut: ended.as_ref().err().copied().filter(|_| !pace.is_closing.get()),
        is_whole: matches!(ended, Ok(Ok(()))),
    }
}

/// Ready when both have ended, or one has failed.
fn both(
    mut first: Pin<&mut impl Future<Output = Result<(), Broken>>>,
    mut second: Pin<&mut impl Future<Output = Result<(), Broken>>>,
) -> impl Future<Output = Result<(), Broken>> {
    let (mut first_done, mut second_done) = (false, false);
    poll_fn(move |cx| {
        if !first_done && let Poll::Ready(end) = first.as_mut().poll(cx) {
            end?;
            first_done = true;
        }
        if !second_done && let Poll::Ready(end) = second.as_mut().poll(cx) {
            end?;
            second_done = true;
        }
        if first_done && second_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
}

/// One of the two connections is of no use any more.
struct Broken;

/// How both directions together get on.
struct Pace {
    last_moved: Cell<Instant>,
    /// A drain is ending the tunnel, and peers need only say goodbye.
    is_closing: Cell<bool>,
}

/// How one direction gets on.
#[derive(Default)]
struct Flow {
    /// Bytes that were handed over for its receiver.
    sent: Cell<u64>,
    /// Since when its receiver has taken nothing, while there is something for it.
    waiting_since: Cell<Option<Instant>>,
}

/// One direction. The only one who sends to its receiver.
struct Pump<'a> {
    shard: &'a Shard,
    sender: Sender,
    /// Where the frames are, if it is known what frames are.
    passage: Option<Passage>,
    from: &'a Transport,
    inbound: &'a mut Inbound,
    to: &'a Transport,
    pace: &'a Pace,
    flow: &'a Flow,
}

enum Next {
    /// Bytes have come, or the drain has while there are none.
    Bytes,
    /// The sender sends no more.
    End,
    /// The sender has said goodbye, and the gateway is leaving.
    Over,
}

impl Pump<'_> {
    async fn run(mut self) -> Result<(), Broken> {
        loop {
            match poll_fn(|cx| self.poll_next(cx)).await? {
                Next::Bytes => {}
                Next::End => return self.to.shutdown_write().await.map_err(|_| Broken),
                Next::Over => {
                    self.begin_closing();
                    return Ok(());
                }
            }
            let is_draining = self.is_draining();
            let bytes = self.inbound.bytes();
            let Passed { count, then_close } = match &mut self.passage {
                Some(passage) => passage.pass(bytes, is_draining),
                None => Passed { count: bytes.len(), then_close: false },
            };
            let outgoing = self.inbound.take(count);
            self.inbound.arm(self.from, Size::Small, Expect::Now);
            self.send(outgoing).await?;
            if then_close {
                let mut mask = [0; 4];
                // From where nobody can guess it (RFC 6455 section 5.3).
                rand::fill(&mut mask).expect("the generator has its seed since the process began");
                let mut close = Vec::new();
                write_close(&mut close, self.sender, mask);
                self.send(Outgoing::new(close, None, b"")).await?;
                self.begin_closing();
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broken>> {
        let drained = self.is_draining().then_some(self.passage.as_ref()).flatten();
        if drained.is_some_and(Passage::has_closed) {
            return Poll::Ready(Ok(Next::Over));
        }
        if !self.inbound.is_empty() {
            return Poll::Ready(Ok(Next::Bytes));
        }
        match self.inbound.poll_fill(self.from, Size::Small, cx) {
            Poll::Ready(Ok(true)) => Poll::Ready(Ok(Next::Bytes)),
            Poll::Ready(Ok(false)) => Poll::Ready(Ok(Next::End)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Broken)),
            Poll::Pending if drained.is_some_and(Passage::can_be_cut) => Poll::Ready(Ok(Next::Bytes)),
            Poll::Pending => Poll::Pending,
        }
    }

    async fn send(&self, outgoing: Outgoing) -> Result<(), Broken> {
        self.flow.sent.set(self.flow.sent.get() + outgoing.remaining() as u64);
        let mut bytes = self.to.seal(outgoing).map_err(|_| Broken)?.bytes;
        while bytes.remaining() > 0 {
            self.pace.last_moved.set(self.shard.now());
            self.flow.waiting_since.set(Some(self.shard.now()));
            let (sent, rest) = self.to.stream.send(bytes).await;
            sent.map_err(|_| Broken)?;
            bytes = rest;
            self.pace.last_moved.set(self.shard.now());
        }
        self.flow.waiting_since.set(None);
        Ok(())
    }

    fn is_draining(&self) -> bool {
        self.shard.phase() == Phase::Draining
    }

    /// From here on the tunnel is as idle as its peers are slow to say goodbye.
    fn begin_closing(&self) {
        self.pace.last_moved.set(self.shard.now());
        self.pace.is_closing.set(true);
    }
}
