//! What the operator asked for, resolved and frozen: everything is checked, every default is filled in, every name is
//! an index.
//!
//! A `Plan` is shared by all shards behind one `Arc` and never changes; a reload makes another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::pattern::PathPattern;
use super::secret::Text;
use crate::ids::{ListenerId, UpstreamId};

/// One configuration, ready to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// CPUs to run on, one shard each; never empty.
    pub cpus: Vec<usize>,
    /// How long a drain waits for what is in flight before it gives up.
    pub drain_timeout: Duration,
    /// How long a shard polls its ring before it sleeps; zero sleeps at once.
    pub busy_poll: Duration,
    pub log: LogPlan,
    pub access_log: Option<AccessLogPlan>,
    /// Never empty of non-admin listeners.
    pub listeners: Vec<ListenerPlan>,
    /// In the order of their names.
    pub upstreams: Vec<UpstreamPlan>,
    /// In the order of the file, which decides nothing: the most specific match wins.
    pub routes: Vec<RoutePlan>,
}

/// The operational log, on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlan {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// One line per finished request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogPlan {
    pub format: LogFormat,
    pub target: AccessLogTarget,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    Stdout,
    File(PathBuf),
}

/// Where a socket listens or connects, once names are resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SocketAddress {
    Ip(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Debug)]
pub struct ListenerPlan {
    /// As written, or the address when the file gives no name.
    pub name: String,
    pub address: SocketAddress,
    /// Serves health and metrics instead of routes.
    pub admin: bool,
    pub forwarded: ForwardedPlan,
    pub limits: ListenerLimits,
    pub timeouts: ListenerTimeouts,
}

/// What is said about the client to upstreams, and whose word is taken for it.
#[derive(Clone, Debug)]
pub struct ForwardedPlan {
    /// Peers whose own `Forwarded`/`X-Forwarded-*` are extended instead of removed. Empty by default.
    pub trust: Vec<ipnet::IpNet>,
    /// Send `X-Forwarded-For`, `-Proto` and `-Host`.
    pub x_forwarded: bool,
    /// Send RFC 7239 `Forwarded`.
    pub forwarded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Open connections of this listener in the whole process; past it, new ones are closed at once.
    pub max_connections: u32,
    /// Bytes of a request head, request line included; past it 431.
    pub max_head: usize,
    /// Header fields of a request; past it 431.
    pub max_fields: usize,
    /// Bytes of a request target; past it 414.
    pub max_target: usize,
    /// Bytes of a request's content; past it 413. A route may set its own.
    pub max_body: u64,
    /// Requests answered on one connection before it is closed; zero is no bound.
    pub max_requests_per_connection: u64,
}

/// Each is the longest wait without the named progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// From a request's first byte (or the accept) to the end of its head.
    pub header: Duration,
    /// Between two reads of a request's content.
    pub body: Duration,
    /// For the client to take some bytes of a response.
    pub write: Duration,
    /// For the next request on a kept-alive connection.
    pub idle: Duration,
}

#[derive(Clone, Debug)]
pub struct UpstreamPlan {
    pub name: String,
    /// Never empty.
    pub endpoints: Vec<EndpointPlan>,
    pub balance: Balance,
    pub limits: UpstreamLimits,
    pub timeouts: UpstreamTimeouts,
    pub keepalive: KeepalivePlan,
    /// How often names are looked up again.
    pub dns_refresh: Duration,
}

/// One backend as written: `http://host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPlan {
    pub target: EndpointTarget,
    /// What `Host` says when the route does not keep the client's.
    pub authority: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointTarget {
    Address(SocketAddr),
    Name { host: String, port: u16 },
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    /// The less loaded of two picked at random.
    LeastRequest,
}

/// Of the whole process; each shard gets its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimits {
    pub max_connections: u32,
    /// Requests that wait for a connection; past it 503.
    pub max_pending: u32,
    /// How long one waits; past it 503.
    pub pending_timeout: Duration,
    /// Bytes and fields of a response head; past either 502.
    pub max_head: usize,
    pub max_fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    pub connect: Duration,
    /// From the request's last byte to the response's first.
    pub first_byte: Duration,
    /// Between two reads of a response, or for the upstream to take some bytes of a request.
    pub idle: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepalivePlan {
    /// How long an idle connection is kept for reuse; zero keeps none.
    pub idle: Duration,
    /// A connection older than this is not reused.
    pub max_age: Duration,
}

#[derive(Clone, Debug)]
pub struct RoutePlan {
    pub matcher: RouteMatch,
    pub action: RouteAction,
    /// The whole request, from its head to its response's end.
    pub timeout: Duration,
    /// `None` takes the listener's.
    pub max_body: Option<u64>,
    pub request_fields: FieldEdits,
    pub response_fields: FieldEdits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// `None` matches on every listener that is not admin.
    pub listener: Option<ListenerId>,
    pub host: HostMatch,
    /// `/a/{x}/{*rest}`.
    pub path: PathPattern,
    /// Upper case as written; empty matches every method.
    pub methods: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    Any,
    /// Lower case, without port.
    Exact(String),
    /// Lower case, with its leading dot: `.example.com`, written `*.example.com`.
    Suffix(String),
}

#[derive(Clone, Debug)]
pub enum RouteAction {
    Proxy(ProxyPlan),
    Respond(RespondPlan),
}

#[derive(Clone, Debug)]
pub struct ProxyPlan {
    pub upstream: UpstreamId,
    /// The path sent instead of the client's: literal text and captured parts.
    pub rewrite: Option<Vec<RewritePart>>,
    /// The `Host` sent: the client's, the endpoint's, or a given one.
    pub host: UpstreamHost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewritePart {
    Literal(String),
    /// Which `{capture}` of the match, counted from zero in the order of its path.
    Capture(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamHost {
    /// What the client asked for.
    Client,
    /// The endpoint's own authority.
    Endpoint,
    Given(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RespondPlan {
    /// 200..=599, and not 204, 205 or 304 with a body.
    pub status: u16,
    pub content_type: Option<String>,
    pub body: Text,
}

/// Changes to header fields, in this order: removed, then set (replacing), then added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Lower case.
    pub remove: Vec<String>,
    pub set: Vec<(String, Text)>,
    pub add: Vec<(String, Text)>,
}
