//! Byte for byte: what the other side gets for what came.

use super::super::fields::FieldSlots;
use super::super::forwarded::ClientText;
use super::super::head::{HeadLimits, Parsed};
use super::super::request::parse_request;
use super::super::response::{ResponseContext, parse_response};
use super::*;
use crate::config::secret::Text;

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 32, target: 1024 };

/// Encodes the request `came`, with the plan that a plain route makes and `change` alters.
fn sent(came: &str, change: impl FnOnce(&mut RequestEncoding<'_>)) -> String {
    sent_with(&NO_EDITS, came, change)
}

fn sent_with(edits: &FieldEdits, came: &str, change: impl FnOnce(&mut RequestEncoding<'_>)) -> String {
    let mut slots = FieldSlots::new();
    let Ok(Parsed::Complete(head)) = parse_request(came.as_bytes(), &mut slots, &LIMITS) else {
        panic!("not a head: {came:?}")
    };
    let client = ClientText::new("192.0.2.1".parse().expect("an address"));
    let mut plan = RequestEncoding {
        path: head.path,
        query: head.query,
        host: head.host,
        framing: head.framing,
        forwarding: Forwarding {
            client_cert: None,
            client: &client,
            proto: "http",
            host: head.host,
            trusted: false,
            x_forwarded: false,
            forwarded: false,
        },
        request_id: None,
        edits,
        expect_continue: head.expect_continue,
        upgrade: true,
    };
    change(&mut plan);
    let mut out = Vec::new();
    request(&mut out, &head, &plan);
    String::from_utf8(out).expect("text")
}

fn returned(came: &str, context: ResponseContext<'_>, change: impl FnOnce(&mut ResponseEncoding<'_>)) -> String {
    let mut slots = FieldSlots::new();
    let Ok(Parsed::Complete(head)) = parse_response(came.as_bytes(), &mut slots, &LIMITS, context) else {
        panic!("not a head: {came:?}")
    };
    let mut plan = ResponseEncoding {
        framing: head.framing.onward(Version::Http11),
        persistence: Persistence::Implied,
        request_id: None,
        edits: &NO_EDITS,
        date: "now",
    };
    change(&mut plan);
    let mut out = Vec::new();
    response(&mut out, &head, &plan);
    String::from_utf8(out).expect("text")
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn requests_are_written_anew() {
    let start = "GET / HTTP/1.1\r\nHost: a\r\n";
    let cases = [
        (get(""), "Via: 1.1 postern\r\n\r\n"),
        // End-to-end fields go on in their order, spelt as usual.
        (get("A: b\r\nc:  d\t\r\nE:\r\nF: g\r\n"), "A: b\r\nc: d\r\nE: \r\nF: g\r\nVia: 1.1 postern\r\n\r\n"),
        (get("Via: 1.0 x\r\nA: b\r\n"), "Via: 1.0 x\r\nA: b\r\nVia: 1.1 postern\r\n\r\n"),
        // Hop-by-hop fields, with those that Connection names.
        (
            get("A: b\r\nConnection: x-y, close\r\nX-Y: c\r\nx-Y: d\r\nX-Z: e\r\n"),
            "A: b\r\nX-Z: e\r\nVia: 1.1 postern\r\n\r\n",
        ),
        (get("Keep-Alive: 5\r\nProxy-Connection: a\r\nTrailer: b\r\nTE: gzip\r\n"), "Via: 1.1 postern\r\n\r\n"),
        (get("Proxy-Authorization: a\r\nProxy-Authenticate: b\r\n"), "Via: 1.1 postern\r\n\r\n"),
        (get("Upgrade: websocket\r\n"), "Via: 1.1 postern\r\n\r\n"),
        (
            get("Connection: upgrade\r\nUpgrade: websocket\r\n"),
            "Via: 1.1 postern\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        (get("Connection: TE\r\nTE: trailers, gzip\r\n"), "Via: 1.1 postern\r\nConnection: TE\r\nTE: trailers\r\n\r\n"),
        // Names that backends confuse.
        (get("X_Forwarded_For: a\r\nX-A: b\r\n"), "X-A: b\r\nVia: 1.1 postern\r\n\r\n"),
        // Counts where it bounds anything.
        (get("Max-Forwards: 5\r\n"), "Max-Forwards: 5\r\nVia: 1.1 postern\r\n\r\n"),
        // What only we may say.
        (get("Forwarded: for=a\r\nX-Forwarded-For: b\r\nx-forwarded-proto: c\r\n"), "Via: 1.1 postern\r\n\r\n"),
        (get("X-Forwarded-Host: a\r\nX-Forwarded-Port: 1\r\nX-Real-IP: b\r\n"), "Via: 1.1 postern\r\n\r\n"),
        (get("X-Forwarded-Prefix: a\r\nx-forwarded-client-certificate: b\r\n"), "Via: 1.1 postern\r\n\r\n"),
        // Framing.
        (get("Content-Length: 005\r\n"), "Via: 1.1 postern\r\nContent-Length: 5\r\n\r\n"),
        (get("transfer-encoding: CHUNKED\r\n"), "Via: 1.1 postern\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (
            get("Trailer: a\r\nTransfer-Encoding: chunked\r\n"),
            "Trailer: a\r\nVia: 1.1 postern\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            get("Trailer: a\r\nConnection: TE, close\r\nTransfer-Encoding: chunked\r\n"),
            "Trailer: a\r\nVia: 1.1 postern\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        // A trailer may be what Connection takes away.
        (
            get("Trailer: a\r\nConnection: a\r\nTransfer-Encoding: chunked\r\n"),
            "Via: 1.1 postern\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            get("Expect: 100-continue\r\nContent-Length: 1\r\n"),
            "Via: 1.1 postern\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        ),
    ];
    for (came, expected) in cases {
        assert_eq!(sent(&came, |_| ()), format!("{start}{expected}"), "{came:?}");
    }
    assert_eq!(
        sent("TRACE /b HTTP/1.1\r\nHost: a\r\nmax-forwards: 10\r\n\r\n", |_| ()),
        "TRACE /b HTTP/1.1\r\nHost: a\r\nVia: 1.1 postern\r\nMax-Forwards: 9\r\n\r\n"
    );
    assert_eq!(
        sent("POST http://a/b?c HTTP/1.0\r\nContent-Length: 1\r\n\r\n", |_| ()),
        "POST /b?c HTTP/1.1\r\nHost: a\r\nVia: 1.0 postern\r\nContent-Length: 1\r\n\r\n"
    );
}

#[test]
fn the_plan_decides_what_is_asked_of_whom() {
    let text = sent(&get("X-Id: mine\r\nX-A: b\r\n"), |plan| {
        plan.path = "/other";
        plan.query = Some("q");
        plan.host = "b:8080";
        plan.request_id = Some(RequestIdField { name: "x-id", value: b"42" });
    });
    assert_eq!(text, "GET /other?q HTTP/1.1\r\nHost: b:8080\r\nX-A: b\r\nVia: 1.1 postern\r\nx-id: 42\r\n\r\n");
}

#[test]
fn edits_remove_then_set_then_add() {
    let edits = FieldEdits {
        remove: vec!["x-a".into(), "x-forwarded-for".into()],
        set: vec![("X-B".into(), plain("new")), ("X-Forwarded-Proto".into(), plain("https"))],
        add: vec![("X-C".into(), plain("more"))],
    };
    let text = sent_with(&edits, &get("X-A: 1\r\nx-b: 2\r\nX-B: 3\r\nX-C: 4\r\nx-a: 5\r\n"), |plan| {
        plan.forwarding.x_forwarded = true;
    });
    assert_eq!(
        text,
        "GET / HTTP/1.1\r\nHost: a\r\nX-C: 4\r\nX-Forwarded-Host: a\r\nVia: 1.1 postern\r\n\
         X-B: new\r\nX-Forwarded-Proto: https\r\nX-C: more\r\n\r\n"
    );
}

#[test]
fn edits_cost_a_message_its_trailers() {
    let edits = FieldEdits { add: vec![("x-c".into(), plain("more"))], ..FieldEdits::default() };
    let text = sent_with(&edits, &get("Trailer: a\r\nTransfer-Encoding: chunked\r\n"), |_| ());
    assert!(!text.contains("Trailer"), "{text}");
}

#[test]
fn a_client_is_spoken_for_by_us_and_by_those_we_trust() {
    let claims = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\n\
                  X-Real-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\n";
    let ours = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n";
    let extended = "X-Forwarded-Proto: https\r\nX-Real-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\n\
                    X-Forwarded-For: 1.1.1.1, 2.2.2.2, 192.0.2.1\r\nX-Forwarded-Host: a\r\n";
    let cases = [
        ("", false, true, false, ours),
        (claims, false, true, false, ours),
        (claims, false, false, false, ""),
        (claims, true, false, false, claims),
        (claims, true, true, false, extended),
        ("", true, true, false, ours),
        ("", false, false, true, "Forwarded: for=192.0.2.1;host=\"a\";proto=http\r\n"),
        (
            "Forwarded: for=1.1.1.1\r\nForwarded: for=x\r\n",
            true,
            false,
            true,
            "Forwarded: for=1.1.1.1, for=x, for=192.0.2.1;host=\"a\";proto=http\r\n",
        ),
    ];
    for (came, trusted, x_forwarded, forwarded, expected) in cases {
        let text = sent(&get(came), |plan| {
            plan.forwarding.trusted = trusted;
            plan.forwarding.x_forwarded = x_forwarded;
            plan.forwarding.forwarded = forwarded;
        });
        let expected = format!("GET / HTTP/1.1\r\nHost: a\r\n{expected}Via: 1.1 postern\r\n\r\n");
        assert_eq!(text, expected, "{came:?} trusted:{trusted}");
    }
    let v6 = ClientText::new("2001:db8::1".parse().expect("an address"));
    for (client, for_, x_forwarded_for) in
        [(v6, "\"[2001:db8::1]\"", "X-Forwarded-For: 2001:db8::1\r\n"), (ClientText::unknown(), "unknown", "")]
    {
        let mut out = Vec::new();
        let forwarding = Forwarding {
            client: &client,
            proto: "http",
            host: "",
            trusted: false,
            x_forwarded: true,
            forwarded: true,
            client_cert: None,
        };
        forwarding.write(&mut out, &Fields { bytes: b"", lines: &[], nominates: false }, &NO_EDITS);
        let expected = format!("{x_forwarded_for}X-Forwarded-Proto: http\r\nForwarded: for={for_};proto=http\r\n");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}

#[test]
fn of_a_clients_certificate_only_our_own_word_goes_on() {
    let came = get("Client-Cert: :a:\r\nA: b\r\nCLIENT-CERT-CHAIN: :c:\r\nclient_cert: :d:\r\nclient-cert: :e:\r\n");
    let set =
        FieldEdits { set: vec![("client-cert".to_owned(), Text::Plain("set".to_owned()))], ..FieldEdits::default() };
    let remove = FieldEdits { remove: vec!["client-cert".to_owned()], ..FieldEdits::default() };
    for (edits, trusted, client_cert, expected) in [
        (&NO_EDITS, false, None, "Via: 1.1 postern\r\n"),
        (&NO_EDITS, true, None, "Via: 1.1 postern\r\n"),
        (&NO_EDITS, true, Some(":zz:"), "Client-Cert: :zz:\r\nVia: 1.1 postern\r\n"),
        (&set, false, Some(":zz:"), "Via: 1.1 postern\r\nclient-cert: set\r\n"),
        (&remove, false, Some(":zz:"), "Via: 1.1 postern\r\n"),
    ] {
        let text = sent_with(edits, &came, |plan| {
            plan.forwarding.trusted = trusted;
            plan.forwarding.client_cert = client_cert;
        });
        assert_eq!(text, format!("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n{expected}\r\n"));
    }
    let response = returned("HTTP/1.1 204 No Content\r\nClient-Cert: :a:\r\n\r\n", ResponseContext::default(), |_| {});
    assert!(response.contains("Client-Cert: :a:\r\n"), "{response}");
}

#[test]
fn responses_are_written_anew() {
    let plain = ResponseContext::default();
    let head = ResponseContext { head_request: true, upgrade: None };
    let upgrade = ResponseContext { head_request: false, upgrade: Some(b"websocket") };
    let cases = [
        (
            "200 OK\r\nContent-Length: 05\r\nA: b\r\n",
            plain,
            "200 OK\r\nA: b\r\nDate: now\r\nVia: 1.1 postern\r\nContent-Length: 5\r\n\r\n",
        ),
        ("200 OK\r\n", plain, "200 OK\r\nDate: now\r\nVia: 1.1 postern\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("200\r\nContent-Length: 0\r\n", plain, "200 \r\nDate: now\r\nVia: 1.1 postern\r\nContent-Length: 0\r\n\r\n"),
        (
            "200 OK\r\nTrailer: x\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive\r\n",
            plain,
            "200 OK\r\nTrailer: x\r\nDate: now\r\nVia: 1.1 postern\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "200 OK\r\nTrailer: x\r\nTransfer-Encoding: chunked\r\nConnection: Y, a_b\r\ny: z\r\nA_B: c\r\nD_E: f\r\n",
            plain,
            "200 OK\r\nD_E: f\r\nDate: now\r\nVia: 1.1 postern\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "200 OK\r\ndate: then\r\nContent-Length: 0\r\n",
            plain,
            "200 OK\r\ndate: then\r\nVia: 1.1 postern\r\nContent-Length: 0\r\n\r\n",
        ),
        // Without content.
        (
            "200 OK\r\nContent-Length: 5\r\n",
            head,
            "200 OK\r\nDate: now\r\nVia: 1.1 postern\r\nContent-Length: 5\r\n\r\n",
        ),
        ("200 OK\r\nTransfer-Encoding: chunked\r\n", head, "200 OK\r\nDate: now\r\nVia: 1.1 postern\r\n\r\n"),
        (
            "304 N\r\nContent-Length: 5\r\n",
            plain,
            "304 N\r\nDate: now\r\nVia: 1.1 postern\r\nContent-Length: 5\r\n\r\n",
        ),
        ("204 N\r\nContent-Length: 5\r\n", plain, "204 N\r\nDate: now\r\nVia: 1.1 postern\r\n\r\n"),
        (
            "101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n",
            upgrade,
            "101 S\r\nSec-WebSocket-Accept: x\r\nVia: 1.1 postern\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        (
            "426 U\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n",
            upgrade,
            "426 U\r\nDate: now\r\nVia: 1.1 postern\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n",
        ),
    ];
    for (came, context, expected) in cases {
        assert_eq!(
            returned(&format!("HTTP/1.1 {came}\r\n"), context, |_| ()),
            format!("HTTP/1.1 {expected}"),
            "{came:?}"
        );
    }
}

#[test]
fn responses_say_what_becomes_of_the_connection() {
    let came = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
    let cases = [
        (Persistence::of(Version::Http11, true), BodyFraming::Length(1), "Content-Length: 1\r\n"),
        (
            Persistence::of(Version::Http10, true),
            BodyFraming::Length(1),
            "Connection: keep-alive\r\nContent-Length: 1\r\n",
        ),
        (Persistence::of(Version::Http11, false), BodyFraming::Length(1), "Connection: close\r\nContent-Length: 1\r\n"),
        (Persistence::of(Version::Http10, true), BodyFraming::UntilClose, "Connection: close\r\n"),
    ];
    for (persistence, framing, expected) in cases {
        let text = returned(came, ResponseContext::default(), |plan| {
            plan.persistence = persistence;
            plan.framing = framing;
        });
        assert_eq!(text, format!("HTTP/1.1 200 OK\r\nDate: now\r\nVia: 1.1 postern\r\n{expected}\r\n"));
    }
}

#[test]
fn interim_responses_lose_what_is_ours() {
    let bytes =
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: y\r\nContent-Length: 0\r\nX-Debug: 1\r\n\
                  Server: s\r\nX-Id: 2\r\n\r\n";
    let edits = FieldEdits {
        remove: vec!["x-debug".into()],
        set: vec![("server".into(), plain("ours"))],
        add: vec![("link".into(), plain("more"))],
    };
    let mut slots = FieldSlots::new();
    let Ok(Parsed::Complete(head)) = parse_response(bytes, &mut slots, &LIMITS, ResponseContext::default()) else {
        panic!("a head")
    };
    let mut out = Vec::new();
    interim(&mut out, &head, Some(RequestIdField { name: "x-id", value: b"42" }), &edits);
    assert_eq!(String::from_utf8_lossy(&out), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nVia: 1.1 postern\r\n\r\n");
}

#[test]
fn chunks_are_written_in_hexadecimal() {
    for (len, expected) in [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (0xabcdef, "abcdef\r\n")] {
        assert_eq!(chunk_prefix(len).as_ref(), expected.as_bytes());
    }
    assert_eq!(chunk_prefix(usize::MAX).as_ref(), format!("{:x}\r\n", usize::MAX).as_bytes());
    let mut out = Vec::new();
    last_chunk(&mut out, b"A: b\r\n");
    assert_eq!(out, b"0\r\nA: b\r\n\r\n");
    out.clear();
    last_chunk(&mut out, b"");
    assert_eq!(out, b"0\r\n\r\n");
}

#[test]
fn framing_goes_on_as_the_other_side_understands_it() {
    use BodyFraming::*;
    let cases = [
        (None, None, None),
        (Length(5), Length(5), Length(5)),
        (Chunked, Chunked, UntilClose),
        (UntilClose, Chunked, UntilClose),
    ];
    for (came, to_http11, to_http10) in cases {
        assert_eq!((came.onward(Version::Http11), came.onward(Version::Http10)), (to_http11, to_http10));
    }
}

fn plain(text: &str) -> crate::config::secret::Text {
    crate::config::secret::Text::Plain(text.to_owned())
}
