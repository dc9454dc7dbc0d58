//! HTTP/2 messages as the HTTP/1.1 heads that they would be, and the other way round (RFC 9113 section 8).
//!
//! There is one form in which heads are understood, routed and rewritten: their bytes in HTTP/1.1. So a request in HTTP/2 is first held against the
//! rules that only HTTP/2 has, then written as such a head, and [`parse_request`](super::parse_request) decides about the rest: no rule can
//! hold for one version and be forgotten for the other. What goes out is written by [`encode`](super::encode) and taken apart here.

pub mod frames;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::authority::Authority;
use super::chunked::BodyFault;
use super::encode::{content_length, field, status_line};
use super::fields::{FieldFault, FieldKind, is_forbidden_trailer};
use super::octets;
use super::reply::reason;
use super::request::RequestFault;
use crate::config::limits;

/// What a request in HTTP/2 says.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    pub method: &'a Method,
    /// `None` where there is no authority either.
    pub scheme: Option<&'a str>,
    pub authority: Option<&'a str>,
    pub path: &'a str,
    pub fields: &'a HeaderMap,
    /// Nothing follows the head.
    pub ended: bool,
}

/// Appends `request` as a head of HTTP/1.1. Of its fields, `max_fields` may come, and as many cookie crumbs as [`limits::COOKIE_CRUMBS`].
///
/// # Errors
/// The request is malformed (RFC 9113 section 8.1.1), or more than is taken. What remains to be found wrong, the head's parser finds.
pub fn write_request(out: &mut Vec<u8>, request: &RequestParts<'_>, max_fields: usize) -> Result<(), RequestFault> {
    if request.method == Method::CONNECT {
        return Err(RequestFault::Connect);
    }
    if request.scheme.is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(RequestFault::BadTargetForm);
    }
    let is_asterisk = request.path == "*" && request.method == Method::OPTIONS;
    if !request.path.starts_with('/') && !is_asterisk {
        return Err(RequestFault::BadTargetForm);
    }
    if octets::target_end(request.path.as_bytes(), 0) < request.path.len() {
        return Err(RequestFault::BadTargetByte);
    }
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(host) = host(request)? {
        field(out, b"Host", host);
    }
    write_fields(out, request.fields, max_fields)?;
    if !request.ended && !request.fields.contains_key(CONTENT_LENGTH) {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// What is asked for: `:authority`, or `Host` where that is left out (RFC 9113 section 8.3.1). Given both, they must agree.
fn host<'a>(request: &RequestParts<'a>) -> Result<Option<&'a [u8]>, RequestFault> {
    let mut hosts = request.fields.get_all(HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(RequestFault::RepeatedHost);
    }
    let parse = |bytes| Authority::parse(bytes).ok_or(RequestFault::BadHost);
    let Some(authority) = request.authority else {
        return host.map(|host| parse(host).map(|_| host)).transpose();
    };
    let named = parse(authority.as_bytes())?;
    let default_port = if request.scheme == Some("https") { 443 } else { 80 };
    match host.map(parse).transpose()? {
        Some(host) if !named.is_same(&host, default_port) => Err(RequestFault::HostMismatch),
        _ => Ok(Some(authority.as_bytes())),
    }
}

/// Cookies come in crumbs, one field each, and go on as one (RFC 9113 section 8.2.3).
fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap, max_fields: usize) -> Result<(), RequestFault> {
    let (mut count, mut crumbs) = (0, 0);
    for (name, value) in fields {
        match name {
            &COOKIE => crumbs += 1,
            _ => count += 1,
        }
        if count > max_fields || crumbs > limits::COOKIE_CRUMBS {
            return Err(FieldFault::TooMany.into());
        }
        if is_padded(value.as_bytes()) {
            return Err(RequestFault::PaddedValue);
        }
        match FieldKind::of(name.as_str().as_bytes()) {
            FieldKind::Connection | FieldKind::TransferEncoding | FieldKind::Upgrade => {
                return Err(RequestFault::ConnectionField);
            }
            FieldKind::HopByHop if is_connection_specific(name) => return Err(RequestFault::ConnectionField),
            FieldKind::Te if value != "trailers" => return Err(RequestFault::ConnectionField),
            FieldKind::Host => {}
            _ if name == COOKIE => {}
            _ => field(out, name.as_str().as_bytes(), value.as_bytes()),
        }
    }
    for (index, crumb) in fields.get_all(COOKIE).iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"Cookie: " } else { b"; " });
        out.extend_from_slice(crumb.as_bytes());
    }
    if crumbs > 0 {
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// The hop-by-hop fields that may not even come (RFC 9113 section 8.2.2). The others of their kind are consumed here like everywhere.
fn is_connection_specific(name: &HeaderName) -> bool {
    name == "keep-alive" || name == "proxy-connection"
}

/// RFC 9113 section 8.2.1: such a value is malformed, where HTTP/1.1 would take the white space off.
fn is_padded(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.first()) || is_space(value.last())
}

