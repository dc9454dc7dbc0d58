//! Request heads (RFC 9112 sections 2 and 3): what is asked, of whom, and which bytes after the head belong to it.

use thiserror::Error;

use super::authority::Authority;
use super::facts::{Facts, Once};
use super::fields::{FieldFault, FieldSlots, Fields};
use super::framing::BodyFraming;
use super::head::{
    HeadLimits, LineEnd, Parsed, VERSION_BYTES, Version, VersionToken, decimal, line_end, token_run, version,
};
use super::method::Method;
use super::octets;

/// A request head that may be believed.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'b> {
    pub method: Method<'b>,
    /// As it came: `/path?query`, `http://host/path?query` or `*` (RFC 9112 section 3.2). The authority-form belongs to CONNECT, which is
    /// refused.
    pub target: &'b str,
    pub version: Version,
    /// Host and port as the client wrote them, in any case of letters; empty in an HTTP/1.0 request that names no host.
    pub host: &'b str,
    /// Begins with `/`, or is `*` where an OPTIONS names no path. As it came: see [`target::normalize`](super::target::normalize).
    pub path: &'b str,
    /// What follows the first `?`, without it.
    pub query: Option<&'b str>,
    pub fields: Fields<'b>,
    /// Never [`BodyFraming::UntilClose`].
    pub framing: BodyFraming,
    /// The client expects to send another request on this connection.
    pub persistent: bool,
    /// The client waits for a 100 before it sends content; never set when there is none to send, nor in HTTP/1.0.
    pub expect_continue: bool,
    /// The protocols asked for, if the request may be upgraded at all: HTTP/1.1, without content, and to something else than HTTP.
    pub upgrade: Option<&'b [u8]>,
    /// How many more times an OPTIONS or TRACE may be forwarded, this time included (RFC 9110 section 7.6.2). Other methods have no bound,
    /// whatever their field says.
    pub max_forwards: Option<u64>,
    /// The client understands trailers (`TE: trailers`).
    pub te_trailers: bool,
    /// Bytes of the head, with a tolerated empty line before it.
    pub len: usize,
}

/// Why a request head was refused. What the client gets to read is the text; the connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum RequestFault {
    #[error("the method is not a token")]
    BadMethod,
    #[error("CONNECT is not offered here")]
    Connect,
    #[error("the request line is not a method, a target and a version, with one space between each")]
    BadRequestLine,
    #[error("the request target holds a byte that targets may not hold")]
    BadTargetByte,
    #[error("the request target is neither a path, nor an http or https URI, nor the * of OPTIONS")]
    BadTargetForm,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the version is not written as HTTP/1.1")]
    BadVersion,
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    UnsupportedVersion,
    #[error("the request head is too long")]
    HeadTooLong,
    #[error("Host is missing")]
    MissingHost,
    #[error("Host is given more than once")]
    RepeatedHost,
    #[error("Host is neither a host name nor an address in its shortest form, with or without a port")]
    BadHost,
    #[error("the host of the request target is not the one in Host")]
    HostMismatch,
    #[error("the expectation is not 100-continue")]
    UnknownExpectation,
    #[error("Max-Forwards is not one decimal number")]
    BadMaxForwards,
    #[error("the request holds a field that HTTP/2 has no use for")]
    ConnectionField,
    #[error("a field value begins or ends with white space")]
    PaddedValue,
    #[error("the host is not one that this connection's certificate is for")]
    Misdirected,
    #[error(transparent)]
    Field(#[from] FieldFault),
}

impl RequestFault {
    /// The status for the client.
    pub fn status(self) -> u16 {
        match self {
            RequestFault::TargetTooLong => 414,
            RequestFault::UnknownExpectation => 417,
            RequestFault::HeadTooLong => 431,
            RequestFault::Connect => 501,
            RequestFault::Misdirected => 421,
            RequestFault::UnsupportedVersion => 505,
            RequestFault::Field(fault) => fault.status(),
            RequestFault::BadMethod
            | RequestFault::BadRequestLine
            | RequestFault::BadTargetByte
            | RequestFault::BadTargetForm
            | RequestFault::BadVersion
            | RequestFault::MissingHost
            | RequestFault::RepeatedHost
            | RequestFault::BadHost
            | RequestFault::HostMismatch
            | RequestFault::BadMaxForwards
            | RequestFault::ConnectionField
            | RequestFault::PaddedValue => 400,
        }
    }

