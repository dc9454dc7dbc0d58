//! The file as it is written: which keys there are, of which JSON type, and what they say to whoever reads the schema.
//!
//! No logic lives here. Everything is optional to serde, because what must be there is listed as `required` for the
//! schema, and [`shape`](super::shape) checks a document against exactly that schema: what the schema says is what is
//! checked. Strings are as written, references not yet resolved; [`resolve`](super::resolve) gives them their meaning.
//! Doc comments here are the schema's descriptions.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::json;

use super::limits::{self, Bound};
use super::plan::{Balance, ClientCertificateMode, LogFormat, LogLevel, Protocol, ProxyVersion, TlsVersion};
use super::units;

/// The words for each level of the operational log.
pub(super) const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

/// The words for the ways to write a log line.
pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// The words for the ways to spread requests over endpoints.
pub(super) const BALANCES: [(&str, Balance); 2] =
    [("round_robin", Balance::RoundRobin), ("least_request", Balance::LeastRequest)];

/// The words for the versions of HTTP.
pub(super) const PROTOCOLS: [(&str, Protocol); 3] =
    [("auto", Protocol::Auto), ("h1", Protocol::H1), ("h2", Protocol::H2)];

/// The words for the versions of TLS.
pub(super) const TLS_VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

/// The words for the versions of the PROXY protocol.
pub(super) const PROXY_VERSIONS: [(&str, Option<ProxyVersion>); 2] =
    [("v1", Some(ProxyVersion::V1)), ("v2", Some(ProxyVersion::V2))];

/// The words for whether clients are asked for certificates.
pub(super) const CLIENT_CERTIFICATE_MODES: [(&str, Option<ClientCertificateMode>); 3] = [
    ("off", None),
    ("optional", Some(ClientCertificateMode::Optional)),
    ("required", Some(ClientCertificateMode::Required)),
];

/// The path of a match that names none.
pub(super) const EVERY_PATH: &str = "/{*rest}";

/// A configuration of Postern. Any string value may hold `$env(NAME)` or `$file(path)`, the path relative to this file;
/// `$$` is one dollar sign. Durations are strings such as "250ms", "30s", "5m"; sizes are bytes or strings such as
/// "64KiB".
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Postern configuration", extend("required" = ["listeners", "routes"]))]
pub(super) struct Config {
    /// Where this file's JSON Schema is, for editors. Not read.
    #[serde(rename = "$schema")]
    #[expect(dead_code, reason = "it is for editors, and must still be a known key")]
    pub schema: Option<String>,
    /// How many CPUs to run on, or which: one shard on each. Default: every CPU that the process may run on.
    pub shards: Option<Shards>,
    /// How long a drain (SIGTERM) waits for requests in flight before it gives up on them.
    #[schemars(transform = time(limits::DRAIN_TIMEOUT))]
    pub drain_timeout: Option<String>,
    /// How long a shard polls for work before it sleeps. Burns CPU for latency; for hosts that give Postern whole
    /// cores.
    #[schemars(transform = time(limits::BUSY_POLL))]
    pub busy_poll: Option<String>,
    #[serde(default)]
    pub log: Log,
    /// One line per request. Without this section there is no access log.
    pub access_log: Option<AccessLog>,
    /// Sockets to accept connections on; at least one that is not admin.
    #[serde(default)]
    pub listeners: Vec<Option<Listener>>,
    /// Groups of backends, by the name that routes call them.
    #[serde(default)]
    pub upstreams: BTreeMap<String, Upstream>,
    /// What to do with which requests. The most specific match wins, whatever the order here.
    #[serde(default)]
    pub routes: Vec<Option<Route>>,
}

/// A number of CPUs, or the ids of the CPUs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Shards {
    Count(u64),
    Cpus(Vec<Option<u64>>),
}

/// A number of bytes, or a string with a unit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Size {
    Bytes(u64),
    Written(String),
}

/// The operational log, on standard error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    /// The least severe level that is written.
    #[schemars(transform = one_of(&LOG_LEVELS, "info"))]
    pub level: Option<String>,
    /// How a line looks.
    #[schemars(transform = one_of(&LOG_FORMATS, "text"))]
    pub format: Option<String>,
}

/// One line per request, refused ones included. Paths are logged with their queries.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessLog {
    /// How a line looks.
    #[schemars(transform = one_of(&LOG_FORMATS, "json"))]
    pub format: Option<String>,
    /// "stdout", or a file to append to; its path is relative to this file.
    #[schemars(extend("default" = "stdout"))]
    pub path: Option<String>,
}

