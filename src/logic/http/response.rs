//! Response heads (RFC 9112 sections 4 and 6.3): what an upstream answered, and which bytes after the head belong to it.

use thiserror::Error;

use super::facts::Facts;
use super::fields::{FieldFault, FieldSlots, Fields};
use super::framing::BodyFraming;
use super::head::{HeadLimits, LineEnd, Parsed, VERSION_BYTES, Version, VersionToken, line_end, version};
use super::octets;

/// What must be known of the request to read its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseContext<'a> {
    /// The request was a HEAD: the response has no content, whatever its fields say.
    pub head_request: bool,
    /// The protocols that were asked for, as [`RequestHead::upgrade`](super::RequestHead::upgrade) gives them. A 101 to
    /// anything else is a fault.
    pub upgrade: Option<&'a [u8]>,
}

/// A response head that may be believed.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'b> {
    pub version: Version,
    /// 100..=599.
    pub status: u16,
    /// May hold obs-text, never control characters but `HTAB`.
    pub reason: &'b [u8],
    pub fields: Fields<'b>,
    pub framing: BodyFraming,
    /// `Content-Length`, which responses to HEAD and 304 carry without content; `None` where it must not be (1xx, 204).
    pub content_length: Option<u64>,
    /// The connection may be used again once this message has ended.
    pub persistent: bool,
    /// The protocols that a 101 switches to, all of which were asked for; `None` in every other response.
    pub upgrade: Option<&'b [u8]>,
    /// There is a `Date`.
    pub dated: bool,
    /// Bytes of the head.
    pub len: usize,
}

impl ResponseHead<'_> {
    /// Another response to the same request follows (1xx but 101).
    pub fn is_interim(&self) -> bool {
        self.status < 200 && !self.is_switching()
    }

    /// 101: what follows is another protocol.
    pub fn is_switching(&self) -> bool {
        self.status == 101
    }
}

/// Why a response head was refused. The client gets a 502 that does not say which; the text is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ResponseFault {
    #[error("the status line is not a version, a status and a reason")]
    BadStatusLine,
    #[error("the version is not HTTP/1.0 or HTTP/1.1")]
    UnsupportedVersion,
    #[error("the status is not between 100 and 599")]
    BadStatus,
    #[error("the reason phrase holds a control character")]
    BadReason,
    #[error("the response head is too long")]
    HeadTooLong,
    #[error("a 1xx response announces content")]
    InterimWithContent,
    #[error("the response switches to a protocol that it does not name or that was not asked for")]
    UnaskedSwitch,
    #[error(transparent)]
    Field(#[from] FieldFault),
}

/// Parses the response head that `bytes` begins with. Nothing may come before it.
///
/// # Errors
/// The first thing that is wrong, as soon as it is there; see [`ResponseFault`].
pub fn parse_response<'b>(
    bytes: &'b [u8],
    slots: &'b mut FieldSlots,
    limits: &HeadLimits,
    context: ResponseContext<'_>,
) -> Result<Parsed<ResponseHead<'b>>, ResponseFault> {
    let window = limits.window(bytes);
    let mut facts = Facts::default();
    if let Some(line) = status_line(window)?
        && let Some((fields, len)) = facts.gather(window, line.end, slots, limits.field_count(), line.version)?
    {
        return assemble(&line, &facts, context, fields, len);
    }
    if limits.is_exhausted(window) { Err(ResponseFault::HeadTooLong) } else { Ok(Parsed::Partial) }
}

struct StatusLine<'b> {
    version: Version,
    status: u16,
    reason: &'b [u8],
    end: usize,
}

fn status_line(bytes: &[u8]) -> Result<Option<StatusLine<'_>>, ResponseFault> {
    let version = match version(bytes) {
        VersionToken::Known(version) => version,
        VersionToken::Foreign => return Err(ResponseFault::UnsupportedVersion),
        VersionToken::Malformed => return Err(ResponseFault::BadStatusLine),
        VersionToken::Partial => return Ok(None),
    };
    let Some(status) = status_code(&bytes[VERSION_BYTES..])? else { return Ok(None) };
    // The space before an empty reason is often left out; nothing hinges on it.
    let status_end = VERSION_BYTES + 4;
    let reason_start = match bytes.get(status_end) {
        Some(b' ') => status_end + 1,
        Some(b'\r' | b'\n') => status_end,
        Some(_) => return Err(ResponseFault::BadStatusLine),
        None => return Ok(None),
    };
    let line_bytes = octets::value_end(bytes, reason_start);
    let reason = &bytes[reason_start..line_bytes];
    match line_end(&bytes[line_bytes..]) {
        LineEnd::Ended => Ok(Some(StatusLine { version, status, reason, end: line_bytes + 2 })),
        LineEnd::Partial => Ok(None),
        LineEnd::BareCarriageReturn => Err(FieldFault::BareCarriageReturn.into()),
        LineEnd::BareLineFeed => Err(FieldFault::BareLineFeed.into()),
        LineEnd::Other => Err(ResponseFault::BadReason),
    }
}

/// ` 3DIGIT`
fn status_code(bytes: &[u8]) -> Result<Option<u16>, ResponseFault> {
    let token = &bytes[..bytes.len().min(4)];
    let Some((space, digits)) = token.split_first() else { return Ok(None) };
    if *space != b' ' || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ResponseFault::BadStatusLine);
    }
    let [hundreds, tens, ones] = digits else { return Ok(None) };
    let status = [hundreds, tens, ones].iter().fold(0, |value, &&digit| value * 10 + u16::from(digit - b'0'));
    if (100..=599).contains(&status) { Ok(Some(status)) } else { Err(ResponseFault::BadStatus) }
}

fn assemble<'b>(
    line: &StatusLine<'b>,
    facts: &Facts<'b>,
    context: ResponseContext<'_>,
    fields: Fields<'b>,
    len: usize,
) -> Result<Parsed<ResponseHead<'b>>, ResponseFault> {
    let StatusLine { version, status, reason, .. } = *line;
    let announces_content = facts.chunked || facts.content_length.is_some_and(|length| length > 0);
    if status < 200 && announces_content {
        return Err(ResponseFault::InterimWithContent);
    }
    let upgrade = match status {
        101 => Some(switched(facts.upgrade(version), context.upgrade).ok_or(ResponseFault::UnaskedSwitch)?),
        _ => None,
    };
    let framing = BodyFraming::of_response(status, context.head_request, facts.content_length, facts.chunked);
    // A 204 that announces content may well send some, which would be read as the next response.
    let certain = framing != BodyFraming::UntilClose && !(status == 204 && announces_content);
    Ok(Parsed::Complete(ResponseHead {
        version,
        status,
        reason,
        fields,
        framing,
        content_length: facts.content_length.filter(|_| status >= 200 && status != 204),
        persistent: facts.persistent(version) && certain,
        upgrade,
        dated: facts.dated,
        len,
    }))
}

/// What a 101 has chosen, if all of it was asked for (RFC 9110 section 7.8). Bytes behind a 101 go both ways unread, so both sides
/// must mean the same by them.
fn switched<'b>(chosen: Option<&'b [u8]>, asked: Option<&[u8]>) -> Option<&'b [u8]> {
    let (chosen, asked) = (chosen?, asked?);
    let was_asked = |protocol: &[u8]| octets::list(asked).any(|other| other.eq_ignore_ascii_case(protocol));
    octets::list(chosen).all(was_asked).then_some(chosen)
}

#[cfg(test)]
mod tests;
