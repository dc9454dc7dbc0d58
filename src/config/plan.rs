//! What the operator asked for, resolved and frozen: everything is checked, every default is filled in, every name is
//! an index.
//!
//! A `Plan` is shared by all shards behind one `Arc` and never changes; a reload makes another.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustls::SignatureAlgorithm;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName};

use super::pattern::PathPattern;
use super::secret::{PrivateKey, Text};
use super::validity;
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
    /// The operational log.
    pub log: LogPlan,
    /// `None` writes none.
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
    /// The least severe level that is written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// Most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something is broken and needs somebody.
    Error,
    /// Something is wrong that the gateway deals with.
    Warn,
    /// What it does as a whole: starts, reloads, drains.
    Info,
    /// What it does for single connections.
    Debug,
    /// Every step.
    Trace,
}

/// How the line of a log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// For people.
    Text,
}

/// One line per finished request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogPlan {
    /// How a line looks.
    pub format: LogFormat,
    /// Where it goes.
    pub target: AccessLogTarget,
}

/// Where the lines of the access log go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// Where a socket listens or connects, once names are resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SocketAddress {
    /// TCP. A listener's port may be 0, which takes a free one.
    Ip(SocketAddr),
    /// A Unix stream socket at an absolute path.
    Unix(PathBuf),
}

/// One socket to accept connections on.
#[derive(Clone, Debug)]
pub struct ListenerPlan {
    /// As written, or the address when the file gives no name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddress,
    /// Serves health and metrics instead of routes.
    pub admin: bool,
    /// `None` speaks plain text.
    pub tls: Option<ListenerTlsPlan>,
    /// Speaks HTTP/2, too.
    pub http2: bool,
    /// What upstreams hear of its clients.
    pub forwarded: ForwardedPlan,
    /// Peers whose connections begin with a PROXY header. Empty by default.
    pub proxy_headers_from: Vec<ipnet::IpNet>,
    /// What it takes from clients.
    pub limits: ListenerLimits,
    /// How long it waits for clients.
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

/// Whether one of these networks holds `address`. A mapped IPv4 address is looked for as what it is.
pub fn covers(networks: &[ipnet::IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// What one listener takes from clients.
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
    /// Requests at once on one HTTP/2 connection; what comes beyond is refused.
    pub max_concurrent_streams: u32,
}

/// Each is the longest wait without the named progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// From the accept to the end of the TLS handshake.
    pub tls_handshake: Duration,
    /// From a request's first byte (or the accept) to the end of its head.
    pub header: Duration,
    /// Between two reads of a request's content.
    pub body: Duration,
    /// For the client to take some bytes of a response.
    pub write: Duration,
    /// For the next request on a kept-alive connection.
    pub idle: Duration,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub struct ListenerTlsPlan {
    /// In the order of the file, never empty. The first one is for clients that name no host, or one of which there is
    /// no certificate. Those of the same name have keys of different algorithms.
    pub certificates: Vec<CertificatePlan>,
    /// The oldest version that a client may speak.
    pub min_version: TlsVersion,
    /// `None` asks clients for none.
    pub client_certificates: Option<ClientCertificatesPlan>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// A certificate to show, with the key that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePlan {
    /// The certificate itself first, then those that lead to its root. Never empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// Belongs to the first certificate of the chain.
    pub key: PrivateKey,
    /// Of the key.
    pub algorithm: SignatureAlgorithm,
    /// The DNS names of its subjectAltName, in lower case, each once: exact, or `*.example.com` for one label in front of
    /// a name. Never empty for a listener.
    pub names: Vec<String>,
    /// Where the chain was read.
    pub chain_file: PathBuf,
    /// Where the key was read.
    pub key_file: PathBuf,
}

impl CertificatePlan {
    /// When clients begin to refuse it; `None` if it does not say so in a way that can be read.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.chain.first().and_then(|certificate| validity::not_after(certificate))
    }
}

/// Which certificates clients may, or have to, show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificatesPlan {
    /// What becomes of a client that shows none.
    pub mode: ClientCertificateMode,
    /// Whose certificates are taken; never empty, and each can be the end of a chain.
    pub roots: Vec<CertificateDer<'static>>,
    /// Lists of certificates that are not taken although one of `roots` signed them, by file; each can be read.
    pub crls: Vec<Vec<CertificateRevocationListDer<'static>>>,
    /// Upstreams are told a client's certificate (RFC 9440).
    pub forward: bool,
    /// Where the roots were read.
    pub ca_file: PathBuf,
    /// Where the revocation lists were read.
    pub crl_files: Vec<PathBuf>,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificateMode {
    /// One that shows none is served; one that shows a wrong one is refused.
    Optional,
    /// One that shows none is refused.
    Required,
}

/// A group of backends that serve the same.
#[derive(Clone, Debug)]
pub struct UpstreamPlan {
    /// What routes and metrics call it.
    pub name: String,
    /// Which version of HTTP it is spoken to in.
    pub protocol: Protocol,
    /// Never empty.
    pub endpoints: Vec<EndpointPlan>,
    /// `Some` if its endpoints are `https`, which are all of them or none.
    pub tls: Option<UpstreamTlsPlan>,
    /// The header that every connection begins with. `Some` makes each connection one client's, so that none is kept.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How requests are spread over endpoints.
    pub balance: Balance,
    /// What it is asked to bear, and what is taken from it.
    pub limits: UpstreamLimits,
    /// How long it may take.
    pub timeouts: UpstreamTimeouts,
    /// Connections kept for the next request.
    pub keepalive: KeepalivePlan,
    /// How often names are looked up again.
    pub dns_refresh: Duration,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl UpstreamPlan {
    /// What its connections may speak: where nothing is agreed on in a TLS handshake, what is not said is HTTP/1.1. A connection that begins with a
    /// PROXY header speaks for one client, and cannot be shared.
    pub fn spoken(&self) -> Protocol {
        match self.protocol {
            Protocol::Auto if self.tls.is_none() || self.proxy_protocol.is_some() => Protocol::H1,
            protocol => protocol,
        }
    }
}

/// A version of HTTP, as upstreams are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// What is agreed on in the TLS handshake, and HTTP/1.1 in plain text.
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2; in plain text the endpoint has to know.
    H2,
}

/// How an upstream is spoken to over TLS.
#[derive(Clone, Debug)]
pub struct UpstreamTlsPlan {
    /// Whose certificates are trusted.
    pub roots: TlsRoots,
    /// The name that its certificates must be for. `None` takes the host of each endpoint, which can always be one.
    pub server_name: Option<ServerName<'static>>,
    /// The oldest version that it may speak.
    pub min_version: TlsVersion,
    /// SHA-256 of the public keys (SubjectPublicKeyInfo) of which its own certificate must have one; empty takes any.
    pub pins: Vec<[u8; 32]>,
    /// Shown to an upstream that asks for one.
    pub certificate: Option<CertificatePlan>,
}

/// Whose certificates are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsRoots {
    /// Those that the system trusts.
    System,
    /// Those of one file.
    Given {
        /// Never empty, and each can be the end of a chain.
        certificates: Vec<CertificateDer<'static>>,
        /// Where they were read.
        file: PathBuf,
    },
}

