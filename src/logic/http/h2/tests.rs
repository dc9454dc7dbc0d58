use super::*;
use crate::logic::http::{BodyFraming, FieldSlots, HeadLimits, Parsed, parse_request};

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 8, target: 64 };

fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| -> (HeaderName, HeaderValue) {
        (name.parse().expect("a name"), HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
    };
    let mut fields = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        fields.append(name, value);
    }
    fields
}

fn get<'a>(fields: &'a HeaderMap) -> RequestParts<'a> {
    RequestParts {
        method: &Method::GET,
        scheme: Some("https"),
        authority: Some("a.example"),
        path: "/x?y",
        fields,
        ended: true,
    }
}

fn written(request: &RequestParts<'_>) -> Result<String, RequestFault> {
    let mut out = Vec::new();
    write_request(&mut out, request, LIMITS.fields)?;
    Ok(String::from_utf8(out).expect("ASCII here"))
}

#[test]
fn a_request_is_written_as_its_head_in_http_1_1() {
    let fields = fields(&[("accept", "*/*"), ("x-empty", ""), ("te", "trailers")]);
    let head = "GET /x?y HTTP/1.1\r\nHost: a.example\r\naccept: */*\r\nx-empty: \r\nte: trailers\r\n\r\n";
    assert_eq!(written(&get(&fields)).as_deref(), Ok(head));
    let mut slots = FieldSlots::new();
    let Ok(Parsed::Complete(parsed)) = parse_request(head.as_bytes(), &mut slots, &LIMITS) else { panic!("{head}") };
    assert_eq!((parsed.host, parsed.path, parsed.query), ("a.example", "/x", Some("y")));
    assert!(parsed.te_trailers);
}

#[test]
fn content_is_framed_by_its_length_or_in_chunks() {
    for (pairs, ended, framing) in [
        (&[][..], true, BodyFraming::None),
        (&[], false, BodyFraming::Chunked),
        (&[("content-length", "7")], false, BodyFraming::Length(7)),
        (&[("content-length", "0")], true, BodyFraming::Length(0)),
    ] {
        let fields = fields(pairs);
        let head = written(&RequestParts { ended, ..get(&fields) }).expect("well-formed");
        let mut slots = FieldSlots::new();
        let Ok(Parsed::Complete(parsed)) = parse_request(head.as_bytes(), &mut slots, &LIMITS) else {
            panic!("{head}")
        };
        assert_eq!(parsed.framing, framing, "{head}");
    }
}

#[test]
fn crumbs_go_on_as_one_cookie() {
    let fields = fields(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]);
    let head = written(&get(&fields)).expect("well-formed");
    assert!(head.ends_with("x: y\r\nCookie: a=1; b=2; c=3; d=4\r\n\r\n"), "{head}");
}

