//! Requests that mean one thing in HTTP/2 and would mean another in HTTP/1.1, and some that mean nothing (RFC 9113 sections 8.1.1 to 8.3).

use super::Scene;
use crate::harness::h2::frame::{self, END_HEADERS, END_STREAM, kind};
use crate::harness::h2::{H2Client, hpack};
use crate::harness::{Client, latin1};

type Field = (&'static str, &'static str);

const GET: [Field; 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "example.com"), (":path", "/attack")];

/// GET, with this field in the place of another of its name, and with these behind.
fn with(changed: Field, more: &[Field]) -> Vec<Field> {
    let mut fields = GET.map(|field| if field.0 == changed.0 { changed } else { field }).to_vec();
    fields.extend_from_slice(more);
    fields
}

fn and(more: &[Field]) -> Vec<Field> {
    with(GET[0], more)
}

fn without(name: &str) -> Vec<Field> {
    GET.into_iter().filter(|field| field.0 != name).collect()
}

/// What becomes of a request, on a connection of its own.
fn refusal(client: &mut H2Client) -> String {
    client
        .until("there is an answer", |it| it.goaway.is_some() || it.stream(1).is_ended || it.stream(1).reset.is_some());
    match (client.goaway.as_ref().map(|it| it.code), client.stream(1).reset) {
        (Some(code), _) => format!("GOAWAY {code}"),
        (None, Some(code)) if !client.stream(1).is_ended => format!("RST_STREAM {code}"),
        _ => client.stream(1).status().to_string(),
    }
}

/// None of this reaches a backend, and the connection of another client is none the worse.
fn assert_refused(scene: &mut Scene, frames: &[u8], what: &str) {
    let mut attacker = scene.attacker();
    attacker.send(frames);
    let refusal = refusal(&mut attacker);
    assert!(["RST_STREAM 1", "GOAWAY 1", "400"].contains(&refusal.as_str()), "{refusal} for {what}");
    let received = scene.origin.received();
    let leak = received.iter().map(|bytes| latin1(bytes)).find(|it| it.contains("attack") || it.contains("smuggled"));
    assert_eq!(leak, None, "{what}");
}

#[test]
fn malformed_requests_are_refused_and_do_not_reach_the_backend() {
    let mut scene = Scene::new();
    let cases = [
        // Section 8.2.1: names and values.
        and(&[("X-Own", "capitals")]),
        and(&[("x own", "space")]),
        and(&[("", "no name")]),
        and(&[("x:own", "colon")]),
        and(&[("x-own\r\nsmuggled", "line end")]),
        and(&[("x-own: 1\r\nsmuggled", "line end")]),
        and(&[("x-own\0", "NUL")]),
        and(&[("x-\u{e9}", "no ASCII")]),
        and(&[("x-own", "1\r\nsmuggled: 2")]),
        and(&[("x-own", "1\nsmuggled: 2")]),
        and(&[("x-own", "1\rsmuggled: 2")]),
        and(&[("x-own", "1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n")]),
        and(&[("x-own", "smuggled\0")]),
        and(&[("x-own", "smuggled\u{7f}")]),
        and(&[("x-own", " smuggled")]),
        and(&[("x-own", "smuggled\t")]),
        and(&[("cookie", "a=b\r\nsmuggled: 2")]),
        // Section 8.2.2: fields of a connection.
        and(&[("connection", "close")]),
        and(&[("connection", "x-own"), ("x-own", "1")]),
        and(&[("keep-alive", "timeout=5")]),
        and(&[("proxy-connection", "keep-alive")]),
        and(&[("transfer-encoding", "chunked")]),
        and(&[("transfer-encoding", "identity")]),
        and(&[("upgrade", "websocket")]),
        and(&[("te", "gzip")]),
        and(&[("te", "trailers, gzip")]),
        // Section 8.3: pseudo fields.
        without(":method"),
        without(":path"),
        without(":scheme"),
        and(&[(":method", "POST")]),
        and(&[(":path", "/smuggled")]),
        and(&[(":authority", "other.example")]),
        and(&[(":scheme", "https")]),
        and(&[("x-own", "1"), (":own", "late and unknown")]),
        and(&[(":own", "unknown")]),
        and(&[(":status", "200")]),
        [&[("x-own", "1")], &GET[..]].concat(),
        with((":method", ""), &[]),
        with((":method", "GET /smuggled HTTP/1.1\r\nx:"), &[]),
        with((":method", "GE T"), &[]),
        with((":scheme", ""), &[]),
        with((":scheme", "ftp"), &[]),
        with((":scheme", "http\r\nsmuggled: 1"), &[]),
        with((":path", ""), &[]),
        with((":path", "attack"), &[]),
        with((":path", "*"), &[]),
        with((":path", "http://example.com/attack"), &[]),
        with((":path", "/attack HTTP/1.1\r\nsmuggled: 1\r\nx:"), &[]),
        with((":path", "/attack smuggled"), &[]),
        with((":path", "/attack\tsmuggled"), &[]),
        with((":path", "/attack\0"), &[]),
        with((":authority", ""), &[]),
        with((":authority", "user@example.com"), &[]),
        with((":authority", "user:secret@example.com"), &[]),
        with((":authority", "example.com/smuggled"), &[]),
        with((":authority", "example.com\r\nsmuggled: 1"), &[]),
        with((":authority", "exa mple.com"), &[]),
        with((":authority", "example.com:port"), &[]),
        with((":authority", "example.com"), &[("host", "other.example")]),
        with((":authority", "example.com"), &[("host", "example.com"), ("host", "example.com")]),
        with((":authority", "example.com"), &[("host", "example.com:81")]),
        without(":authority"),
        // Framing.
        and(&[("content-length", "5")]),
        and(&[("content-length", "-0")]),
        and(&[("content-length", "+0")]),
        and(&[("content-length", "0x0")]),
        and(&[("content-length", "0"), ("content-length", "5")]),
        and(&[("content-length", "99999999999999999999")]),
    ];
    for fields in cases {
        let bytes: Vec<u8> =
            fields.iter().flat_map(|(name, value)| hpack::literal(latin1_bytes(name), latin1_bytes(value))).collect();
        let frames = frame::frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, bytes);
        assert_refused(&mut scene, &frames, &format!("{fields:?}"));
    }
    scene.assert_unharmed();
}

