//! What is remembered of one request, for the counters and the access log.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use super::access_log::{Closing, Opening, OpeningHead};
use super::counters::{ListenerCounters, add};
use super::relay::RelayFault;
use super::{Shard, clock};
use crate::ids::UpstreamId;
use crate::logic::http::forwarded::ClientText;
use crate::logic::http::request_id::RequestId;
use crate::logic::http::{ProblemKind, RequestHead};

/// See the module.
pub struct Record {
    pub started: Instant,
    pub status: Option<u16>,
    /// Bytes of the request's head. Not zero once it is read, or is refused.
    pub received: u64,
    /// Bytes of content that went on to the upstream.
    pub uploaded: Cell<u64>,
    /// Bytes that went to the client.
    pub sent: Cell<u64>,
    pub upstream: Option<UpstreamId>,
    /// Which endpoint of the upstream, as the plan lists them.
    pub endpoint: Option<u16>,
    pub attempts: u32,
    pub problem: Option<ProblemKind>,
    /// Why the client had no whole response.
    pub cut: Option<Cut>,
    pub id: Id,
    /// The client speaks gRPC, and is told of problems in its way.
    pub grpc: bool,
    line: Option<Vec<u8>>,
}

/// Who or what kept a client from having a whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It went away.
    ClientGone,
    /// It took nothing of the response for too long.
    ClientStalled,
    /// Nothing moved in its tunnel for too long.
    TunnelIdle,
    /// What it would have been told, had it not got some of the response already.
    Untold(ProblemKind),
}

impl Cut {
    /// By what befell a response on its way to the client.
    pub fn of_download(fault: &RelayFault) -> Self {
        match fault {
            RelayFault::SinkClosed => Self::ClientGone,
            RelayFault::SinkStalled => Self::ClientStalled,
            RelayFault::SourceClosed => Self::Untold(ProblemKind::UpstreamReset),
            RelayFault::SourceStalled => Self::Untold(ProblemKind::UpstreamTimeout),
            RelayFault::SourceMalformed(_) | RelayFault::TooLong => Self::Untold(ProblemKind::BadUpstreamResponse),
            RelayFault::Deadline => Self::Untold(ProblemKind::DeadlineExceeded),
        }
    }

    /// In Envoy's vocabulary, where a stream that is idle for too long is `SI`.
    fn flags(self) -> &'static str {
        match self {
            Self::ClientGone => "DC",
            Self::ClientStalled | Self::TunnelIdle => "SI",
            Self::Untold(problem) => problem.flags(),
        }
    }

    fn slug(self) -> &'static str {
        match self {
            Self::ClientGone => "client-gone",
            Self::ClientStalled => "client-stalled",
            Self::TunnelIdle => "tunnel-idle",
            Self::Untold(problem) => problem.slug(),
        }
    }

    fn counter(self, counters: &ListenerCounters) -> &Cell<u64> {
        match self {
            Self::ClientGone | Self::ClientStalled => &counters.cut_by_client,
            Self::TunnelIdle | Self::Untold(ProblemKind::DeadlineExceeded) => &counters.cut_by_deadline,
            Self::Untold(problem) if problem.status() < 500 => &counters.cut_by_client,
            Self::Untold(_) => &counters.cut_by_upstream,
        }
    }
}

/// The id of a request: one of ours, or one that a trusted peer gave.
pub enum Id {
    Ours(RequestId),
    Given(Vec<u8>),
}

impl Id {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ours(id) => id.as_bytes(),
            Self::Given(bytes) => bytes,
        }
    }
}

impl Record {
    pub fn new(shard: &Shard) -> Self {
        Self {
            started: shard.now(),
            status: None,
            received: 0,
            uploaded: Cell::new(0),
            sent: Cell::new(0),
            upstream: None,
            endpoint: None,
            attempts: 0,
            problem: None,
            cut: None,
            id: Id::Ours(shard.next_request_id()),
            grpc: false,
            line: None,
        }
    }

    /// Begins the line of the access log, while the head's bytes are there.
    pub fn open(&mut self, shard: &Shard, listener: &str, client: &ClientText, head: &RequestHead<'_>) {
        let head = OpeningHead {
            method: head.method.as_str(),
            host: head.host,
            path: head.target,
            version: head.version.as_str(),
        };
        self.begin_line(shard, listener, client, Some(head));
    }

    /// Notes that the request is refused. Where that is for its head, whoever is given the request's id finds it in the log all the same; what such a
    /// head says is not repeated there.
    pub fn refuse(&mut self, shard: &Shard, listener: &str, client: &ClientText, unread: usize) {
        if self.received == 0 {
            self.received = unread as u64;
            self.begin_line(shard, listener, client, None);
        }
    }

    fn begin_line(&mut self, shard: &Shard, listener: &str, client: &ClientText, head: Option<OpeningHead<'_>>) {
        let Some(log) = &shard.access_log else { return };
        let mut line = shard.spare();
        let opening = Opening {
            at: clock::wall(),
            client: client.as_str(),
            listener,
            request_id: str::from_utf8(self.id.as_bytes()).expect("hexadecimal digits, or copied from a str"),
            head,
        };
        log.open(&mut line, &opening);
        self.line = Some(line);
    }

    /// Counts the request and ends its line.
    pub fn finish(&mut self, shard: &Rc<Shard>, counters: &ListenerCounters) {
        if let Id::Given(bytes) = &mut self.id {
            shard.give_back(std::mem::take(bytes));
        }
        let (received, sent) = (self.received + self.uploaded.get(), self.sent.get());
        add(&counters.bytes_received, received);
        add(&counters.bytes_sent, sent);
        match self.status {
            Some(..200) => add(&counters.responses_1xx, 1),
            Some(200..300) => add(&counters.responses_2xx, 1),
            Some(300..400) => add(&counters.responses_3xx, 1),
            Some(400..500) => add(&counters.responses_4xx, 1),
            Some(500..) => add(&counters.responses_5xx, 1),
            None => {}
        }
        if let Some(cut) = self.cut {
            add(cut.counter(counters), 1);
        }
        let (Some(log), Some(mut line)) = (&shard.access_log, self.line.take()) else { return };
        let upstream = self.upstream.map(|id| &shard.plan.upstreams[id.index()]);
        let endpoint =
            upstream.zip(self.endpoint).map(|(plan, index)| plan.endpoints[usize::from(index)].authority.as_str());
        // A client that was told of a problem may have left while it was told: the problem came first.
        let (problem, flags) = match (self.problem, self.cut) {
            (Some(problem), _) => (Some(problem.slug()), problem.flags()),
            (None, Some(cut)) => (Some(cut.slug()), cut.flags()),
            (None, None) => (None, "-"),
        };
        let closing = Closing {
            status: self.status,
            received,
            sent,
            duration: shard.now() - self.started,
            upstream: upstream.map(|plan| plan.name.as_str()),
            endpoint,
            attempts: self.attempts,
            problem,
            flags,
        };
        add(&shard.counters.shard.dropped_log_lines, log.close(&mut line, &closing));
        shard.give_back(line);
    }
}
