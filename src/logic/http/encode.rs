//! Heads and chunk framing as bytes for the other side.
//!
//! Everything that says where a message ends or what becomes of the connection is written anew from what was understood; of what came,
//! only end-to-end fields are copied. Neighbours that were written as we would write them are copied in one piece, so a usual
//! head costs a handful of copies however many fields it has.

use super::fields::{FieldKind, Fields, Line};
use super::forwarded::{Forwarding, touches};
use super::framing::BodyFraming;
use super::grpc;
use super::head::Version;
use super::request::RequestHead;
use super::response::ResponseHead;
use crate::config::plan::FieldEdits;

/// Follows the content of every chunk.
pub const CHUNK_SUFFIX: &[u8] = b"\r\n";
/// Follows the content of the last chunk that has any, in a body without trailers.
pub const CHUNK_SUFFIX_AND_LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Answers an expectation on our own account.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Room for what we add to a head, beyond the bytes that came.
const ADDED_BYTES: usize = 256;

/// The field that carries a request's id, and the id.
#[derive(Clone, Copy, Debug)]
pub struct RequestIdField<'a> {
    /// As configured; a token.
    pub name: &'a str,
    /// See [`request_id`](super::request_id).
    pub value: &'a [u8],
}

/// What the upstream gets instead of what came.
#[derive(Clone, Copy, Debug)]
pub struct RequestEncoding<'a> {
    /// Normalised and perhaps rewritten; `*` for OPTIONS.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub host: &'a str,
    /// Never [`BodyFraming::UntilClose`], which requests do not have.
    pub framing: BodyFraming,
    pub forwarding: Forwarding<'a>,
    /// Incoming fields of its name are removed.
    pub request_id: Option<RequestIdField<'a>>,
    pub edits: &'a FieldEdits,
    /// Ask the upstream for a 100. Only when the head asked for one: [`RequestHead::expect_continue`].
    pub expect_continue: bool,
    /// Ask for what [`RequestHead::upgrade`] asks for.
    pub upgrade: bool,
}

/// What the client gets instead of what came.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEncoding<'a> {
    /// [`BodyFraming::onward`] of the upstream's. With [`BodyFraming::UntilClose`] the response says `Connection: close`.
    pub framing: BodyFraming,
    pub persistence: Persistence,
    pub request_id: Option<RequestIdField<'a>>,
    pub edits: &'a FieldEdits,
    /// Now, as an IMF-fixdate (RFC 9110 section 5.6.7); said of a response that says nothing of it (section 6.6.1).
    pub date: &'a str,
}

/// What a response says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: an HTTP/1.1 connection stays.
    Implied,
    /// `Connection: keep-alive`, for an HTTP/1.0 client that asked for it.
    KeepAlive,
    Close,
}

impl Persistence {
    /// What to say to a client that speaks `version` when the connection is to `stay`.
    pub fn of(version: Version, stay: bool) -> Self {
        match (stay, version) {
            (true, Version::Http11 | Version::Http2) => Persistence::Implied,
            (true, Version::Http10) => Persistence::KeepAlive,
            (false, _) => Persistence::Close,
        }
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Persistence::Implied => {}
            Persistence::KeepAlive => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            Persistence::Close => out.extend_from_slice(b"Connection: close\r\n"),
        }
    }
}

/// Appends the request head for the upstream.
pub fn request(out: &mut Vec<u8>, head: &RequestHead<'_>, plan: &RequestEncoding<'_>) {
    out.reserve(head.len + ADDED_BYTES);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(plan.path.as_bytes());
    if let Some(query) = plan.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(plan.host.as_bytes());
    out.extend_from_slice(b"\r\n");

    let chunked = head.framing == BodyFraming::Chunked && plan.framing == BodyFraming::Chunked;
    let trailers = chunked && passes_trailers(&head.fields, plan.edits);
    copy_fields(out, &head.fields, plan.request_id, plan.edits, |kind| match kind {
        FieldKind::EndToEnd | FieldKind::Date => true,
        FieldKind::MaxForwards => head.max_forwards.is_none(),
        FieldKind::Trailer => trailers,
        FieldKind::Forwarded | FieldKind::XForwardedFor | FieldKind::XForwardedHost => plan.forwarding.keeps(kind),
        FieldKind::XForwardedPort | FieldKind::XForwardedProto | FieldKind::XForwardedOther => {
            plan.forwarding.keeps(kind)
        }
        FieldKind::XRealIp => plan.forwarding.keeps(kind),
        FieldKind::Connection | FieldKind::HopByHop | FieldKind::Nominated | FieldKind::Te | FieldKind::Upgrade => {
            false
        }
        FieldKind::ContentLength | FieldKind::TransferEncoding | FieldKind::Expect | FieldKind::Host => false,
        FieldKind::ClientCert | FieldKind::Underscored => false,
    });

    plan.forwarding.write(out, &head.fields, plan.edits);
    via(out, head.version);
    if let Some(forwards) = head.max_forwards {
        field(out, b"Max-Forwards", itoa::Buffer::new().format(forwards.saturating_sub(1)).as_bytes());
    }
    if plan.expect_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    request_connection(out, head, plan);
    finish(out, plan.framing, plan.request_id, plan.edits);
}

