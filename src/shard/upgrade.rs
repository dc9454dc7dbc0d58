//! After a 101: bytes in both directions, and no messages any more.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Shard;
use super::connection::{Connection, Inbound};
use super::transport::Transport;
use crate::ring::{Expect, Outgoing, Size, Timer};

/// Passes bytes both ways until both sides have closed, one is broken, or nothing has moved for `idle`. Each side's close is passed on as such.
///
/// Returns how many bytes went to the first and to the second.
pub async fn tunnel(
    shard: &Shard,
    first: &mut Connection,
    second: &mut Connection,
    timer: &mut Timer,
    idle: Duration,
) -> (u64, u64) {
    let last_moved = Cell::new(shard.now());
    let (to_first, to_second) = (Cell::new(0), Cell::new(0));
    let forward = pin!(pump(shard, (&first.transport, &mut first.inbound), &second.transport, &last_moved, &to_second));
    let backward =
        pin!(pump(shard, (&second.transport, &mut second.inbound), &first.transport, &last_moved, &to_first));
    let mut both = pin!(both(forward, backward));
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
    mut first: Pin<&mut impl Future<Output = Result<(), Broken>>>,
    mut second: Pin<&mut impl Future<Output = Result<(), Broken>>>,
) -> impl Future<Output = ()> {
    let (mut first_done, mut second_done) = (false, false);
    poll_fn(move |cx| {
        if !first_done && let Poll::Ready(end) = first.as_mut().poll(cx) {
            first_done = true;
            second_done |= end.is_err();
        }
        if !second_done && let Poll::Ready(end) = second.as_mut().poll(cx) {
            second_done = true;
            first_done |= end.is_err();
        }
        if first_done && second_done { Poll::Ready(()) } else { Poll::Pending }
    })
}

/// One of the two connections is of no use any more.
struct Broken;

async fn pump(
    shard: &Shard,
    (from, inbound): (&Transport, &mut Inbound),
    to: &Transport,
    last_moved: &Cell<Instant>,
    count: &Cell<u64>,
) -> Result<(), Broken> {
    loop {
        if inbound.is_empty() && !inbound.fill(from, Size::Small).await.map_err(|_| Broken)? {
            return to.shutdown_write().await.map_err(|_| Broken);
        }
        let outgoing = match inbound.take_buf() {
            Some(buf) => Outgoing::new(Vec::new(), Some(buf), b""),
            None => {
                let bytes = inbound.bytes().to_vec();
                inbound.consume(bytes.len());
                Outgoing::new(bytes, None, b"")
            }
        };
        inbound.arm(from, Size::Small, Expect::Now);
        count.set(count.get() + outgoing.remaining() as u64);
        let mut bytes = to.seal(outgoing).map_err(|_| Broken)?.bytes;
        while bytes.remaining() > 0 {
            last_moved.set(shard.now());
            let (sent, rest) = to.stream.send(bytes).await;
            sent.map_err(|_| Broken)?;
            bytes = rest;
        }
        last_moved.set(shard.now());
    }
}