/// A request head that was [encoded](super::encode::request) for an upstream, for one that speaks HTTP/2.
///
/// # Errors
/// The target holds a byte that only HTTP/1.1 can carry.
///
/// # Panics
/// When `head` is not what our encoder writes.
pub fn read_request(head: &Bytes, encrypted: bool) -> Result<Request<()>, RequestFault> {
    let line = memchr::memchr(b'\n', head).expect("a request line was written") + 1;
    let mut words = head[..line].split(|&byte| byte == b' ');
    let mut word = || words.next().expect("a request line has three words");
    let (method, target) = (word(), word());
    let mut request = Request::new(());
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = Method::from_bytes(method).expect("a method was written");
    read_fields(head, line, request.headers_mut());
    let host = request.headers_mut().remove(HOST).expect("a host was written");
    let uri = Uri::builder().scheme(if encrypted { "https" } else { "http" }).authority(host.as_bytes());
    *request.uri_mut() = uri.path_and_query(target).build().map_err(|_| RequestFault::BadTargetByte)?;
    Ok(request)
}

/// Appends a response of an upstream as a head of HTTP/1.1, for [`parse_response`](super::parse_response) to decide about. `ended`: nothing follows
/// it.
pub fn write_response(out: &mut Vec<u8>, response: &Response<()>, ended: bool, to_head: bool) {
    let status = response.status().as_u16();
    // Some clients of HTTP/1.1 miss a reason.
    status_line(out, status, reason(status).as_bytes());
    let mut has_length = false;
    for (name, value) in response.headers() {
        // What a connection of HTTP/2 must not say is not repeated; least of all what would frame the content.
        if !is_of_a_connection(name.as_str().as_bytes()) {
            has_length |= name == CONTENT_LENGTH;
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let may_have_content = !response.status().is_informational() && !matches!(status, 204 | 304);
    if may_have_content && !has_length {
        match ended {
            true if to_head => {}
            true => content_length(out, 0),
            false => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends trailer fields as [`last_chunk`](super::encode::last_chunk) takes them, without those that may not come behind content.
///
/// # Errors
/// One of them is malformed.
pub fn write_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) -> Result<(), BodyFault> {
    for (name, value) in trailers {
        if is_padded(value.as_bytes()) {
            return Err(BodyFault::BadTrailer(FieldFault::ControlCharacter));
        }
        if !is_forbidden_trailer(name.as_str().as_bytes()) {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    Ok(())
}

/// A response head that was [encoded](super::encode::response) for the client, and what stands behind it. Fields that HTTP/2 does not have are left
/// out.
///
/// # Panics
/// When `head` is not what our encoder writes.
pub fn read_response(head: Bytes) -> (Response<()>, Bytes) {
    let line = memchr::memchr(b'\n', &head).expect("a status line was written") + 1;
    let status = StatusCode::from_bytes(&head[STATUS]).expect("a status was written");
    let mut response = Response::new(());
    *response.status_mut() = status;
    let end = read_fields(&head, line, response.headers_mut());
    (response, head.slice(end..))
}

/// Behind `HTTP/1.1 `.
const STATUS: std::ops::Range<usize> = 9..12;

/// Trailer fields, as [`write_trailers`] and the readers of chunked bodies give them.
pub fn read_trailers(lines: Bytes) -> HeaderMap {
    let mut fields = HeaderMap::new();
    read_fields(&lines, 0, &mut fields);
    fields
}

/// Takes apart the field lines from `at` on. Returns where the empty line behind them ends, or the bytes do.
fn read_fields(bytes: &Bytes, mut at: usize, fields: &mut HeaderMap) -> usize {
    while let Some(len) = memchr::memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..(at + len).saturating_sub(1)];
        let next = at + len + 1;
        let Some(colon) = memchr::memchr(b':', line) else { return next };
        let name = &line[..colon];
        if !is_of_a_connection(name) {
            let value = bytes.slice((at + colon + 2).min(at + line.len())..at + line.len());
            let value = HeaderValue::from_maybe_shared(value).expect("parsed before it was written");
            let name = HeaderName::from_bytes(name).expect("parsed before it was written");
            fields.append(name, value);
        }
        at = next;
    }
    at
}

/// Whether our encoders write a field of this name for a connection that speaks HTTP/1.1.
fn is_of_a_connection(name: &[u8]) -> bool {
    matches!(
        FieldKind::of(name),
        FieldKind::Connection | FieldKind::TransferEncoding | FieldKind::Upgrade | FieldKind::HopByHop
    )
}

#[cfg(test)]
mod tests;