/// One byte for each character.
fn latin1_bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("Latin-1")).collect()
}

#[test]
fn a_connect_opens_no_tunnel() {
    let mut scene = Scene::new();
    for fields in [
        vec![(":method", "CONNECT"), (":authority", "smuggled.example:443")],
        with((":method", "CONNECT"), &[]),
        with((":method", "CONNECT"), &[(":protocol", "websocket")]),
        and(&[(":protocol", "websocket")]),
    ] {
        let mut attacker = scene.attacker();
        attacker.send(frame::headers(1, 0, &fields)).send(frame::data(
            1,
            0,
            "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
        ));
        let refusal = refusal(&mut attacker);
        assert!(
            ["RST_STREAM 1", "GOAWAY 1", "400", "405", "501"].contains(&refusal.as_str()),
            "{refusal} for {fields:?}"
        );
        assert!(!scene.origin.has_received("smuggled") && !scene.origin.has_received("CONNECT"));
    }
    scene.assert_unharmed();
}

/// What is well-formed goes on as one request, and its bytes stay where they are.
#[test]
fn content_that_looks_like_a_request_stays_content() {
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n";
    let mut scene = Scene::new();
    let mut attacker = scene.attacker();
    for (stream, method, more) in [
        (1, "POST", vec![]),
        (3, "POST", vec![("content-length", smuggled.len().to_string())]),
        (5, "GET", vec![]),
        (7, "DELETE", vec![]),
        (9, "POST", vec![("expect", "100-continue".to_owned())]),
    ] {
        let more = more.iter().map(|(name, value)| (*name, value.as_str()));
        let fields: Vec<(&str, &str)> = with((":method", method), &[]).into_iter().chain(more).collect();
        attacker.send(frame::headers(stream, 0, &fields)).send(frame::data(stream, 0, smuggled));
        // Trailers with what framing is made of.
        attacker.send(frame::headers(
            stream,
            END_STREAM,
            &[("content-length", "0"), ("host", "smuggled"), ("x-sum", "1")],
        ));
        assert_eq!(attacker.response(stream).text(), "/attack", "{method}");
    }
    let requests = scene.origin.requests();
    let attacks: Vec<_> = requests.iter().filter(|it| it.target() == "/attack").collect();
    assert_eq!(attacks.len(), 5);
    assert!(attacks.iter().all(|it| it.text() == smuggled && it.field("host") == Some("example.com")));
    assert!(attacks.iter().all(|it| it.trailer("content-length").is_empty() && it.trailer("host").is_empty()));
    assert!(!requests.iter().any(|it| it.target() == "/smuggled"));
    scene.assert_unharmed();
}

#[test]
fn trailers_that_are_malformed_end_the_request_and_not_its_content() {
    for trailers in [
        vec![("x-own", "1\r\nsmuggled: 2")],
        vec![("x-own\r\nsmuggled", "2")],
        vec![("X-Own", "1")],
        vec![("connection", "smuggled")],
    ] {
        let mut scene = Scene::new();
        let mut attacker = scene.attacker();
        let post = with((":method", "POST"), &[]);
        attacker.send(frame::headers(1, 0, &post)).send(frame::data(1, 0, "content"));
        attacker.send(frame::headers(1, END_STREAM, &trailers));
        let refusal = refusal(&mut attacker);
        assert!(["RST_STREAM 1", "GOAWAY 1", "400"].contains(&refusal.as_str()), "{refusal} for {trailers:?}");
        scene.assert_at_rest();
        assert!(!scene.origin.has_received("smuggled"), "{trailers:?}");
        assert!(scene.attacks_received().is_empty(), "{trailers:?}");
        scene.assert_unharmed();
    }
}