/// One backend as written: `http://host:port`, `https://host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPlan {
    /// Where to connect.
    pub target: EndpointTarget,
    /// What `Host` says when the route does not keep the client's; without the port if it is the scheme's own.
    pub authority: String,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointTarget {
    /// An address as written.
    Address(SocketAddr),
    /// A name to look up.
    Name {
        /// Lower case, without final dot.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// A Unix stream socket at an absolute path.
    Unix(PathBuf),
}

/// How requests are spread over endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn.
    RoundRobin,
    /// The less loaded of two picked at random.
    LeastRequest,
}

/// Of the whole process; each shard gets its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Open connections; past it requests wait.
    pub max_connections: u32,
    /// Requests that wait for a connection; past it 503.
    pub max_pending: u32,
    /// How long one waits; past it 503.
    pub pending_timeout: Duration,
    /// Bytes of a response head; past it 502.
    pub max_head: usize,
    /// Fields of a response head; past it 502.
    pub max_fields: usize,
}

/// Each is the longest wait without the named progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// For a connection to be there.
    pub connect: Duration,
    /// From the request's last byte to the response's first.
    pub first_byte: Duration,
    /// Between two reads of a response, or for the upstream to take some bytes of a request or of a tunnel.
    pub idle: Duration,
    /// Between two bytes of a tunnel, whichever way they go.
    pub tunnel_idle: Duration,
}

/// Connections kept for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepalivePlan {
    /// How long an idle connection is kept for reuse; zero keeps none.
    pub idle: Duration,
    /// A connection older than this is not reused.
    pub max_age: Duration,
}

/// What to do with which requests.
#[derive(Clone, Debug)]
pub struct RoutePlan {
    /// Which requests.
    pub matcher: RouteMatch,
    /// What to do.
    pub action: RouteAction,
    /// The whole request, from its head to its response's end.
    pub timeout: Duration,
    /// `None` takes the listener's.
    pub max_body: Option<u64>,
    /// Changes to what the upstream gets.
    pub request_fields: FieldEdits,
    /// Changes to what the client gets.
    pub response_fields: FieldEdits,
}

/// Which requests a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// `None` matches on every listener that is not admin.
    pub listener: Option<ListenerId>,
    /// The host that is asked for.
    pub host: HostMatch,
    /// `/a/{x}/{*rest}`.
    pub path: PathPattern,
    /// Upper case as written; empty matches every method but TRACE.
    pub methods: Vec<String>,
}

/// Which hosts a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    /// Also a request that names none.
    Any,
    /// Lower case, without port.
    Exact(String),
    /// Lower case, with its leading dot: `.example.com`, written `*.example.com`.
    Suffix(String),
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum RouteAction {
    /// Asks an upstream.
    Proxy(ProxyPlan),
    /// Answers by itself.
    Respond(RespondPlan),
}

/// How a request goes upstream.
#[derive(Clone, Debug)]
pub struct ProxyPlan {
    /// Who answers.
    pub upstream: UpstreamId,
    /// The path sent instead of the client's: literal text and captured parts.
    pub rewrite: Option<Vec<RewritePart>>,
    /// The `Host` sent: the client's, the endpoint's, or a given one.
    pub host: UpstreamHost,
}

/// A piece of a path that is sent upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewritePart {
    /// The same for every request.
    Literal(String),
    /// Which `{capture}` of the match, counted from zero in the order of its path.
    Capture(usize),
}

/// What the upstream is told it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamHost {
    /// What the client asked for.
    Client,
    /// The endpoint's own authority.
    Endpoint,
    /// Always this: a host, with or without port.
    Given(String),
}

/// An answer from the gateway itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RespondPlan {
    /// 200..=599, and not 204, 205 or 304 with a body.
    pub status: u16,
    /// There is one wherever there is a body.
    pub content_type: Option<String>,
    /// At most [`RESPOND_BODY`](super::limits::RESPOND_BODY) bytes.
    pub body: Text,
}

/// Changes to header fields, in this order: removed, then set (replacing), then added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Lower case.
    pub remove: Vec<String>,
    /// Names in lower case, each once.
    pub set: Vec<(String, Text)>,
    /// Names in lower case, each once.
    pub add: Vec<(String, Text)>,
}

impl FieldEdits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}
