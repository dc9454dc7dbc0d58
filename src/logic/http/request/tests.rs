//! RFC 9112 as tables: what is accepted and as what, what is refused and why. Every row is judged at every cut, too.

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 512, fields: 8, target: 64 };

fn parse(bytes: &[u8]) -> Result<Parsed<String>, RequestFault> {
    Ok(match parse_request(bytes, &mut FieldSlots::new(), &LIMITS)? {
        Parsed::Complete(head) => Parsed::Complete(summary(&head)),
        Parsed::Partial => Parsed::Partial,
    })
}

/// What the head says, on one line; flags that are off are left out.
fn summary(head: &RequestHead<'_>) -> String {
    let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut text = format!("{} {}{query} at {:?} {:?}", head.method, head.path, head.host, head.framing);
    for (flag, name) in [(head.persistent, "stays"), (head.expect_continue, "expects"), (head.te_trailers, "trailers")]
    {
        if flag {
            text += &format!(" {name}");
        }
    }
    if let Some(forwards) = head.max_forwards {
        text += &format!(" forwards:{forwards}");
    }
    if let Some(protocols) = head.upgrade {
        text += &format!(" upgrade:{}", String::from_utf8_lossy(protocols));
    }
    text
}

/// The verdict on `bytes`, which must be the same however they come: nothing before it is known, and nothing else afterwards.
fn verdict(bytes: &[u8]) -> Result<Parsed<String>, RequestFault> {
    let whole = parse(bytes);
    let mut settled = false;
    for cut in 0..=bytes.len() {
        match parse(&bytes[..cut]) {
            Ok(Parsed::Partial) => {
                assert!(!settled, "verdict withdrawn at {cut} of {:?}", bytes.escape_ascii().to_string())
            }
            early => {
                assert_eq!(early, whole, "at {cut} of {:?}", bytes.escape_ascii().to_string());
                settled = true;
            }
        }
    }
    whole
}

#[test]
fn heads_are_accepted_as_rfc_9112_means_them() {
    let cases: &[(&str, &str)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / at \"a\" None stays"),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / at \"a\" None stays"),
        ("GET / HTTP/1.1\r\nhOsT:a:80 \t\r\n\r\n", "GET / at \"a:80\" None stays"),
        ("GET /a?b?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?b?c at \"a\" None stays"),
        ("GET /? HTTP/1.1\r\nHost: a\r\n\r\n", "GET /? at \"a\" None stays"),
        ("GET //a HTTP/1.1\r\nHost: a\r\n\r\n", "GET //a at \"a\" None stays"),
        ("get /a HTTP/1.1\r\nHost: a\r\n\r\n", "get /a at \"a\" None stays"),
        ("M-SEARCH /a HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH /a at \"a\" None stays"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * at \"a\" None stays"),
        // Absolute form: section 3.2.2, 3.2.4.
        ("GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /b?c at \"a\" None stays"),
        ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / at \"a\" None stays"),
        ("GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?b at \"a\" None stays"),
        ("GET HTTP://A:80/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET / at \"a\" None stays"),
        ("GET https://a/ HTTP/1.1\r\nHost: a:443\r\n\r\n", "GET / at \"a:443\" None stays"),
        ("GET http://a/ HTTP/1.0\r\n\r\n", "GET / at \"a\" None"),
        ("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * at \"a\" None stays"),
        ("OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS / at \"a\" None stays"),
        // Versions and persistence: sections 2.3, 9.3.
        ("GET / HTTP/1.7\r\nHost: a\r\n\r\n", "GET / at \"a\" None stays"),
        ("GET / HTTP/1.0\r\n\r\n", "GET / at \"\" None"),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / at \"\" None stays"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "GET / at \"\" None"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", "GET / at \"a\" None"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: ,x,\r\nConnection: close ,\r\n\r\n", "GET / at \"a\" None"),
        // Framing: section 6.
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST / at \"a\" Length(0) stays"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0012\r\n\r\n", "POST / at \"a\" Length(12) stays"),
        ("GET / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", "GET / at \"\" Length(3)"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
            "GET / at \"a\" Length(18446744073709551615) stays",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", "POST / at \"a\" Chunked stays"),
        // RFC 9110 section 10.1.1.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n",
            "POST / at \"a\" Length(1) stays expects",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
            "POST / at \"a\" Length(0) stays",
        ),
        ("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", "POST / at \"\" Length(1)"),
        // RFC 9110 section 7.6.2.
        ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 07\r\n\r\n", "OPTIONS / at \"a\" None stays forwards:7"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", "TRACE / at \"a\" None stays forwards:0"),
        (
            "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 18446744073709551616\r\n\r\n",
            "TRACE / at \"a\" None stays forwards:18446744073709551615",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: a\r\n\r\n", "GET / at \"a\" None stays"),
        // RFC 9110 sections 7.8 and 10.1.4.
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / at \"a\" None stays upgrade:websocket",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "GET / at \"a\" None stays"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", "GET / at \"a\" None stays"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x, HTTP/2.0\r\n\r\n",
            "GET / at \"a\" None stays",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: TLS/1.0\r\n\r\n", "GET / at \"a\" None stays"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n",
            "GET / at \"a\" None stays",
        ),
        ("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / at \"\" None"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: b\r\nContent-Length: 1\r\n\r\n",
            "POST / at \"a\" Length(1) stays",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: gzip, Trailers\r\n\r\n",
            "GET / at \"a\" None stays trailers",
        ),
        // Values.
        ("GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB: \t \r\nC: \u{fc}\t~\r\n\r\n", "GET / at \"a\" None stays"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(verdict(bytes.as_bytes()), Ok(Parsed::Complete((*expected).to_owned())), "{bytes:?}");
    }
}

