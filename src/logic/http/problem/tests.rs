//! What a client reads when Postern itself answers.

use std::collections::BTreeSet;

use super::super::encode::{Persistence, RequestIdField};
use super::super::fields::FieldFault;
use super::super::head::{HeadLimits, Parsed};
use super::super::reply::{self, Reply};
use super::super::response::{ResponseContext, ResponseHead, parse_response};
use super::super::{BodyFraming, FieldSlots};
use super::*;
use crate::config::plan::FieldEdits;
use crate::config::secret::Text;

const CONTEXT: ReplyContext<'static> = ReplyContext {
    request_id: Some(RequestIdField { name: "x-request-id", value: b"42" }),
    head_only: false,
    persistence: Persistence::Implied,
    date: "Sun, 06 Nov 1994 08:49:37 GMT",
};

/// Every kind that has a slug of its own, with the faults that share one.
#[rustfmt::skip]
const KINDS: &[(ProblemKind, u16, &str)] = {
    use ProblemKind::*;
    use RequestFault as R;
    &[
        (Request(R::BadMethod), 400, "bad-method"),
        (Request(R::Connect), 501, "connect-not-implemented"),
        (Request(R::BadRequestLine), 400, "bad-request-line"),
        (Request(R::BadTargetByte), 400, "bad-target"),
        (Request(R::BadTargetForm), 400, "bad-target"),
        (Request(R::TargetTooLong), 414, "target-too-long"),
        (Request(R::BadVersion), 400, "bad-version"),
        (Request(R::UnsupportedVersion), 505, "unsupported-version"),
        (Request(R::HeadTooLong), 431, "head-too-long"),
        (Request(R::MissingHost), 400, "bad-host"),
        (Request(R::RepeatedHost), 400, "bad-host"),
        (Request(R::BadHost), 400, "bad-host"),
        (Request(R::BadMaxForwards), 400, "bad-max-forwards"),
        (Request(R::ConnectionField), 400, "connection-field"),
        (Request(R::PaddedValue), 400, "bad-field-value"),
        (Request(R::Misdirected), 421, "misdirected"),
        (Request(R::HostMismatch), 400, "host-mismatch"),
        (Request(R::UnknownExpectation), 417, "unknown-expectation"),
        (Request(R::Field(FieldFault::EmptyName)), 400, "bad-field-name"),
        (Request(R::Field(FieldFault::BadName)), 400, "bad-field-name"),
        (Request(R::Field(FieldFault::SpaceBeforeColon)), 400, "space-before-colon"),
        (Request(R::Field(FieldFault::FoldedLine)), 400, "folded-field"),
        (Request(R::Field(FieldFault::BareCarriageReturn)), 400, "bad-line-end"),
        (Request(R::Field(FieldFault::BareLineFeed)), 400, "bad-line-end"),
        (Request(R::Field(FieldFault::ControlCharacter)), 400, "bad-field-value"),
        (Request(R::Field(FieldFault::TooMany)), 431, "too-many-fields"),
        (Request(R::Field(FieldFault::BadContentLength)), 400, "bad-content-length"),
        (Request(R::Field(FieldFault::RepeatedContentLength)), 400, "bad-content-length"),
        (Request(R::Field(FieldFault::LengthAndTransferEncoding)), 400, "ambiguous-length"),
        (Request(R::Field(FieldFault::BadTransferEncoding)), 400, "bad-transfer-encoding"),
        (Request(R::Field(FieldFault::RepeatedTransferEncoding)), 400, "bad-transfer-encoding"),
        (Request(R::Field(FieldFault::UnsupportedTransferCoding)), 501, "unsupported-transfer-coding"),
        (Request(R::Field(FieldFault::TransferEncodingInHttp10)), 400, "bad-transfer-encoding"),
        (Request(R::Field(FieldFault::BadConnectionOption)), 400, "bad-connection-option"),
        (Request(R::Field(FieldFault::TooManyConnectionOptions)), 400, "bad-connection-option"),
        (Request(R::Field(FieldFault::ProtectedConnectionOption)), 400, "bad-connection-option"),
        (Body(BodyFault::Truncated), 400, "truncated-content"),
        (Body(BodyFault::BadChunkSize), 400, "bad-chunk-size"),
        (Body(BodyFault::BadChunkExtension), 400, "bad-chunk-extension"),
        (Body(BodyFault::ChunkExtensionTooLong), 400, "bad-chunk-extension"),
        (Body(BodyFault::BadChunkEnd), 400, "bad-chunk-end"),
        (Body(BodyFault::TrailersTooLong), 431, "bad-trailers"),
        (Body(BodyFault::BadTrailer(FieldFault::BadName)), 400, "bad-trailers"),
        (Target(TargetFault::NoSlash), 400, "bad-path"),
        (Target(TargetFault::BadByte), 400, "bad-path"),
        (Target(TargetFault::BadEscape), 400, "bad-path"),
        (Target(TargetFault::Nul), 400, "bad-path"),
        (Target(TargetFault::Backslash), 400, "bad-path"),
        (Target(TargetFault::AboveRoot), 400, "bad-path"),
        (RouteNotFound, 404, "route-not-found"),
        (MethodNotAllowed, 405, "method-not-allowed"),
        (RequestTimeout, 408, "request-timeout"),
        (ContentTooLarge, 413, "content-too-large"),
        (NoEndpoint, 503, "no-endpoint"),
        (ConnectFailed, 502, "connect-failed"),
        (UpstreamReset, 502, "upstream-reset"),
        (BadUpstreamResponse, 502, "bad-upstream-response"),
        (UpstreamFull, 503, "upstream-full"),
        (PendingTimeout, 503, "pending-timeout"),
        (ConnectTimeout, 504, "connect-timeout"),
        (UpstreamTimeout, 504, "upstream-timeout"),
        (DeadlineExceeded, 504, "deadline-exceeded"),
    ]
};

