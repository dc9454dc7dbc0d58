//! What gRPC wants to be told in place of a problem document, and how long its clients wait (the gRPC over HTTP/2 protocol, and its mapping of HTTP
//! statuses).

use std::fmt::Write;
use std::time::Duration;

use super::encode::{NO_EDITS, field, finish};
use super::fields::Fields;
use super::framing::BodyFraming;
use super::problem::ProblemKind;
use super::reply::{ReplyContext, begin};

const CONTENT_TYPE: &[u8] = b"application/grpc";

/// Statuses of gRPC that we have reason to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GrpcStatus {
    Unknown = 2,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl GrpcStatus {
    /// Clients try again what is unavailable, and nothing else by themselves.
    pub fn of(kind: ProblemKind) -> Self {
        match kind {
            ProblemKind::RouteNotFound | ProblemKind::MethodNotAllowed => Self::Unimplemented,
            ProblemKind::ContentTooLarge => Self::ResourceExhausted,
            ProblemKind::NoEndpoint | ProblemKind::ConnectFailed | ProblemKind::ConnectTimeout => Self::Unavailable,
            ProblemKind::UpstreamReset | ProblemKind::UpstreamFull | ProblemKind::PendingTimeout => Self::Unavailable,
            ProblemKind::RequestTimeout | ProblemKind::UpstreamTimeout | ProblemKind::DeadlineExceeded => {
                Self::DeadlineExceeded
            }
            ProblemKind::BadUpstreamResponse => Self::Internal,
            ProblemKind::Request(_) | ProblemKind::Body(_) | ProblemKind::Target(_) => match kind.status() {
                400 => Self::Internal,
                414 | 431 => Self::ResourceExhausted,
                501 => Self::Unimplemented,
                _ => Self::Unknown,
            },
        }
    }
}

/// Whether a message with these fields is of gRPC: `application/grpc`, with or without a suffix such as `+proto`.
pub fn is_grpc(fields: &Fields<'_>) -> bool {
    let Some(content_type) = fields.first("content-type") else { return false };
    let Some((start, rest)) = content_type.split_at_checked(CONTENT_TYPE.len()) else { return false };
    start.eq_ignore_ascii_case(CONTENT_TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// How long the client waits: `1*8DIGIT` and a unit. What is not written so says nothing.
pub fn timeout(fields: &Fields<'_>) -> Option<Duration> {
    let (unit, digits) = fields.first("grpc-timeout")?.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 60 * 60),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Appends the whole response that tells a client of a problem: a head that is the trailers as well.
pub fn reply(out: &mut Vec<u8>, kind: ProblemKind, context: &ReplyContext<'_>) {
    begin(out, 200, context);
    field(out, b"Content-Type", CONTENT_TYPE);
    field(out, b"grpc-status", itoa::Buffer::new().format(GrpcStatus::of(kind) as u8).as_bytes());
    out.extend_from_slice(b"grpc-message: ");
    for byte in kind.to_string().bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                let mut escaped = String::new();
                write!(escaped, "%{byte:02X}").expect("a String takes everything");
                out.extend_from_slice(escaped.as_bytes());
            }
            _ => out.push(byte),
        }
    }
    out.extend_from_slice(b"\r\n");
    finish(out, BodyFraming::None, context.request_id, &NO_EDITS);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::http::{FieldSlots, HeadLimits, Parsed, RequestFault, parse_request};

    const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 8, target: 64 };

    fn with_field<T>(name: &str, value: &str, look: impl FnOnce(&Fields<'_>) -> T) -> T {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\n\r\n");
        let mut slots = FieldSlots::new();
        match parse_request(head.as_bytes(), &mut slots, &LIMITS) {
            Ok(Parsed::Complete(head)) => look(&head.fields),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc;charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("application", false),
        ] {
            assert_eq!(with_field("content-type", value, is_grpc), expected, "{value}");
        }
        assert!(!with_field("accept", "application/grpc", is_grpc));
    }

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        for (value, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("100m", Some(Duration::from_millis(100))),
            ("5u", Some(Duration::from_micros(5))),
            ("7n", Some(Duration::from_nanos(7))),
            ("100000000S", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("1.5S", None),
        ] {
            assert_eq!(with_field("grpc-timeout", value, timeout), expected, "{value}");
        }
    }

    #[test]
    fn problems_become_the_statuses_that_clients_act_on() {
        for (kind, status) in [
            (ProblemKind::RouteNotFound, 12),
            (ProblemKind::ContentTooLarge, 8),
            (ProblemKind::UpstreamFull, 14),
            (ProblemKind::ConnectFailed, 14),
            (ProblemKind::DeadlineExceeded, 4),
            (ProblemKind::BadUpstreamResponse, 13),
            (ProblemKind::Request(RequestFault::BadHost), 13),
            (ProblemKind::Request(RequestFault::HeadTooLong), 8),
            (ProblemKind::Request(RequestFault::Connect), 12),
            (ProblemKind::Request(RequestFault::UnknownExpectation), 2),
        ] {
            assert_eq!(GrpcStatus::of(kind) as u8, status, "{kind:?}");
        }
    }
}