#[test]
fn request_lines_are_refused_when_they_could_be_read_in_two_ways() {
    use RequestFault::*;
    let cases: &[(&[u8], RequestFault, u16)] = &[
        (b"\r\n\r\nGET / HTTP/1.1\r\n", BadRequestLine, 400),
        (b"\nGET / HTTP/1.1\r\n", Field(FieldFault::BareLineFeed), 400),
        (b"\rGET / HTTP/1.1\r\n", Field(FieldFault::BareCarriageReturn), 400),
        (b" GET / HTTP/1.1\r\n", BadMethod, 400),
        (b"G(T / HTTP/1.1\r\n", BadMethod, 400),
        (b"GET\x00 / HTTP/1.1\r\n", BadMethod, 400),
        (b"GET\t/ HTTP/1.1\r\n", BadMethod, 400),
        (b"\x16\x03\x01\x02\x00", BadMethod, 400),
        (b"GET\r\n", BadRequestLine, 400),
        (b"GET  / HTTP/1.1\r\n", BadRequestLine, 400),
        (b"GET /\r\n", BadRequestLine, 400),
        (b"GET /  HTTP/1.1\r\n", BadVersion, 400),
        (b"GET / a HTTP/1.1\r\n", BadVersion, 400),
        (b"GET / HTTP/1.1 \r\n", BadRequestLine, 400),
        (b"GET / HTTP/1.11\r\n", BadRequestLine, 400),
        (b"GET / HTTP/1.1\n", Field(FieldFault::BareLineFeed), 400),
        (b"GET / HTTP/1.1\rHost: a\r\n", Field(FieldFault::BareCarriageReturn), 400),
        (b"GET / http/1.1\r\n", BadVersion, 400),
        (b"GET / HTTP/1,1\r\n", BadVersion, 400),
        (b"GET / HTTP/11\r\n", BadVersion, 400),
        (b"GET / HTTP/2\r\n", BadVersion, 400),
        (b"GET / HTTP/2.0\r\n", UnsupportedVersion, 505),
        (b"GET / HTTP/0.9\r\n", UnsupportedVersion, 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", UnsupportedVersion, 505),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Connect, 501),
        (b"GET a:80 HTTP/1.1\r\n", BadTargetForm, 400),
        (b"GET a HTTP/1.1\r\n", BadTargetForm, 400),
        (b"GET * HTTP/1.1\r\n", BadTargetForm, 400),
        (b"GET ?a HTTP/1.1\r\n", BadTargetForm, 400),
        (b"OPTIONS *a HTTP/1.1\r\n", BadTargetForm, 400),
        (b"GET ftp://a/ HTTP/1.1\r\n", BadTargetForm, 400),
        (b"GET http:/a HTTP/1.1\r\n", BadTargetForm, 400),
        (b"GET http:///a HTTP/1.1\r\n", BadHost, 400),
        (b"GET http://u@a/ HTTP/1.1\r\n", BadHost, 400),
        (b"GET /#a HTTP/1.1\r\n", BadTargetByte, 400),
        (b"GET /\x00 HTTP/1.1\r\n", BadTargetByte, 400),
        (b"GET /\x7f HTTP/1.1\r\n", BadTargetByte, 400),
        (b"GET /\t HTTP/1.1\r\n", BadTargetByte, 400),
        (b"GET /\xc3\xbc HTTP/1.1\r\n", BadTargetByte, 400),
    ];
    refused(cases);
}

#[test]
fn fields_are_refused_when_they_could_be_read_in_two_ways() {
    use FieldFault::*;
    let cases: &[(&[u8], FieldFault, u16)] = &[
        // Syntax: sections 2.2, 5.1, 5.2.
        (b"A : b\r\n", SpaceBeforeColon, 400),
        (b"A\t: b\r\n", SpaceBeforeColon, 400),
        (b" A: b\r\n", FoldedLine, 400),
        (b"A: b\r\n c\r\n", FoldedLine, 400),
        (b"A: b\r\n\tc: d\r\n", FoldedLine, 400),
        (b": b\r\n", EmptyName, 400),
        (b"A\r\n", BadName, 400),
        (b"A\x00: b\r\n", BadName, 400),
        (b"\"A\": b\r\n", BadName, 400),
        (b"A(: b\r\n", BadName, 400),
        (b"\xc3\xbc: b\r\n", BadName, 400),
        (b"A\rB: c\r\n", BadName, 400),
        (b"A: b\n", BareLineFeed, 400),
        (b"A\n", BareLineFeed, 400),
        (b"\nA: b\r\n", BareLineFeed, 400),
        (b"A: b\nB: c\r\n", BareLineFeed, 400),
        (b"A: b\rB: c\r\n", BareCarriageReturn, 400),
        (b"A: b\r\r\n", BareCarriageReturn, 400),
        (b"\rA: b\r\n", BareCarriageReturn, 400),
        (b"A: b\x00c\r\n", ControlCharacter, 400),
        (b"A: \x0b\r\n", ControlCharacter, 400),
        (b"A: \x7f\r\n", ControlCharacter, 400),
        (b"A: \x1b[0m\r\n", ControlCharacter, 400),
        // Content-Length: RFC 9110 section 8.6, RFC 9112 section 6.3.
        (b"Content-Length: +1\r\n", BadContentLength, 400),
        (b"Content-Length: -1\r\n", BadContentLength, 400),
        (b"Content-Length:\r\n", BadContentLength, 400),
        (b"Content-Length: 1 1\r\n", BadContentLength, 400),
        (b"Content-Length: 5, 5\r\n", BadContentLength, 400),
        (b"Content-Length: 0x5\r\n", BadContentLength, 400),
        (b"Content-Length: 5.0\r\n", BadContentLength, 400),
        (b"Content-Length: 18446744073709551616\r\n", BadContentLength, 400),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n", RepeatedContentLength, 400),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", RepeatedContentLength, 400),
        (b"Content-Length: 5\r\ncontent-length : 5\r\n", SpaceBeforeColon, 400),
        // Transfer-Encoding: RFC 9112 sections 6.1, 6.3.
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndTransferEncoding, 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", LengthAndTransferEncoding, 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", RepeatedTransferEncoding, 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", RepeatedTransferEncoding, 400),
        (b"Transfer-Encoding: chunked, chunked\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding: chunked,\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding: ,chunked\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding: chunked;a=b\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding: \"chunked\"\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding: \x0bchunked\r\n", ControlCharacter, 400),
        (b"Transfer-Encoding: xchunked\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding: chunked gzip\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding: identity\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding: chunked, identity\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding: gzip\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding:\r\n", BadTransferEncoding, 400),
        (b"Transfer-Encoding: gzip, chunked\r\n", UnsupportedTransferCoding, 501),
        // Connection: RFC 9110 section 7.6.1.
        (b"Connection: Host\r\n", ProtectedConnectionOption, 400),
        (b"Connection: close, content-length\r\n", ProtectedConnectionOption, 400),
        (b"Connection: Transfer-Encoding\r\n", ProtectedConnectionOption, 400),
        (b"Connection: authorization\r\n", ProtectedConnectionOption, 400),
        (b"Connection: cookie\r\n", ProtectedConnectionOption, 400),
        (b"Connection: cache-control\r\n", ProtectedConnectionOption, 400),
        (b"Connection: X-Forwarded-For\r\n", ProtectedConnectionOption, 400),
        (b"Connection: forwarded\r\n", ProtectedConnectionOption, 400),
        (b"Connection: x-real-ip\r\n", ProtectedConnectionOption, 400),
        (b"Connection: a b\r\n", BadConnectionOption, 400),
        (b"Connection: \"close\"\r\n", BadConnectionOption, 400),
    ];
    for (lines, fault, status) in cases {
        let bytes = [b"GET / HTTP/1.1\r\nHost: a\r\n", *lines, b"\r\n"].concat();
        refused(&[(&bytes, RequestFault::Field(*fault), *status)]);
    }
    refused(&[(
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        RequestFault::Field(TransferEncodingInHttp10),
        400,
    )]);
}