/// The head and the content of a reply, which must be one whole message.
fn message(bytes: &[u8], head_request: bool, check: impl FnOnce(&ResponseHead<'_>, &[u8])) {
    let limits = HeadLimits { bytes: 4096, fields: 32, target: 0 };
    let context = ResponseContext { head_request, upgrade: None };
    let mut slots = FieldSlots::new();
    let Ok(Parsed::Complete(head)) = parse_response(bytes, &mut slots, &limits, context) else {
        panic!("no reply: {}", bytes.escape_ascii())
    };
    let content = &bytes[head.len..];
    match head.framing {
        BodyFraming::Length(length) => assert_eq!(content.len() as u64, length),
        BodyFraming::None => assert!(content.is_empty()),
        BodyFraming::Chunked | BodyFraming::UntilClose => panic!("a reply has a length"),
    }
    check(&head, content);
}

fn told(problem: &Problem<'_>, context: &ReplyContext<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    reply(&mut out, problem, context);
    out
}

#[test]
fn every_kind_is_a_problem_document_with_its_own_type() {
    for (kind, status, slug) in KINDS {
        assert_eq!((kind.status(), kind.slug()), (*status, *slug));
        message(&told(&(*kind).into(), &CONTEXT), false, |head, content| {
            assert_eq!(head.status, *status);
            assert!(!head.reason.is_empty());
            assert_eq!(head.fields.first("content-type"), Some(b"application/problem+json".as_slice()));
            assert_eq!(head.fields.first("cache-control"), Some(b"no-store".as_slice()));
            assert_eq!(head.fields.first("x-request-id"), Some(b"42".as_slice()));
            let document: serde_json::Value = serde_json::from_slice(content).expect("JSON");
            assert_eq!(document["type"], format!("urn:postern:problem:{slug}"));
            assert_eq!(document["status"], *status);
            assert_eq!(document["detail"], kind.to_string());
            assert_eq!(document["request_id"], "42");
            assert!(document["title"].as_str().is_some_and(|title| !title.is_empty()));
        });
    }
}

#[test]
fn every_slug_is_listed_once_and_in_order() {
    let slugs: BTreeSet<&str> = KINDS.iter().map(|(_, _, slug)| *slug).collect();
    assert_eq!(SLUGS, slugs.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_reply_is_written_byte_for_byte() {
    let problem = Problem { allow: Some("GET, HEAD"), ..ProblemKind::MethodNotAllowed.into() };
    let context = ReplyContext { persistence: Persistence::Close, ..CONTEXT };
    assert_eq!(
        String::from_utf8_lossy(&told(&problem, &context)),
        "HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\
         Content-Type: application/problem+json\r\nCache-Control: no-store\r\nAllow: GET, HEAD\r\nx-request-id: 42\r\n\
         Content-Length: 164\r\n\r\n\
         {\"type\":\"urn:postern:problem:method-not-allowed\",\"title\":\"Method Not Allowed\",\"status\":405,\
         \"detail\":\"the method is not allowed on this resource\",\"request_id\":\"42\"}\n"
    );
}

#[test]
fn a_reply_to_head_announces_the_content_and_leaves_it_out() {
    let problem = ProblemKind::UpstreamFull.into();
    let with_content = told(&problem, &CONTEXT);
    let without = told(&problem, &ReplyContext { head_only: true, ..CONTEXT });
    assert!(with_content.starts_with(&without));
    message(&without, true, |head, _| {
        assert_eq!(head.content_length, Some((with_content.len() - without.len()) as u64));
    });
}

#[test]
fn what_is_not_ours_is_escaped_in_json() {
    let id = "a\"b\\c\u{1}\u{e9}";
    let mut out = String::new();
    write_content(&mut out, ProblemKind::RouteNotFound, Some(id)).expect("a String takes everything");
    assert!(out.contains(r#""request_id":"a\"b\\c\u0001"#), "{out}");
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(document["request_id"], id);
}

#[test]
fn a_route_may_spell_out_a_reply() {
    let edits = FieldEdits {
        remove: Vec::new(),
        set: vec![("content-type".into(), Text::Plain("text/html".into()))],
        add: vec![("X-A".into(), Text::Plain("b".into()))],
    };
    let plain = Reply { status: 200, content_type: Some("text/plain"), content: b"hello", edits: &NO_EDITS };
    let cases: &[(Reply<'_>, bool, &str)] = &[
        (plain, false, "200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"),
        (plain, true, "200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"),
        (Reply { content_type: None, content: b"", ..plain }, false, "200 OK\r\nContent-Length: 0\r\n\r\n"),
        (Reply { status: 204, content_type: None, ..plain }, false, "204 No Content\r\n\r\n"),
        (Reply { status: 304, content_type: None, ..plain }, false, "304 Not Modified\r\n\r\n"),
        (Reply { status: 599, content_type: None, ..plain }, false, "599 \r\nContent-Length: 5\r\n\r\nhello"),
        (
            Reply { edits: &edits, ..plain },
            false,
            "200 OK\r\ncontent-type: text/html\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello",
        ),
    ];
    for (spelt, head_only, expected) in cases {
        let context = ReplyContext { request_id: None, head_only: *head_only, ..CONTEXT };
        let mut out = Vec::new();
        reply::reply(&mut out, spelt, &context);
        let (line, rest) = expected.split_once("\r\n").expect("a status line");
        let expected = format!("HTTP/1.1 {line}\r\nDate: {}\r\n{rest}", CONTEXT.date);
        assert_eq!(String::from_utf8_lossy(&out), expected);
        message(&out, *head_only, |head, _| assert_eq!(head.status, spelt.status));
    }
}
