//! Every bound of the process, by name: its unit, its default, how far an operator may move it, and what the worst case
//! costs.
//!
//! A knob of the configuration is a [`Bound`]; a bound that nobody may move is a plain constant. Rooms add theirs here,
//! so that one page answers how much memory a setting can take. Text in `config/README.md` repeats the figures for
//! operators.

use std::time::Duration;

/// What a knob is when the file does not say, and the range in which the file may move it, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<T> {
    /// Without a word from the file.
    pub default: T,
    /// The least that the file may say.
    pub min: T,
    /// The most that the file may say.
    pub max: T,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A wait that must end: at least a millisecond, so that zero cannot mean "never" to one reader and "at once" to
/// another.
const fn wait(default: Duration) -> Bound<Duration> {
    Bound { default, min: MILLISECOND, max: DAY }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// === The file itself ===

/// Bytes of a configuration file. Read once at start, its tree is a few times as large: at most about 64 MiB, for the
/// time of loading.
pub const CONFIG_FILE: u64 = 16 * MIB;

/// Bytes of what one `$file(path)` or `$env(NAME)` gives; it stays in memory as long as the plan does.
pub const REFERENCE: u64 = MIB;

/// Listeners of a plan; each costs one socket per shard.
pub const LISTENERS: usize = 256;

/// Upstreams of a plan; each costs a pool (some hundred bytes) per shard.
pub const UPSTREAMS: usize = 4096;

/// Endpoints of one upstream; each costs a shelf of idle connections per shard.
pub const ENDPOINTS: usize = 256;

/// Routes of a plan. About 1 KiB each with its node in the table: at most 20 MiB per shard's table.
pub const ROUTES: usize = 20_000;

/// Captures of one route's path; 16 bytes each in every request's `Captures`: 128 bytes.
pub const CAPTURES: usize = 8;

/// Bytes of a route's path pattern and of its rewrite. A lookup recurses once per segment, so at most 512 deep.
pub const PATTERN: usize = 1024;

/// Field edits of one route and direction; each is written into every head that passes, see [`EDITED_VALUE`].
pub const EDITS: usize = 32;

/// Bytes of one set or added field value. With [`EDITS`] the largest growth of a head is 32 x (64 + 2048) = 66 KiB.
pub const EDITED_VALUE: usize = 2048;

/// Bytes of the name of a set, added or removed field.
pub const EDITED_NAME: usize = 64;

/// Bytes of a static answer's body. It is held once per plan and written out from there.
pub const RESPOND_BODY: usize = MIB as usize;

/// Bytes of a name that the file gives to a listener or upstream; names become metric labels.
pub const NAME: usize = 64;

/// Bytes of the path of a Unix socket: `sun_path` is 108 with its final NUL.
pub const UNIX_PATH: usize = 107;

/// Bytes of a host name without port (RFC 1035 section 2.3.4 gives 255 with length bytes, which is 253 as text).
pub const HOST: usize = 253;

// === The process ===

/// Shards; each costs a thread, a ring and its buffers. No default here: it is the CPUs that the process may run on.
pub const SHARDS: usize = 256;

/// How long a drain waits for what is in flight.
pub const DRAIN_TIMEOUT: Bound<Duration> = wait(seconds(30));

/// How long a shard polls before it sleeps. Zero sleeps at once; anything else burns a CPU for latency.
pub const BUSY_POLL: Bound<Duration> =
    Bound { default: Duration::ZERO, min: Duration::ZERO, max: Duration::from_millis(100) };

// === Listeners ===

/// Open connections of a listener, in the whole process. An idle one costs about 1 KiB: 16 MiB at the default, 1 GiB at
/// the bound; one that is reading a head adds at most [`MAX_HEAD`].
pub const MAX_CONNECTIONS: Bound<u64> = Bound { default: 16_384, min: 1, max: 1_048_576 };

/// Bytes of a request head. Worst case per listener: every connection holds an unfinished head, 16,384 x 16 KiB = 256
/// MiB at the defaults until [`HEADER_TIMEOUT`] ends them.
pub const MAX_HEAD: Bound<u64> = Bound { default: 16 * KIB, min: KIB, max: 64 * KIB };

/// Header fields of a head, of a request or a response. Each shard has one table for them: 128 x 20 bytes =
/// 2.5 KiB.
pub const MAX_FIELDS: Bound<u64> = Bound { default: 100, min: 8, max: 128 };

/// Bytes of a request target. Part of the head, so never beyond [`MAX_HEAD`]; costs nothing of its own.
pub const MAX_TARGET: Bound<u64> = Bound { default: 8 * KIB, min: 64, max: 64 * KIB };

/// Bytes of a request's content. It streams through, so the bound protects upstreams, not this process; zero refuses
/// all content.
pub const MAX_BODY: Bound<u64> = Bound { default: 64 * MIB, min: 0, max: 1024 * GIB };

/// Requests on one client connection; zero is no bound. Costs nothing.
pub const MAX_REQUESTS_PER_CONNECTION: Bound<u64> = Bound { default: 0, min: 0, max: u32::MAX as u64 };

/// From the accept to the end of the TLS handshake. The connection's [`HEADER_TIMEOUT`] begins behind it.
pub const TLS_HANDSHAKE_TIMEOUT: Bound<Duration> = wait(seconds(10));
/// From a request's first byte until its head is complete; and before that, once, for the first byte of a connection. So
/// a client that never finishes its first head is held for twice this.
pub const HEADER_TIMEOUT: Bound<Duration> = wait(seconds(10));
/// Between two reads of a request's content.
pub const BODY_TIMEOUT: Bound<Duration> = wait(seconds(30));
/// For a client to take some bytes of a response.
pub const WRITE_TIMEOUT: Bound<Duration> = wait(seconds(30));
/// For the next request on a connection.
pub const CLIENT_IDLE_TIMEOUT: Bound<Duration> = wait(seconds(75));

/// Requests at once on one HTTP/2 connection. Each costs its task and its buffers, some 8 KiB, and what [`H2_STREAM_WINDOW`] allows; browsers and
/// libraries expect 100.
pub const MAX_CONCURRENT_STREAMS: Bound<u64> = Bound { default: 100, min: 1, max: 1000 };

/// Cookie crumbs of one request in HTTP/2, which come as one field each, beside [`MAX_FIELDS`] others. Browsers keep 180 cookies of a site at most,
/// and send few of them; a field that the peer's table holds is a byte on the wire and 32 here, so that without a bound [`MAX_HEAD`] would hold
/// 500 of them.
pub const COOKIE_CRUMBS: usize = 128;

/// Bytes of content that a client may send on one stream before some of it has gone on to the upstream. 64 KiB, as before any SETTINGS: no
/// round trip is saved by less.
pub const H2_STREAM_WINDOW: u32 = 64 * 1024;

/// The same for all streams of a connection together: what a connection costs at most for content that came, 1 MiB.
pub const H2_CONNECTION_WINDOW: u32 = MIB as u32;

/// Bytes of responses that wait for one connection to take them. Streams beyond wait with what they have, so this and a buffer for each of them is
/// what a client costs that does not read.
pub const H2_OUTPUT_QUEUE: usize = 256 * KIB as usize;

/// Bytes of one write to a connection with HTTP/2: the frames of many streams travel together. Two such buffers are in use at most, one of them on
/// its way.
pub const H2_WRITE: usize = 64 * KIB as usize;

/// Bytes of a response that a client must have room for within the write timeout. Less would let a client that opens its window byte by byte
/// hold a response for ever.
pub const H2_PROGRESS: usize = 16 * KIB as usize;

/// The table of fields (HPACK) that a peer may fill at our cost.
pub const H2_FIELD_TABLE: u32 = 4096;

/// What each field counts for beside its name and value (RFC 9113 section 6.5.2).
pub const H2_FIELD_OVERHEAD: usize = 32;

/// Streams that we reset for what was wrong with them, within the life of a connection: such streams leave the count of open ones at once, so a
/// client could have any number of them (CVE-2025-8671).
pub const H2_REFUSALS: usize = 100;

/// Streams that a client may reset before anybody has looked at them (CVE-2023-44487).
pub const H2_UNSEEN_RESETS: usize = 20;

/// Requests at once on one connection to an upstream that speaks HTTP/2, where it would take more. Each has a task of its own already; beyond, another
/// connection carries on.
pub const H2_UPSTREAM_STREAMS: u32 = 1000;

/// How long an upstream may be silent while requests wait for it before it is asked whether it is there.
pub const H2_PING_INTERVAL: Duration = seconds(15);

/// How long it may take to answer that. Then its connection is given up.
pub const H2_PING_PATIENCE: Duration = seconds(10);

/// Content of a request that is kept until its response begins, so that it can go out again where an upstream has done nothing about it.
pub const H2_REPLAY: usize = 64 * KIB as usize;

/// How many frames of a kind are borne with, within [`H2_WINDOW`].
#[derive(Clone, Copy, Debug)]
pub struct FrameBudget {
    /// In any case.
    pub base: u32,
    /// One more for so many bytes that were sent to the peer; zero for none.
    pub per_sent: u64,
    /// So many more for each DATA frame that was sent to the peer.
    pub per_data: u32,
    /// So many more for each request.
    pub per_request: u32,
}

/// What the budgets of frames are for.
pub const H2_WINDOW: Duration = seconds(10);

/// RST_STREAM. Who leaves a page cancels all that is under way, which [`MAX_CONCURRENT_STREAMS`] bounds; who does so all the time attacks
/// (CVE-2023-44487).
pub const H2_RESETS: FrameBudget = FrameBudget { base: 200, per_sent: 0, per_data: 0, per_request: 0 };

/// SETTINGS, each of which must be acknowledged (CVE-2019-9515). Honest peers send one or two in all.
pub const H2_SETTINGS: FrameBudget = FrameBudget { base: 50, per_sent: 0, per_data: 0, per_request: 0 };

/// PING, likewise (CVE-2019-9512). Libraries measure the path with one for every round trip in which content comes.
pub const H2_PINGS: FrameBudget = FrameBudget { base: 200, per_sent: 1024, per_data: 1, per_request: 2 };

/// PRIORITY (CVE-2019-9513), which means nothing any more. Old clients send some at the beginning and one with a request.
pub const H2_PRIORITIES: FrameBudget = FrameBudget { base: 200, per_sent: 0, per_data: 0, per_request: 2 };

/// DATA without any (CVE-2019-9518). Some libraries end messages so.
pub const H2_EMPTY_DATA: FrameBudget = FrameBudget { base: 100, per_sent: 0, per_data: 0, per_request: 1 };

/// WINDOW_UPDATE. A peer may open the window of a stream and that of the connection for each frame that it gets, and frames are small where many streams share a
/// small window; or by small steps for large ones.
pub const H2_WINDOW_UPDATES: FrameBudget = FrameBudget { base: 200, per_sent: 512, per_data: 2, per_request: 2 };

/// Frames of types that nobody knows, which must be passed over (RFC 9113 section 5.5).
pub const H2_UNKNOWN_FRAMES: FrameBudget = FrameBudget { base: 100, per_sent: 0, per_data: 0, per_request: 2 };

/// Networks in one `trust` of a listener; looked through once per connection.
pub const TRUSTED_NETWORKS: usize = 1024;

// === TLS ===

/// Bytes of one PEM file; read once per load. The bundle of all public roots has 0.2 MiB, a large revocation list
/// several MiB.
pub const PEM_FILE: u64 = 16 * MIB;

/// Certificates of one listener. One with its chain and key is about 8 KiB: at most 32 MiB.
pub const CERTIFICATES: usize = 4096;

/// How often the files of certificates are looked at. A look that finds nothing new costs some microseconds for each file, outside of the shards.
pub const CERTIFICATE_LOOK: Duration = seconds(2);

/// Files with revocation lists of one listener: at most 64 x 16 MiB = 1 GiB, if somebody has such lists.
pub const REVOCATION_FILES: usize = 64;

/// Certificates in one chain; every one of them is sent in every full handshake.
pub const CHAIN: usize = 16;

/// Pins of one upstream; looked through once per handshake.
pub const PINS: usize = 16;

/// Bytes of a PROXY header in front of a connection. Addresses take 232 at most, and the largest field in use is the client's certificate with some
/// 2 KiB; the specification would allow 64 KiB. Only peers in `proxy_protocol.trust` may send one: 16,384 x 4 KiB = 64 MiB at the defaults until
/// [`HEADER_TIMEOUT`] ends them.
pub const PROXY_HEADER: usize = 4 * KIB as usize;

// === Upstreams ===

/// Connections to one upstream, in the whole process. A busy one holds at most one response head and one buffer: 1,024
/// x (32 + 16) KiB = 48 MiB at the defaults.
pub const UPSTREAM_MAX_CONNECTIONS: Bound<u64> = Bound { default: 1024, min: 1, max: 65_536 };

/// Requests that wait for a connection to one upstream. Each holds its request head: 1,024 x 16 KiB = 16 MiB at the
/// defaults.
pub const MAX_PENDING: Bound<u64> = Bound { default: 1024, min: 0, max: 65_536 };

/// How long one request waits for a connection.
pub const PENDING_TIMEOUT: Bound<Duration> = wait(seconds(1));

/// Bytes of a response head; twice a request's, because cookies and security policies travel this way.
pub const RESPONSE_MAX_HEAD: Bound<u64> = Bound { default: 32 * KIB, min: KIB, max: 64 * KIB };

/// For a connection to be there.
pub const CONNECT_TIMEOUT: Bound<Duration> = wait(seconds(2));
/// From the request's last byte to the response's first.
pub const FIRST_BYTE_TIMEOUT: Bound<Duration> = wait(seconds(30));
/// Between two reads of a response, or for the upstream to take some bytes of a request.
pub const UPSTREAM_IDLE_TIMEOUT: Bound<Duration> = wait(seconds(60));
/// Silence in both directions of a tunnel, as of WebSocket, where nobody speaks while there is nothing to say: an hour lets those live that send no
/// pings, and takes back the two connections of those whose peers are gone without a word. One costs some KiB here, no buffer, and counts in
/// [`MAX_CONNECTIONS`].
pub const TUNNEL_IDLE_TIMEOUT: Bound<Duration> = wait(seconds(60 * 60));

/// How long an idle connection waits for reuse; zero keeps none. Each costs about 1 KiB here and a socket on both
/// sides.
pub const KEEPALIVE_IDLE: Bound<Duration> = Bound { default: seconds(30), min: Duration::ZERO, max: DAY };

/// Age at which a connection is not reused, so that load finds new endpoints.
pub const KEEPALIVE_MAX_AGE: Bound<Duration> = wait(seconds(60 * 60));

/// How often the names of endpoints are looked up again; a second at least, to be kind to resolvers.
pub const DNS_REFRESH: Bound<Duration> = Bound { default: seconds(30), min: seconds(1), max: DAY };

// === Routes ===

/// The whole request, from its first byte to its response's end. A tunnel goes on behind it.
pub const ROUTE_TIMEOUT: Bound<Duration> = wait(seconds(60));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_bounds() {
        let waits = [
            DRAIN_TIMEOUT,
            BUSY_POLL,
            TLS_HANDSHAKE_TIMEOUT,
            HEADER_TIMEOUT,
            BODY_TIMEOUT,
            WRITE_TIMEOUT,
            CLIENT_IDLE_TIMEOUT,
            PENDING_TIMEOUT,
            CONNECT_TIMEOUT,
            FIRST_BYTE_TIMEOUT,
            UPSTREAM_IDLE_TIMEOUT,
            TUNNEL_IDLE_TIMEOUT,
            KEEPALIVE_IDLE,
            KEEPALIVE_MAX_AGE,
            DNS_REFRESH,
            ROUTE_TIMEOUT,
        ];
        for bound in waits {
            assert!(bound.min <= bound.default && bound.default <= bound.max, "{bound:?}");
        }
        let amounts = [
            MAX_CONNECTIONS,
            MAX_HEAD,
            MAX_FIELDS,
            MAX_TARGET,
            MAX_BODY,
            MAX_REQUESTS_PER_CONNECTION,
            MAX_CONCURRENT_STREAMS,
            UPSTREAM_MAX_CONNECTIONS,
            MAX_PENDING,
            RESPONSE_MAX_HEAD,
        ];
        for bound in amounts {
            assert!(bound.min <= bound.default && bound.default <= bound.max, "{bound:?}");
        }
    }
}