/// Appends the response head for the client. A 101 keeps its `Upgrade`, and so does a 426, which would say nothing without.
pub fn response(out: &mut Vec<u8>, head: &ResponseHead<'_>, plan: &ResponseEncoding<'_>) {
    out.reserve(head.len + ADDED_BYTES);
    status_line(out, head.status, head.reason);
    let chunked = head.framing == BodyFraming::Chunked && plan.framing == BodyFraming::Chunked;
    let trailers = chunked && passes_trailers(&head.fields, plan.edits);
    copy_fields(out, &head.fields, plan.request_id, plan.edits, |kind| response_keeps(kind, trailers));
    if !head.dated && !head.is_switching() {
        field(out, b"Date", plan.date.as_bytes());
    }
    via(out, head.version);
    match head.upgrade {
        Some(protocols) => {
            out.extend_from_slice(b"Connection: upgrade\r\n");
            field(out, b"Upgrade", protocols);
        }
        None if plan.framing == BodyFraming::UntilClose => Persistence::Close.write(out),
        None => plan.persistence.write(out),
    }
    if head.status == 426 {
        upgrade_required(out, &head.fields);
    }
    if let (BodyFraming::None, Some(length)) = (plan.framing, head.content_length) {
        // To a HEAD and in a 304: how long the content would be.
        content_length(out, length);
    }
    finish(out, plan.framing, plan.request_id, plan.edits);
}

/// Appends an interim response (1xx but 101). HTTP/1.0 clients must not be sent any (RFC 9110 section 15.2).
///
/// It loses what the final one would lose, and gets nothing in its place: what is set or added there is said once.
pub fn interim(out: &mut Vec<u8>, head: &ResponseHead<'_>, request_id: Option<RequestIdField<'_>>, edits: &FieldEdits) {
    out.reserve(head.len + ADDED_BYTES);
    status_line(out, head.status, head.reason);
    copy_fields(out, &head.fields, request_id, edits, |kind| response_keeps(kind, false));
    via(out, head.version);
    out.extend_from_slice(b"\r\n");
}

/// Whether the trailers of a message with these `fields` go on. They would get around a `Connection` field that names them (RFC 9110 section
/// 7.6.1) and around `edits`. Few messages have trailers, and nothing may rely on them (section 6.5.1): so where one might have to
/// go, all do. Those of gRPC carry the outcome, without which the response is worth nothing, so no edit takes them away.
pub fn passes_trailers(fields: &Fields<'_>, edits: &FieldEdits) -> bool {
    !fields.nominates && (edits.is_empty() || grpc::is_grpc(fields))
}

/// What comes before `len` bytes of content.
///
/// # Panics
/// When debug assertions are on and `len` is zero: that would end the body.
pub fn chunk_prefix(len: usize) -> ChunkPrefix {
    debug_assert!(len > 0, "an empty chunk is the last chunk");
    let mut prefix = ChunkPrefix { bytes: [0; CHUNK_PREFIX_BYTES_MAX], start: CHUNK_PREFIX_BYTES_MAX - 2 };
    prefix.bytes[prefix.start..].copy_from_slice(b"\r\n");
    let mut rest = len;
    while rest > 0 {
        prefix.start -= 1;
        prefix.bytes[prefix.start] = b"0123456789abcdef"[rest & 0xf];
        rest >>= 4;
    }
    prefix
}

/// 16 digits and CRLF.
const CHUNK_PREFIX_BYTES_MAX: usize = 18;

/// A chunk's size line.
#[derive(Clone, Copy, Debug)]
pub struct ChunkPrefix {
    bytes: [u8; CHUNK_PREFIX_BYTES_MAX],
    start: usize,
}

