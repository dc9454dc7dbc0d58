//! The complete list of what may cross from one thread to another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{ClientConfig, ServerConfig};

use crate::ids::{ListenerId, ShardId, UpstreamId};

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
    /// From now on clients of the listener get to see other certificates, or theirs are verified otherwise.
    ListenerTls { listener: ListenerId, config: Arc<ServerConfig> },
    /// From now on the upstream is spoken to another way; the certificate that it is shown ends at `not_after`.
    UpstreamTls { upstream: UpstreamId, config: Arc<ClientConfig>, not_after: Option<SystemTime> },
    /// The state of the files that certificates came from; the latest counts.
    Certificates(Arc<CertificateReport>),
}

/// What there is to tell about the files of certificates, for metrics.
#[derive(Debug, Default)]
pub struct CertificateReport {
    /// Files that took the place of what they said before, ever.
    pub renewed: u64,
    /// Files that had changed and were of no use, ever.
    pub refused: u64,
    /// When the certificate that each file begins with ends.
    pub not_after: Vec<(PathBuf, SystemTime)>,
}

#[derive(Debug)]
pub enum News {
    /// What a look-up of an endpoint's name found; a failed look-up is not told, the last good answer stays.
    Resolved { upstream: UpstreamId, endpoint: u16, addresses: Box<[SocketAddr]> },
}