/// One socket to accept connections on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(super) struct Listener {
    /// What routes and metrics call it. Default: its address.
    pub name: Option<String>,
    /// "ip:port" or "unix:/path". Port 0 takes a free one.
    pub address: Option<String>,
    /// Serve health and metrics here instead of routes.
    #[schemars(extend("default" = false))]
    pub admin: Option<bool>,
    /// Without this section clients speak plain text.
    pub tls: Option<ListenerTls>,
    /// Speak HTTP/2 with those who can: agreed on in the TLS handshake or, in plain text, with clients that know it beforehand. Default: with TLS
    /// only.
    pub http2: Option<bool>,
    #[serde(default)]
    pub forwarded: Forwarded,
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    #[serde(default)]
    pub limits: ListenerLimits,
    #[serde(default)]
    pub timeouts: ListenerTimeouts,
}

/// TLS with clients. Paths are relative to this file; what is in the files is PEM.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["certificates"]))]
pub(super) struct ListenerTls {
    /// At least one. The name that a client asks for picks one by the DNS names in its subjectAltName, exact before
    /// "*.example.com"; the first is for everybody else.
    #[serde(default)]
    #[schemars(transform = without_default)]
    pub certificates: Vec<Option<Certificate>>,
    /// The oldest version that a client may speak.
    #[schemars(transform = one_of(&TLS_VERSIONS, "1.2"))]
    pub min_version: Option<String>,
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

/// A certificate to show, and its key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["chain", "key"]))]
pub(super) struct Certificate {
    /// File of the certificate, and behind it those that lead to its root.
    pub chain: Option<String>,
    /// File of its private key, not encrypted.
    pub key: Option<String>,
}

/// Certificates of clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientCertificates {
    /// Whether a client is asked for one, and whether it must have one.
    #[schemars(transform = one_of(&CLIENT_CERTIFICATE_MODES, "off"))]
    pub mode: Option<String>,
    /// File of the certificates that a client's must lead to. Needed unless the mode is "off".
    pub ca: Option<String>,
    /// Files of revocation lists; a client with a certificate that is in one of them is refused.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub crl: Vec<Option<String>>,
    /// Send a client's certificate to upstreams, as Client-Cert (RFC 9440).
    #[schemars(extend("default" = false))]
    pub forward: Option<bool>,
}

/// What upstreams are told about the client, and whose word is taken for it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Forwarded {
    /// Networks ("10.0.0.0/8", or one address) of proxies whose own forwarding fields are extended. Those of everybody
    /// else are removed, and a peer on a Unix socket is never trusted.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub trust: Vec<Option<String>>,
    /// Send X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host.
    #[schemars(extend("default" = true))]
    pub x_forwarded: Option<bool>,
    /// Send Forwarded (RFC 7239).
    #[schemars(extend("default" = false))]
    pub forwarded: Option<bool>,
}

/// Whose connections begin with a PROXY header, which tells for whom they are.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxyProtocol {
    /// Networks ("10.0.0.0/8", or one address) of proxies that send the header, of version 1 or 2, on every connection. Of everybody else
    /// none is read.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub trust: Vec<Option<String>>,
}

/// What one listener takes from clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerLimits {
    /// Open connections, in the whole process; past it new ones are closed at once.
    #[schemars(transform = count(limits::MAX_CONNECTIONS))]
    pub max_connections: Option<u64>,
    /// Bytes of a request head, request line included; past it 431.
    #[schemars(transform = size(limits::MAX_HEAD))]
    pub max_head: Option<Size>,
    /// Header fields of a request; past it 431.
    #[schemars(transform = count(limits::MAX_FIELDS))]
    pub max_fields: Option<u64>,
    /// Bytes of a request target; past it 414. Never more than max_head.
    #[schemars(transform = size(limits::MAX_TARGET))]
    pub max_target: Option<Size>,
    /// Bytes of a request's content; past it 413. A route may set its own.
    #[schemars(transform = size(limits::MAX_BODY))]
    pub max_body: Option<Size>,
    /// Requests answered on one connection before it is closed; 0 is no bound.
    #[schemars(transform = count(limits::MAX_REQUESTS_PER_CONNECTION))]
    pub max_requests_per_connection: Option<u64>,
    /// Requests at once on one HTTP/2 connection; what comes beyond is refused.
    #[schemars(transform = count(limits::MAX_CONCURRENT_STREAMS))]
    pub max_concurrent_streams: Option<u64>,
}

/// How long one listener waits for clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerTimeouts {
    /// From the accept to the end of the TLS handshake.
    #[schemars(transform = time(limits::TLS_HANDSHAKE_TIMEOUT))]
    pub tls_handshake: Option<String>,
    /// From a request's first byte to the end of its head; past it 408. On a new connection also for that first byte,
    /// before that.
    #[schemars(transform = time(limits::HEADER_TIMEOUT))]
    pub header: Option<String>,
    /// Between two reads of a request's content.
    #[schemars(transform = time(limits::BODY_TIMEOUT))]
    pub body: Option<String>,
    /// For the client to take some bytes of a response.
    #[schemars(transform = time(limits::WRITE_TIMEOUT))]
    pub write: Option<String>,
    /// For the next request on a kept-alive connection.
    #[schemars(transform = time(limits::CLIENT_IDLE_TIMEOUT))]
    pub idle: Option<String>,
}

