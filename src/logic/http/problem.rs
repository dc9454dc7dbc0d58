//! Postern's own errors as replies (RFC 9457): the only place where one becomes bytes.
//!
//! Every kind has a stable `type`, `urn:postern:problem:` and its [slug](ProblemKind::slug), which clients may match on; a status; and a
//! detail that says what happened in words safe for any client: no addresses, no names of upstreams, no configuration. The request id
//! leads to the rest in the logs.

use std::fmt::{self, Write};

use thiserror::Error;

use super::chunked::BodyFault;
use super::encode::{NO_EDITS, field, finish};
use super::framing::BodyFraming;
use super::reply::{ReplyContext, begin, reason};
use super::request::RequestFault;
use super::target::TargetFault;

/// What went wrong, for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ProblemKind {
    #[error(transparent)]
    Request(#[from] RequestFault),
    #[error(transparent)]
    Body(#[from] BodyFault),
    #[error(transparent)]
    Target(#[from] TargetFault),
    #[error("no route matches this host and path")]
    RouteNotFound,
    #[error("the method is not allowed on this resource")]
    MethodNotAllowed,
    #[error("the request did not arrive in time")]
    RequestTimeout,
    #[error("the content is longer than this resource takes")]
    ContentTooLarge,
    #[error("no address of the upstream is known")]
    NoEndpoint,
    #[error("no connection to the upstream could be made")]
    ConnectFailed,
    #[error("the upstream broke the connection before it answered")]
    UpstreamReset,
    #[error("the upstream's answer is not valid HTTP")]
    BadUpstreamResponse,
    #[error("too many requests wait for the upstream")]
    UpstreamFull,
    #[error("no connection to the upstream became free in time")]
    PendingTimeout,
    #[error("the upstream could not be reached in time")]
    ConnectTimeout,
    #[error("the upstream did not answer in time")]
    UpstreamTimeout,
    #[error("the request was not finished within its deadline")]
    DeadlineExceeded,
}

impl ProblemKind {
    pub fn status(self) -> u16 {
        match self {
            ProblemKind::Request(fault) => fault.status(),
            ProblemKind::Body(fault) => fault.status(),
            ProblemKind::Target(_) => 400,
            ProblemKind::RouteNotFound => 404,
            ProblemKind::MethodNotAllowed => 405,
            ProblemKind::RequestTimeout => 408,
            ProblemKind::ContentTooLarge => 413,
            ProblemKind::ConnectFailed | ProblemKind::UpstreamReset | ProblemKind::BadUpstreamResponse => 502,
            ProblemKind::NoEndpoint | ProblemKind::UpstreamFull | ProblemKind::PendingTimeout => 503,
            ProblemKind::ConnectTimeout | ProblemKind::UpstreamTimeout | ProblemKind::DeadlineExceeded => 504,
        }
    }

    /// What access logs call it, in Envoy's vocabulary of response flags.
    pub fn flags(self) -> &'static str {
        match self {
            ProblemKind::Request(_) | ProblemKind::Body(_) | ProblemKind::Target(_) => "DPE",
            ProblemKind::RequestTimeout | ProblemKind::ContentTooLarge => "DPE",
            ProblemKind::RouteNotFound | ProblemKind::MethodNotAllowed => "NR",
            ProblemKind::NoEndpoint => "UH",
            ProblemKind::ConnectFailed | ProblemKind::ConnectTimeout => "UF",
            ProblemKind::UpstreamReset => "UC",
            ProblemKind::BadUpstreamResponse => "UPE",
            ProblemKind::UpstreamFull | ProblemKind::PendingTimeout => "UO",
            ProblemKind::UpstreamTimeout => "UT",
            ProblemKind::DeadlineExceeded => "UT",
        }
    }

    /// The stable name: the last part of `type`, and what logs and metrics call it.
    pub fn slug(self) -> &'static str {
        match self {
            ProblemKind::Request(fault) => fault.slug(),
            ProblemKind::Body(fault) => fault.slug(),
            ProblemKind::Target(_) => "bad-path",
            ProblemKind::RouteNotFound => "route-not-found",
            ProblemKind::MethodNotAllowed => "method-not-allowed",
            ProblemKind::RequestTimeout => "request-timeout",
            ProblemKind::ContentTooLarge => "content-too-large",
            ProblemKind::NoEndpoint => "no-endpoint",
            ProblemKind::ConnectFailed => "connect-failed",
            ProblemKind::UpstreamReset => "upstream-reset",
            ProblemKind::BadUpstreamResponse => "bad-upstream-response",
            ProblemKind::UpstreamFull => "upstream-full",
            ProblemKind::PendingTimeout => "pending-timeout",
            ProblemKind::ConnectTimeout => "connect-timeout",
            ProblemKind::UpstreamTimeout => "upstream-timeout",
            ProblemKind::DeadlineExceeded => "deadline-exceeded",
        }
    }
}

