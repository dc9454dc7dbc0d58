//! After a 101: bytes in both directions, and no messages any more.

use std::future::poll_fn;
use std::time::Instant;

use super::Shard;
use super::connection::Inbound;
use crate::ring::{Expect, Outgoing, Size, Stream, Timer};

/// Passes bytes both ways until both sides have closed, one is broken, or nothing has moved for `idle`. Each side's close is passed on as such.
///
/// Returns how many bytes went to the first and to the second.
pub async fn tunnel(
    shard: &Shard,
    first: (&Stream, &mut Inbound),
    second: (&Stream, &mut Inbound),
    timer: &mut Timer,
    idle: std::time::Duration,
) -> (u64, u64) {
    let last_moved = std::cell::Cell::new(shard.now());
    let moved = |now: Instant| last_moved.set(now);
    let (to_first, to_second) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let forward = std::pin::pin!(pump(shard, first.1, first.0, second.0, &moved, &to_second));
    let backward = std::pin::pin!(pump(shard, second.1, second.0, first.0, &moved, &to_first));
    let mut both = std::pin::pin!(both(forward, backward));
    loop {
        let deadline = last_moved.get() + idle;
        match timer.within(deadline, both.as_mut()).await {
            Ok(()) => break,
            // Something moved meanwhile: the wait begins anew.
            Err(_) if last_moved.get() + idle > shard.now() => {}
            Err(_) => break,
        }
    }
    (to_first.get(), to_second.get())
}

/// Ready when both have ended, or one has failed.
fn both(
    mut first: impl Future<Output = Result<(), Broken>> + Unpin,
    mut second: impl Future<Output = Result<(), Broken>> + Unpin,
) -> impl Future<Output = ()> {
    let (mut first_done, mut second_done) = (false, false);
    poll_fn(move |cx| {
        let ends = [
            (!first_done).then(|| std::pin::Pin::new(&mut first).poll(cx)),
            (!second_done).then(|| std::pin::Pin::new(&mut second).poll(cx)),
        ];
        for (end, done) in ends.into_iter().zip([&mut first_done, &mut second_done]) {
            match end {
                Some(std::task::Poll::Ready(Ok(()))) => *done = true,
                Some(std::task::Poll::Ready(Err(Broken))) => return std::task::Poll::Ready(()),
                Some(std::task::Poll::Pending) | None => {}
            }
        }
        if first_done && second_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
}

/// One of the two connections is of no use any more.
struct Broken;

async fn pump(
    shard: &Shard,
    inbound: &mut Inbound,
    from: &Stream,
    to: &Stream,
    moved: &impl Fn(Instant),
    count: &std::cell::Cell<u64>,
) -> Result<(), Broken> {
    loop {
        if inbound.is_empty() && !inbound.fill(from, Size::Small).await.map_err(|_| Broken)? {
            return to.shutdown_write().await.map_err(|_| Broken);
        }
        moved(shard.now());
        let mut outgoing = match inbound.take_buf() {
            Some(buf) => Outgoing::new(Vec::new(), Some(buf), b""),
            None => {
                let bytes = inbound.bytes().to_vec();
                inbound.consume(bytes.len());
                Outgoing::new(bytes, None, b"")
            }
        };
        inbound.arm(from, Size::Small, Expect::Now);
        count.set(count.get() + outgoing.remaining() as u64);
        while outgoing.remaining() > 0 {
            let (sent, rest) = to.send(outgoing).await;
            sent.map_err(|_| Broken)?;
            moved(shard.now());
            outgoing = rest;
        }
    }
}