    /// A stable name, the last part of the problem's `type`.
    pub fn slug(self) -> &'static str {
        match self {
            RequestFault::BadMethod => "bad-method",
            RequestFault::Connect => "connect-not-implemented",
            RequestFault::BadRequestLine => "bad-request-line",
            RequestFault::BadTargetByte | RequestFault::BadTargetForm => "bad-target",
            RequestFault::TargetTooLong => "target-too-long",
            RequestFault::BadVersion => "bad-version",
            RequestFault::UnsupportedVersion => "unsupported-version",
            RequestFault::HeadTooLong => "head-too-long",
            RequestFault::MissingHost | RequestFault::RepeatedHost | RequestFault::BadHost => "bad-host",
            RequestFault::HostMismatch => "host-mismatch",
            RequestFault::UnknownExpectation => "unknown-expectation",
            RequestFault::BadMaxForwards => "bad-max-forwards",
            RequestFault::ConnectionField => "connection-field",
            RequestFault::PaddedValue => "bad-field-value",
            RequestFault::Misdirected => "misdirected",
            RequestFault::Field(fault) => fault.slug(),
        }
    }
}

/// Parses the request head that `bytes` begins with. One empty line before it is passed over (RFC 9112 section 2.2).
///
/// # Errors
/// The first thing that is wrong, as soon as it is there; see [`RequestFault`].
pub fn parse_request<'b>(
    bytes: &'b [u8],
    slots: &'b mut FieldSlots,
    limits: &HeadLimits,
) -> Result<Parsed<RequestHead<'b>>, RequestFault> {
    let window = limits.window(bytes);
    let mut facts = Facts::default();
    if let Some(line) = request_line(window, limits)?
        && let Some((fields, len)) = facts.gather(window, line.end, slots, limits.field_count(), line.version)?
    {
        return assemble(&line, &facts, fields, len);
    }
    if limits.is_exhausted(window) { Err(RequestFault::HeadTooLong) } else { Ok(Parsed::Partial) }
}

struct RequestLine<'b> {
    method: Method<'b>,
    target: &'b str,
    /// Of an absolute-form target.
    authority: Option<(Authority<'b>, u16)>,
    path: &'b str,
    query: Option<&'b str>,
    version: Version,
    end: usize,
}

fn request_line<'b>(bytes: &'b [u8], limits: &HeadLimits) -> Result<Option<RequestLine<'b>>, RequestFault> {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let method_end = start + token_run(&bytes[start..]);
    match bytes.get(method_end) {
        Some(b' ') if method_end > start => {}
        None => return Ok(None),
        Some(_) if method_end == start => return empty_line(&bytes[start..], start),
        Some(b'\r' | b'\n') => return Err(RequestFault::BadRequestLine),
        Some(_) => return Err(RequestFault::BadMethod),
    }
    let target_start = method_end + 1;
    let target_end = octets::target_end(bytes, target_start);
    if target_end - target_start > limits.target {
        return Err(RequestFault::TargetTooLong);
    }
    match bytes.get(target_end) {
        Some(b' ') if target_end > target_start => {}
        None => return Ok(None),
        Some(b' ' | b'\r' | b'\n') => return Err(RequestFault::BadRequestLine),
        Some(_) => return Err(RequestFault::BadTargetByte),
    }
    let version_start = target_end + 1;
    let version = match version(&bytes[version_start..]) {
        VersionToken::Known(version) => version,
        VersionToken::Foreign => return Err(RequestFault::UnsupportedVersion),
        VersionToken::Malformed => return Err(RequestFault::BadVersion),
        VersionToken::Partial => return Ok(None),
    };
    let line_bytes = version_start + VERSION_BYTES;
    match line_end(&bytes[line_bytes..]) {
        LineEnd::Ended => {}
        LineEnd::Partial => return Ok(None),
        LineEnd::BareCarriageReturn => return Err(FieldFault::BareCarriageReturn.into()),
        LineEnd::BareLineFeed => return Err(FieldFault::BareLineFeed.into()),
        LineEnd::Other => return Err(RequestFault::BadRequestLine),
    }
    let method = Method::from_token(&bytes[start..method_end]);
    if method == Method::Connect {
        return Err(RequestFault::Connect);
    }
    let target = str::from_utf8(&bytes[target_start..target_end]).expect("targets are ASCII");
    let mut line = split_target(method, target, version)?;
    line.end = line_bytes + 2;
    Ok(Some(line))
}

/// No method where one should begin.
#[cold]
fn empty_line<'b>(bytes: &[u8], skipped: usize) -> Result<Option<RequestLine<'b>>, RequestFault> {
    match line_end(bytes) {
        LineEnd::Partial => Ok(None),
        LineEnd::BareCarriageReturn if skipped == 0 => Err(FieldFault::BareCarriageReturn.into()),
        LineEnd::BareLineFeed => Err(FieldFault::BareLineFeed.into()),
        LineEnd::BareCarriageReturn | LineEnd::Ended => Err(RequestFault::BadRequestLine),
        LineEnd::Other => Err(RequestFault::BadMethod),
    }
}