/// Every slug that there is, for counters that are made before anything went wrong.
pub const SLUGS: &[&str] = &[
    "ambiguous-length",
    "bad-chunk-end",
    "bad-chunk-extension",
    "bad-chunk-size",
    "bad-connection-option",
    "bad-content-length",
    "bad-field-name",
    "bad-field-value",
    "bad-host",
    "bad-line-end",
    "bad-max-forwards",
    "bad-method",
    "bad-path",
    "bad-request-line",
    "bad-target",
    "bad-trailers",
    "bad-transfer-encoding",
    "bad-upstream-response",
    "bad-version",
    "connect-failed",
    "connect-not-implemented",
    "connect-timeout",
    "connection-field",
    "content-too-large",
    "deadline-exceeded",
    "folded-field",
    "head-too-long",
    "host-mismatch",
    "method-not-allowed",
    "misdirected",
    "no-endpoint",
    "pending-timeout",
    "request-timeout",
    "route-not-found",
    "space-before-colon",
    "target-too-long",
    "too-many-fields",
    "truncated-content",
    "unknown-expectation",
    "unsupported-transfer-coding",
    "unsupported-version",
    "upstream-full",
    "upstream-reset",
    "upstream-timeout",
];

/// One reply's problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem<'a> {
    pub kind: ProblemKind,
    /// The methods that would be allowed, as `GET, HEAD`; a 405 must name them (RFC 9110 section 15.5.6).
    pub allow: Option<&'a str>,
}

impl From<ProblemKind> for Problem<'_> {
    fn from(kind: ProblemKind) -> Self {
        Problem { kind, allow: None }
    }
}

/// Appends the whole response that tells a client of `problem`.
pub fn reply(out: &mut Vec<u8>, problem: &Problem<'_>, context: &ReplyContext<'_>) {
    begin(out, problem.kind.status(), context);
    field(out, b"Content-Type", b"application/problem+json");
    // Some of these statuses may be stored by default (RFC 9110 section 15.1), and none outlives its cause.
    field(out, b"Cache-Control", b"no-store");
    if let Some(allow) = problem.allow {
        field(out, b"Allow", allow.as_bytes());
    }
    let request_id = context.request_id.and_then(|id| str::from_utf8(id.value).ok());
    let mut length = Length(0);
    write_content(&mut length, problem.kind, request_id).expect("counting does not fail");
    finish(out, BodyFraming::Length(length.0), context.request_id, &NO_EDITS);
    if !context.head_only {
        write_content(&mut Bytes(out), problem.kind, request_id).expect("a Vec takes everything");
    }
}

fn write_content(sink: &mut impl Write, kind: ProblemKind, request_id: Option<&str>) -> fmt::Result {
    let status = kind.status();
    write!(sink, r#"{{"type":"urn:postern:problem:{}","title":"{}","#, kind.slug(), reason(status))?;
    write!(sink, r#""status":{status},"detail":""#)?;
    write!(Escaped(sink), "{kind}")?;
    if let Some(id) = request_id {
        sink.write_str(r#"","request_id":""#)?;
        Escaped(sink).write_str(id)?;
    }
    sink.write_str("\"}\n")
}

/// Counts what would be written.
struct Length(u64);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len() as u64;
        Ok(())
    }
}

struct Bytes<'a>(&'a mut Vec<u8>);

impl Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The inside of a JSON string (RFC 8259 section 7).
struct Escaped<'a, W>(&'a mut W);

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '"' | '\\' => write!(self.0, "\\{character}")?,
                '\0'..='\x1f' => write!(self.0, "\\u{:04x}", u32::from(character))?,
                _ => self.0.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