impl AsRef<[u8]> for ChunkPrefix {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Appends the end of a chunked body; `trailers` as [`BodyReader::trailers`](super::framing::BodyReader::trailers) gives them.
pub fn last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

/// `name: value` CRLF
pub(super) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn content_length(out: &mut Vec<u8>, length: u64) {
    field(out, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
}

pub(super) fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// The last fields and the empty line.
pub(super) fn finish(
    out: &mut Vec<u8>,
    framing: BodyFraming,
    request_id: Option<RequestIdField<'_>>,
    edits: &FieldEdits,
) {
    if let Some(id) = request_id.filter(|id| !touches(edits, id.name.as_bytes())) {
        field(out, id.name.as_bytes(), id.value);
    }
    for (name, value) in edits.set.iter().chain(&edits.add) {
        field(out, name.as_bytes(), value.expose().as_bytes());
    }
    match framing {
        BodyFraming::None | BodyFraming::UntilClose => {}
        BodyFraming::Length(length) => content_length(out, length),
        BodyFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Changes nothing.
pub static NO_EDITS: FieldEdits = FieldEdits { remove: Vec::new(), set: Vec::new(), add: Vec::new() };

fn request_connection(out: &mut Vec<u8>, head: &RequestHead<'_>, plan: &RequestEncoding<'_>) {
    let upgrade = head.upgrade.filter(|_| plan.upgrade);
    let options: &[u8] = match (upgrade.is_some(), head.te_trailers) {
        (true, false) => b"Connection: upgrade\r\n",
        (true, true) => b"Connection: upgrade, TE\r\n",
        (false, true) => b"Connection: TE\r\n",
        (false, false) => b"",
    };
    out.extend_from_slice(options);
    if let Some(protocols) = upgrade {
        field(out, b"Upgrade", protocols);
    }
    if head.te_trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
}

/// RFC 9110 section 15.5.22: a 426 names what it would have the client upgrade to. That is for the client to read, whatever we would
/// let it ask for.
#[cold]
fn upgrade_required(out: &mut Vec<u8>, fields: &Fields<'_>) {
    for (index, protocols) in fields.of_kind(FieldKind::Upgrade).enumerate() {
        if index == 0 {
            out.extend_from_slice(b"Connection: upgrade\r\n");
        }
        field(out, b"Upgrade", protocols);
    }
}

/// Names with `_` may pass to clients, which do not confuse them; fields that speak of clients mean nothing special in a response.
fn response_keeps(kind: FieldKind, trailers: bool) -> bool {
    match kind {
        FieldKind::EndToEnd | FieldKind::Date | FieldKind::MaxForwards | FieldKind::Underscored => true,
        FieldKind::Forwarded | FieldKind::XForwardedFor | FieldKind::XForwardedHost => true,
        FieldKind::XForwardedPort | FieldKind::XForwardedProto | FieldKind::XForwardedOther => true,
        FieldKind::ClientCert | FieldKind::XRealIp => true,
        FieldKind::Trailer => trailers,
        FieldKind::Connection | FieldKind::HopByHop | FieldKind::Nominated | FieldKind::Te | FieldKind::Upgrade => {
            false
        }
        FieldKind::ContentLength | FieldKind::TransferEncoding | FieldKind::Expect | FieldKind::Host => false,
    }
}

/// RFC 9110 section 7.6.3: names the version that was received. It comes behind the fields that were copied, as the list wants.
fn via(out: &mut Vec<u8>, received: Version) {
    out.extend_from_slice(match received {
        Version::Http10 => b"Via: 1.0 postern\r\n",
        Version::Http11 => b"Via: 1.1 postern\r\n",
        Version::Http2 => b"Via: 2.0 postern\r\n",
    });
}

/// Copies the fields whose kind `keeps` allows, without those that the request id or the configuration replaces.
fn copy_fields(
    out: &mut Vec<u8>,
    fields: &Fields<'_>,
    request_id: Option<RequestIdField<'_>>,
    edits: &FieldEdits,
    keeps: impl Fn(FieldKind) -> bool,
) {
    let bytes = fields.bytes;
    let replaced = |line: &Line| {
        let name = line.name(bytes);
        request_id.is_some_and(|id| id.name.as_bytes().eq_ignore_ascii_case(name)) || touches(edits, name)
    };
    // A run of canonical lines without a gap.
    let mut run = 0..0;
    for line in fields.lines {
        if line.canonical && keeps(line.kind) && !replaced(line) {
            if run.is_empty() {
                run.start = line.start as usize;
            }
            run.end = line.value_end as usize + 2;
            continue;
        }
        out.extend_from_slice(&bytes[run]);
        run = 0..0;
        if keeps(line.kind) && !replaced(line) {
            field(out, line.name(bytes), line.value(bytes));
        }
    }
    out.extend_from_slice(&bytes[run]);
}

#[cfg(test)]
mod tests;