fn split_target<'b>(method: Method<'b>, target: &'b str, version: Version) -> Result<RequestLine<'b>, RequestFault> {
    let mut line = RequestLine { method, target, authority: None, path: "", query: None, version, end: 0 };
    if target.starts_with('/') {
        (line.path, line.query) = split_query(target);
        return Ok(line);
    }
    if target == "*" && method == Method::Options {
        line.path = target;
        return Ok(line);
    }
    let (rest, default_port) = if let Some(rest) = strip_prefix_ignore_case(target, "http://") {
        (rest, 80)
    } else if let Some(rest) = strip_prefix_ignore_case(target, "https://") {
        (rest, 443)
    } else {
        return Err(RequestFault::BadTargetForm);
    };
    let authority_bytes = rest.bytes().take_while(|byte| !matches!(byte, b'/' | b'?')).count();
    let (authority, rest) = rest.split_at(authority_bytes);
    line.authority = Some((Authority::parse(authority.as_bytes()).ok_or(RequestFault::BadHost)?, default_port));
    (line.path, line.query) = split_query(rest);
    if line.path.is_empty() {
        // An OPTIONS for the whole server reads `*` behind the last proxy (RFC 9112 section 3.2.4).
        line.path = if method == Method::Options && line.query.is_none() { "*" } else { "/" };
    }
    Ok(line)
}

fn split_query(target: &str) -> (&str, Option<&str>) {
    match memchr::memchr(b'?', target.as_bytes()) {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

fn strip_prefix_ignore_case<'b>(text: &'b str, prefix: &str) -> Option<&'b str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn assemble<'b>(
    line: &RequestLine<'b>,
    facts: &Facts<'b>,
    fields: Fields<'b>,
    len: usize,
) -> Result<Parsed<RequestHead<'b>>, RequestFault> {
    let authority = authority(line, facts)?;
    let framing = BodyFraming::of_request(facts.content_length, facts.chunked);
    let has_content = !matches!(framing, BodyFraming::None | BodyFraming::Length(0));
    let continues = match facts.expect {
        Once::Absent => false,
        Once::Value(value) if value.eq_ignore_ascii_case(b"100-continue") => true,
        Once::Value(_) | Once::Repeated => return Err(RequestFault::UnknownExpectation),
    };
    Ok(Parsed::Complete(RequestHead {
        method: line.method,
        target: line.target,
        version: line.version,
        host: authority.map_or("", |authority| authority.text),
        path: line.path,
        query: line.query,
        fields,
        framing,
        persistent: facts.persistent(line.version),
        expect_continue: continues && has_content && line.version == Version::Http11,
        upgrade: facts.upgrade(line.version).filter(|_| !has_content),
        max_forwards: match line.method {
            Method::Options | Method::Trace => max_forwards(facts)?,
            _ => None,
        },
        te_trailers: facts.te_trailers,
        len,
    }))
}

/// The one authority of the request. An absolute-form target and `Host` must agree: RFC 9112 section 3.2.2 lets the target win, and a
/// backend that takes `Host` instead would serve another site than the one that was routed.
fn authority<'b>(line: &RequestLine<'b>, facts: &Facts<'b>) -> Result<Option<Authority<'b>>, RequestFault> {
    let host = match facts.host {
        Once::Value(value) => Some(Authority::parse(value).ok_or(RequestFault::BadHost)?),
        Once::Repeated => return Err(RequestFault::RepeatedHost),
        Once::Absent if line.version == Version::Http11 => return Err(RequestFault::MissingHost),
        Once::Absent => None,
    };
    match (&line.authority, host) {
        (Some((target, default_port)), Some(host)) if !target.is_same(&host, *default_port) => {
            Err(RequestFault::HostMismatch)
        }
        (_, Some(host)) => Ok(Some(host)),
        (target, None) => Ok(target.map(|(authority, _)| authority)),
    }
}

/// A number that is larger than any we know means as many as we like (RFC 9110 section 7.6.2).
fn max_forwards(facts: &Facts<'_>) -> Result<Option<u64>, RequestFault> {
    match facts.max_forwards {
        Once::Absent => Ok(None),
        Once::Value(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            Ok(Some(decimal(digits).unwrap_or(u64::MAX)))
        }
        Once::Value(_) | Once::Repeated => Err(RequestFault::BadMaxForwards),
    }
}

#[cfg(test)]
mod tests;
