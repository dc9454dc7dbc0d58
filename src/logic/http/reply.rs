//! Responses of our own: what every one of them has, and those that a route spells out.

use super::encode::{Persistence, RequestIdField, field, finish, status_line};
use super::forwarded::touches;
use super::framing::BodyFraming;
use crate::config::plan::FieldEdits;

/// What a reply must know of the request and the connection that it answers.
#[derive(Clone, Copy, Debug)]
pub struct ReplyContext<'a> {
    pub request_id: Option<RequestIdField<'a>>,
    /// The request was a HEAD: the content is announced and left out.
    pub head_only: bool,
    pub persistence: Persistence,
    /// Now, as an IMF-fixdate (RFC 9110 section 5.6.7).
    pub date: &'a str,
}

/// A reply that a route spells out.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// 200..=599.
    pub status: u16,
    pub content_type: Option<&'a str>,
    /// Left out when the status has no content (204, 304).
    pub content: &'a [u8],
    pub edits: &'a FieldEdits,
}

/// Appends a whole response.
pub fn reply(out: &mut Vec<u8>, reply: &Reply<'_>, context: &ReplyContext<'_>) {
    begin(out, reply.status, context);
    if let Some(content_type) = reply.content_type.filter(|_| !touches(reply.edits, b"content-type")) {
        field(out, b"Content-Type", content_type.as_bytes());
    }
    let has_content = !matches!(reply.status, 204 | 304);
    let framing = if has_content { BodyFraming::Length(reply.content.len() as u64) } else { BodyFraming::None };
    finish(out, framing, context.request_id, reply.edits);
    if has_content && !context.head_only {
        out.extend_from_slice(reply.content);
    }
}

/// The status line and what all our replies say.
pub(super) fn begin(out: &mut Vec<u8>, status: u16, context: &ReplyContext<'_>) {
    status_line(out, status, reason(status).as_bytes());
    field(out, b"Date", context.date.as_bytes());
    context.persistence.write(out);
}

/// The usual reason phrase; empty for statuses that have none.
pub(super) fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}