#[test]
fn fields_and_crumbs_have_a_bound_each() {
    let names: Vec<String> = (0..=LIMITS.fields).map(|index| format!("x-{index}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert!(written(&get(&fields(&pairs[1..]))).is_ok());
    assert_eq!(written(&get(&fields(&pairs))), Err(FieldFault::TooMany.into()));

    let crumbs = vec![("cookie", "a=1"); limits::COOKIE_CRUMBS + 1];
    assert!(written(&get(&fields(&crumbs[1..]))).is_ok());
    assert_eq!(written(&get(&fields(&crumbs))), Err(FieldFault::TooMany.into()));
}

#[test]
fn fields_that_http_2_has_no_use_for_are_refused() {
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
    ] {
        assert_eq!(written(&get(&fields(&[(name, value)]))), Err(RequestFault::ConnectionField), "{name}: {value}");
    }
}

#[test]
fn values_begin_and_end_without_white_space() {
    for value in [" a", "a ", "\ta", "a\t", " "] {
        assert_eq!(written(&get(&fields(&[("x", value)]))), Err(RequestFault::PaddedValue), "{value:?}");
    }
    assert!(written(&get(&fields(&[("x", "a b\tc")]))).is_ok());
}

#[test]
fn the_host_is_the_authority_with_which_a_host_field_agrees() {
    let cases = [
        (Some("a.example"), &[][..], Ok("a.example")),
        (Some("a.example"), &[("host", "A.example")], Ok("a.example")),
        (Some("a.example"), &[("host", "a.example:443")], Ok("a.example")),
        (Some("a.example"), &[("host", "a.example:80")], Err(RequestFault::HostMismatch)),
        (Some("a.example"), &[("host", "b.example")], Err(RequestFault::HostMismatch)),
        (Some("a.example"), &[("host", "a.example"), ("host", "a.example")], Err(RequestFault::RepeatedHost)),
        (Some("user@a.example"), &[], Err(RequestFault::BadHost)),
        (Some(""), &[], Err(RequestFault::BadHost)),
        (None, &[("host", "b.example")], Ok("b.example")),
        (None, &[("host", "b example")], Err(RequestFault::BadHost)),
    ];
    for (authority, pairs, expected) in cases {
        let fields = fields(pairs);
        let head = written(&RequestParts { authority, ..get(&fields) });
        let host = head.map(|head| head.lines().nth(1).expect("a host").to_owned());
        assert_eq!(host, expected.map(|host| format!("Host: {host}")), "{authority:?} {pairs:?}");
    }
}

#[test]
fn a_request_without_any_host_is_for_the_parser_to_refuse() {
    let fields = fields(&[]);
    let head = written(&RequestParts { authority: None, ..get(&fields) }).expect("written as it is");
    let mut slots = FieldSlots::new();
    assert_eq!(parse_request(head.as_bytes(), &mut slots, &LIMITS).err(), Some(RequestFault::MissingHost));
}

#[test]
fn targets_are_paths_or_the_asterisk_of_options() {
    let options = Method::OPTIONS;
    let fields = fields(&[]);
    for (method, path, expected) in [
        (&Method::GET, "/", None),
        (&options, "*", None),
        (&Method::GET, "*", Some(RequestFault::BadTargetForm)),
        (&Method::GET, "", Some(RequestFault::BadTargetForm)),
        (&Method::GET, "a", Some(RequestFault::BadTargetForm)),
        (&Method::GET, "http://a.example/", Some(RequestFault::BadTargetForm)),
        (&Method::GET, "/a b", Some(RequestFault::BadTargetByte)),
        (&Method::GET, "/a\r\nx: y", Some(RequestFault::BadTargetByte)),
        (&Method::GET, "/a#b", Some(RequestFault::BadTargetByte)),
        (&Method::GET, "/\u{e9}", Some(RequestFault::BadTargetByte)),
        (&Method::CONNECT, "/", Some(RequestFault::Connect)),
    ] {
        assert_eq!(written(&RequestParts { method, path, ..get(&fields) }).err(), expected, "{method} {path}");
    }
    let scheme = Some("ftp");
    assert_eq!(written(&RequestParts { scheme, ..get(&fields) }), Err(RequestFault::BadTargetForm));
}

#[test]
fn trailers_lose_what_may_not_come_behind_content() {
    let trailers = fields(&[("grpc-status", "0"), ("content-length", "3"), ("authorization", "x"), ("x-a", "b")]);
    let mut out = Vec::new();
    write_trailers(&mut out, &trailers).expect("well-formed");
    assert_eq!(out, b"grpc-status: 0\r\nx-a: b\r\n");
    assert_eq!(read_trailers(out.into()), fields(&[("grpc-status", "0"), ("x-a", "b")]));

    let padded = write_trailers(&mut Vec::new(), &fields(&[("x", "a ")]));
    assert_eq!(padded, Err(BodyFault::BadTrailer(FieldFault::ControlCharacter)));
}

#[test]
fn an_encoded_request_is_read_for_an_upstream_that_speaks_http_2() {
    let head = "POST /x?y HTTP/1.1\r\nHost: a.example:8080\r\nX-Own: 1\r\nConnection: TE\r\nTE: trailers\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let request = read_request(&Bytes::from_static(head.as_bytes()), true).expect("it can be carried");
    assert_eq!((request.method(), request.uri().to_string()), (&Method::POST, "https://a.example:8080/x?y".to_owned()));
    assert_eq!(request.headers(), &fields(&[("x-own", "1"), ("te", "trailers")]));

    let head = Bytes::from_static(b"GET /<> HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(read_request(&head, false).err(), Some(RequestFault::BadTargetByte));
}

#[test]
fn a_response_of_an_upstream_is_framed_by_what_follows_it() {
    for (status, pairs, ended, to_head, expected) in [
        (200, &[("x", "y")][..], false, false, "HTTP/1.1 200 OK\r\nx: y\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (200, &[], true, false, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (200, &[("content-length", "7")], false, false, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"),
        (200, &[], true, true, "HTTP/1.1 200 OK\r\n\r\n"),
        (204, &[], true, false, "HTTP/1.1 204 No Content\r\n\r\n"),
        (103, &[("link", "</a>")], true, false, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
        (
            200,
            &[("transfer-encoding", "chunked"), ("connection", "x")],
            true,
            false,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        *response.headers_mut() = fields(pairs);
        let mut out = Vec::new();
        write_response(&mut out, &response, ended, to_head);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}

#[test]
fn a_response_is_read_without_what_belongs_to_a_connection() {
    let head = "HTTP/1.1 404 Not Found\r\nServer: x\r\nConnection: close\r\nX-Empty: \r\nSet-Cookie: a\r\n\
                Set-Cookie: b\r\nTransfer-Encoding: chunked\r\n\r\ncontent";
    let (response, content) = read_response(Bytes::from_static(head.as_bytes()));
    assert_eq!(response.status(), 404);
    let expected = fields(&[("server", "x"), ("x-empty", ""), ("set-cookie", "a"), ("set-cookie", "b")]);
    assert_eq!(response.headers(), &expected);
    assert_eq!(content, "content");
}
