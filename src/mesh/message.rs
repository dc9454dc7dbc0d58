//! The complete list of what may cross from one thread to another.

use std::net::SocketAddr;

use crate::ids::{ShardId, UpstreamId};

/// Sent to a shard by another shard, or by a thread that is no shard.
#[derive(Debug)]
pub enum Message {
    /// Control is never lost.
    Control(Control),
    /// News may be dropped when the receiver is behind: it is idempotent, and the next of its kind makes up for it.
    News(News),
}

#[derive(Debug)]
pub enum Control {
    /// Every shard is ready: begin to accept.
    Open,
    /// Every shard accepts: say so to those who ask.
    Ready,
    /// Stop accepting, close what is idle, finish what is in flight, then end.
    Drain,
    /// Send a [`Counts`](Self::Counts) to the asker.
    Count { asker: ShardId, question: u32 },
    /// The answer to `question`: a shard's counters, in the order of their registry.
    Counts { question: u32, values: Box<[u64]> },
}

#[derive(Debug)]
pub enum News {
    /// What a look-up of an endpoint's name found; a failed look-up is not told, the last good answer stays.
    Resolved { upstream: UpstreamId, endpoint: u16, addresses: Box<[SocketAddr]> },
}