/// A group of backends that serve the same.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["endpoints"]))]
pub(super) struct Upstream {
    /// "http://host:port" or "unix:/path", at least one; or "https://host:port", then all of them. All addresses of a
    /// name are used.
    #[serde(default)]
    #[schemars(transform = without_default)]
    pub endpoints: Vec<Option<String>>,
    /// How "https" endpoints are spoken to.
    pub tls: Option<UpstreamTls>,
    /// Begin every connection with a PROXY header of this version, which tells the client's address. Such a connection
    /// is for one request. Default: no header.
    #[schemars(transform = one_of_if_any(&PROXY_VERSIONS))]
    pub proxy_protocol: Option<String>,
    /// The version of HTTP that endpoints are spoken to in: HTTP/1.1, HTTP/2, or what "https" endpoints agree to. In plain text an endpoint has to
    /// know that HTTP/2 comes, so "auto" is HTTP/1.1 there.
    #[schemars(transform = one_of(&PROTOCOLS, "auto"))]
    pub protocol: Option<String>,
    /// How requests are spread: in turn, or to the less loaded of two picked at random.
    #[schemars(transform = one_of(&BALANCES, "least_request"))]
    pub balance: Option<String>,
    #[serde(default)]
    pub limits: UpstreamLimits,
    #[serde(default)]
    pub timeouts: UpstreamTimeouts,
    #[serde(default)]
    pub keepalive: Keepalive,
    #[serde(default)]
    pub dns: Dns,
}

/// TLS with "https" endpoints. Paths are relative to this file; what is in the files is PEM.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamTls {
    /// File of the certificates that the endpoint's must lead to. Default: those that the system trusts.
    pub ca: Option<String>,
    /// The name that the endpoint is asked for, and that its certificate must be for. Default: the endpoint's host.
    pub server_name: Option<String>,
    /// The oldest version that an endpoint may speak.
    #[schemars(transform = one_of(&TLS_VERSIONS, "1.2"))]
    pub min_version: Option<String>,
    /// "sha256/BASE64" of public keys (SubjectPublicKeyInfo); the endpoint's certificate must have one of them as well.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub pins: Vec<Option<String>>,
    /// Shown to an endpoint that asks for one.
    pub certificate: Option<Certificate>,
}

/// What one upstream is asked to bear, in the whole process, and what is taken from it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamLimits {
    /// Open connections.
    #[schemars(transform = count(limits::UPSTREAM_MAX_CONNECTIONS))]
    pub max_connections: Option<u64>,
    /// Requests that wait for a connection; past it 503.
    #[schemars(transform = count(limits::MAX_PENDING))]
    pub max_pending: Option<u64>,
    /// How long one request waits for a connection; past it 503.
    #[schemars(transform = time(limits::PENDING_TIMEOUT))]
    pub pending_timeout: Option<String>,
    /// Bytes of a response head; past it 502.
    #[schemars(transform = size(limits::RESPONSE_MAX_HEAD))]
    pub max_head: Option<Size>,
    /// Header fields of a response; past it 502.
    #[schemars(transform = count(limits::MAX_FIELDS))]
    pub max_fields: Option<u64>,
}

/// How long an upstream may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamTimeouts {
    /// For a connection to be there.
    #[schemars(transform = time(limits::CONNECT_TIMEOUT))]
    pub connect: Option<String>,
    /// From the request's last byte to the response's first.
    #[schemars(transform = time(limits::FIRST_BYTE_TIMEOUT))]
    pub first_byte: Option<String>,
    /// Between two reads of a response, or for the upstream to take some bytes of a request or of a tunnel.
    #[schemars(transform = time(limits::UPSTREAM_IDLE_TIMEOUT))]
    pub idle: Option<String>,
    /// The longest silence in a tunnel, as of WebSocket, counted over both directions.
    #[schemars(transform = time(limits::TUNNEL_IDLE_TIMEOUT))]
    pub tunnel_idle: Option<String>,
}

/// Connections kept for the next request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keepalive {
    /// How long an idle connection is kept; "0s" keeps none. Less than the backend's own idle time-out.
    #[schemars(transform = time(limits::KEEPALIVE_IDLE))]
    pub idle: Option<String>,
    /// A connection older than this is not reused.
    #[schemars(transform = time(limits::KEEPALIVE_MAX_AGE))]
    pub max_age: Option<String>,
}

/// Names of endpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    /// How often names are looked up again. The last good answer is kept when that fails.
    #[schemars(transform = time(limits::DNS_REFRESH))]
    pub refresh: Option<String>,
}