/// The codec passes over both, instead of refusing them.
#[test]
fn fragments_and_pseudo_fields_of_trailers_go_no_further() {
    let mut scene = Scene::new();
    let mut client = scene.attacker();
    client.send(frame::headers(1, 0, &with((":path", "/attack#smuggled"), &[])));
    client.send(frame::headers(1, END_STREAM, &[(":path", "/smuggled"), ("x-sum", "1")]));
    assert_eq!(client.response(1).text(), "/attack");
    assert!(!scene.origin.has_received("smuggled"));
    scene.assert_unharmed();
}

#[test]
fn crumbs_of_cookies_become_one_field_and_nothing_else() {
    let mut scene = Scene::new();
    let mut client = scene.attacker();
    let fields = and(&[("cookie", "a=1"), ("x-own", "\u{e4}\u{f6}"), ("cookie", "b=2; c=3"), ("te", "trailers")]);
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| hpack::literal(name, latin1_bytes(value))).collect();
    client.send(frame::frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, block));
    assert_eq!(client.response(1).text(), "/attack");
    let requests = scene.origin.requests();
    let request = requests.iter().find(|it| it.target() == "/attack").expect("answered");
    assert_eq!(request.values("cookie"), ["a=1; b=2; c=3"]);
    assert_eq!(request.values("x-own"), ["\u{e4}\u{f6}"]);
    scene.assert_unharmed();
}

#[test]
fn frames_that_make_no_sense_end_their_connection() {
    let mut scene = Scene::new();
    let get = |stream| frame::headers(stream, END_STREAM, &GET);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a stream of the server's", get(2)),
        ("a stream below the last one", [frame::headers(5, 0, &GET), get(3)].concat()),
        ("stream 0", get(0)),
        ("DATA on an idle stream", frame::data(7, 0, "smuggled")),
        ("DATA on stream 0", frame::data(0, 0, "smuggled")),
        ("RST_STREAM on an idle stream", frame::rst_stream(7, 8)),
        ("WINDOW_UPDATE on an idle stream", frame::window_update(7, 1)),
        ("WINDOW_UPDATE of 3 bytes", frame::frame(kind::WINDOW_UPDATE, 0, 0, [0; 3])),
        ("PING of 7 bytes", frame::frame(kind::PING, 0, 0, [0; 7])),
        ("PING on a stream", frame::frame(kind::PING, 0, 1, [0; 8])),
        ("SETTINGS of 5 bytes", frame::frame(kind::SETTINGS, 0, 0, [0; 5])),
        ("SETTINGS on a stream", frame::frame(kind::SETTINGS, 0, 1, [])),
        ("an acknowledgement with settings", frame::frame(kind::SETTINGS, frame::ACK, 0, [0; 6])),
        ("a frame size below the least", frame::settings(&[(5, 100)])),
        ("CONTINUATION out of nowhere", frame::frame(kind::CONTINUATION, END_HEADERS, 1, [])),
        (
            "a frame in the middle of a head",
            [frame::frame(kind::HEADERS, 0, 1, hpack::block(&GET)), frame::ping([0; 8])].concat(),
        ),
        ("a frame beyond the largest", frame::frame(kind::DATA, 0, 1, vec![0; 16_385])),
        ("more padding than payload", frame::frame(kind::HEADERS, END_HEADERS | frame::PADDED, 1, [200, 0])),
        ("an index beyond the tables", frame::frame(kind::HEADERS, END_HEADERS, 1, hpack::indexed(70))),
        ("index 0", frame::frame(kind::HEADERS, END_HEADERS, 1, [0x80])),
        ("a block that ends within a field", frame::frame(kind::HEADERS, END_HEADERS, 1, [0x00, 5, b'x'])),
        ("an endless integer", frame::frame(kind::HEADERS, END_HEADERS, 1, [0xff; 40])),
        ("a table that is too large", frame::frame(kind::HEADERS, END_HEADERS, 1, [0x3f, 0xff, 0xff, 0x03])),
        ("PUSH_PROMISE", frame::frame(kind::PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2])),
    ];
    for (what, frames) in cases {
        let mut attacker = scene.attacker();
        attacker.send(frames);
        let code = attacker.goodbye();
        assert_ne!(code, frame::code::NO_ERROR, "{what}");
        assert!(!scene.origin.has_received("smuggled"), "{what}");
    }
    scene.assert_unharmed();
}

#[test]
fn who_does_not_begin_with_the_preface_speaks_no_http_2() {
    let mut scene = Scene::new();
    for (preface, is_answered) in [
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", true),
        ("PRI * HTTP/2.0\r\n\r\n", false),
        ("PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", true),
        ("PRI * HTTP/1.1\r\nHost: x\r\n\r\nSM\r\n\r\n", true),
        ("\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true),
    ] {
        let mut client = Client::connect(&scene.gateway.address());
        client.send(preface);
        if is_answered {
            let status = client.response().status();
            assert!([400, 505].contains(&status), "{status} for {preface:?}");
        } else {
            client.finish();
        }
        client.assert_closed();
    }
    assert!(scene.attacks_received().is_empty());
    scene.assert_unharmed();
}