#[test]
fn a_bound_on_forwards_is_refused_unless_it_is_one_number() {
    use RequestFault::BadMaxForwards;
    refused(&[
        (b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards:\r\n\r\n", BadMaxForwards, 400),
        (b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: -1\r\n\r\n", BadMaxForwards, 400),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1, 1\r\n\r\n", BadMaxForwards, 400),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\nMax-Forwards: 1\r\n\r\n", BadMaxForwards, 400),
    ]);
}

#[test]
fn hosts_are_refused_unless_there_is_exactly_one() {
    use RequestFault::*;
    let cases: &[(&[u8], RequestFault, u16)] = &[
        (b"GET / HTTP/1.1\r\n\r\n", MissingHost, 400),
        (b"GET http://a/ HTTP/1.1\r\n\r\n", MissingHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", RepeatedHost, 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", RepeatedHost, 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", BadHost, 400),
        (b"GET / HTTP/1.0\r\nHost:\r\n\r\n", BadHost, 400),
        (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BadHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BadHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadHost, 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", HostMismatch, 400),
        (b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", HostMismatch, 400),
        (b"GET https://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n", HostMismatch, 400),
        (b"GET http://a/ HTTP/1.0\r\nHost: b\r\n\r\n", HostMismatch, 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", UnknownExpectation, 417),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect:\r\n\r\n", UnknownExpectation, 417),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\n\r\n", UnknownExpectation, 417),
    ];
    refused(cases);
}

#[test]
fn limits_are_exact_and_bind_before_the_head_is_whole() {
    let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(bytes - 1));
    assert!(matches!(verdict(target(LIMITS.target).as_bytes()), Ok(Parsed::Complete(_))));
    refused(&[(target(LIMITS.target + 1).as_bytes(), RequestFault::TargetTooLong, 414)]);
    let unfinished = "a".repeat(LIMITS.target);
    refused(&[(format!("GET /{unfinished}").as_bytes(), RequestFault::TargetTooLong, 414)]);

    let empty = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let head = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(bytes - empty));
    assert!(matches!(verdict(head(LIMITS.bytes).as_bytes()), Ok(Parsed::Complete(_))));
    refused(&[(head(LIMITS.bytes + 1).as_bytes(), RequestFault::HeadTooLong, 431)]);
    refused(&[(&[b'A'; 512], RequestFault::HeadTooLong, 431)]);

    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
    assert!(matches!(verdict(fields(LIMITS.fields).as_bytes()), Ok(Parsed::Complete(_))));
    refused(&[(fields(LIMITS.fields + 1).as_bytes(), RequestFault::Field(FieldFault::TooMany), 431)]);

    let options = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "a,".repeat(count));
    assert!(matches!(verdict(options(32).as_bytes()), Ok(Parsed::Complete(_))));
    refused(&[(options(33).as_bytes(), RequestFault::Field(FieldFault::TooManyConnectionOptions), 400)]);
}

#[test]
fn what_follows_a_head_is_not_part_of_it() {
    let bytes = b"\r\nPOST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\r\n\nGET";
    let mut slots = FieldSlots::new();
    let Ok(Parsed::Complete(head)) = parse_request(bytes, &mut slots, &LIMITS) else { panic!("a whole head") };
    assert_eq!(&bytes[head.len..], b"\r\n\nGET");
    assert_eq!(head.target, "/a");
    assert_eq!(head.fields.first("HOST"), Some(b"a".as_slice()));
    assert_eq!(head.fields.first("Hos"), None);
    assert_eq!(head.fields.len(), 2);
}

#[test]
fn methods_know_their_properties() {
    let cases = [
        ("GET", true, true),
        ("HEAD", true, true),
        ("OPTIONS", true, true),
        ("TRACE", true, true),
        ("PUT", false, true),
        ("DELETE", false, true),
        ("POST", false, false),
        ("PATCH", false, false),
        ("CONNECT", false, false),
        ("get", false, false),
        ("PURGE", false, false),
    ];
    for (name, safe, idempotent) in cases {
        let method = Method::from_token(name.as_bytes());
        assert_eq!((method.as_str(), method.is_safe(), method.is_idempotent()), (name, safe, idempotent));
        assert_eq!(method.is_head(), name == "HEAD");
    }
}

fn refused(cases: &[(&[u8], RequestFault, u16)]) {
    for (bytes, fault, status) in cases {
        assert_eq!(verdict(bytes), Err(*fault), "{:?}", bytes.escape_ascii().to_string());
        assert_eq!(fault.status(), *status);
    }
}