/// What to do with which requests: exactly one of `upstream` and `respond`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    #[serde(default)]
    pub r#match: Match,
    /// Name of the upstream that answers.
    pub upstream: Option<String>,
    /// An answer from here, without an upstream.
    pub respond: Option<Respond>,
    /// What the upstream sees instead of what the client asked for.
    pub rewrite: Option<Rewrite>,
    /// The whole request, from its first byte to its response's end; past it 504. Does not bound a tunnel.
    #[schemars(transform = time(limits::ROUTE_TIMEOUT))]
    pub timeout: Option<String>,
    /// Bytes of a request's content; past it 413. Default: the listener's.
    #[schemars(transform = size_range(limits::MAX_BODY))]
    pub max_body: Option<Size>,
    /// Changes to the fields that the upstream gets.
    #[serde(default)]
    pub request_headers: FieldEdits,
    /// Changes to the fields that the client gets.
    #[serde(default)]
    pub response_headers: FieldEdits,
}

/// Which requests a route is for. What is left out matches all.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    /// Name of a listener. Default: every listener that is not admin.
    pub listener: Option<String>,
    /// A host name, or "*.example.com" for every name below one. Default: any host.
    pub host: Option<String>,
    /// "/fixed/{one_segment}/{*all_the_rest}".
    #[schemars(extend("default" = EVERY_PATH))]
    pub path: Option<String>,
    /// Methods, in upper case; GET brings HEAD with it. Default: every method but TRACE.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub methods: Vec<Option<String>>,
}

/// An answer from the gateway itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Respond {
    /// Status code, 200 to 599.
    #[schemars(extend("default" = 200, "minimum" = 200, "maximum" = 599))]
    pub status: Option<u64>,
    /// What the body is. Default: "text/plain; charset=utf-8" if there is a body.
    pub content_type: Option<String>,
    /// The content. Statuses 204, 205 and 304 have none.
    #[schemars(extend("default" = ""))]
    pub body: Option<String>,
}

/// What the upstream sees instead of what the client asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rewrite {
    /// The path sent, with {captures} of the match in it. The query stays as it is. Default: the client's path.
    pub path: Option<String>,
    /// The Host sent: "client" for what the client asked for, "endpoint" for the endpoint's own, or a host name.
    #[schemars(extend("default" = "client"))]
    pub host: Option<String>,
}

/// Changes to header fields, in this order: removed, set (which replaces), added.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FieldEdits {
    /// Fields that replace all of their name.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Fields that go after those of their name.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    /// Names of fields that go away.
    #[serde(default)]
    pub remove: Vec<Option<String>>,
}

// === What the schema says about bounds ===

/// For what is `required`, which serde's default would otherwise deny.
fn without_default(schema: &mut Schema) {
    schema.remove("default");
}

fn time(bound: Bound<Duration>) -> impl FnMut(&mut Schema) {
    move |schema| {
        schema.insert("default".to_owned(), units::write_time(bound.default).into());
        let (min, max) = (units::write_time(bound.min), units::write_time(bound.max));
        append_range(schema, &min, &max);
    }
}

fn size(bound: Bound<u64>) -> impl FnMut(&mut Schema) {
    move |schema| {
        schema.insert("default".to_owned(), units::write_size(bound.default).into());
        size_range(bound)(schema);
    }
}

fn size_range(bound: Bound<u64>) -> impl FnMut(&mut Schema) {
    move |schema| append_range(schema, &units::write_size(bound.min), &units::write_size(bound.max))
}

fn count(bound: Bound<u64>) -> impl FnMut(&mut Schema) {
    move |schema| {
        schema.insert("default".to_owned(), bound.default.into());
        schema.insert("minimum".to_owned(), bound.min.into());
        schema.insert("maximum".to_owned(), bound.max.into());
    }
}

/// JSON Schema cannot compare strings with units, so their range is part of the description.
fn append_range(schema: &mut Schema, min: &str, max: &str) {
    let description = schema.get("description").and_then(|text| text.as_str()).unwrap_or_default();
    let description = format!("{description} From {min} to {max}.");
    schema.insert("description".to_owned(), description.into());
}

fn one_of<T>(words: &[(&'static str, T)], default: &'static str) -> impl FnMut(&mut Schema) {
    let mut restrict = one_of_if_any(words);
    move |schema| {
        restrict(schema);
        schema.insert("default".to_owned(), default.into());
    }
}

/// A reference is as good as the word that it will turn out to be.
fn one_of_if_any<T>(words: &[(&'static str, T)]) -> impl FnMut(&mut Schema) {
    let names = words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
    move |schema| {
        let branches = json!([{ "enum": names }, { "pattern": r"\$(env|file)\(" }]);
        schema.insert("anyOf".to_owned(), branches);
    }
}
