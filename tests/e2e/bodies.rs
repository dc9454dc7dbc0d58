//! Content arrives whole and unchanged, in both directions, and the framing that carries it is always Postern's own.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::config::proxy_to;
use crate::harness::{Framing, Gateway, Origin, eventually, ok};

/// Bytes that no two places of have in common for long.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index ^ (index >> 8).wrapping_mul(31) ^ (index >> 16)) as u8).collect()
}

/// In chunks of a length that divides nothing.
fn chunked(content: &[u8], chunk: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in content.chunks(chunk) {
        bytes.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

const LENGTHS: [usize; 10] = [0, 1, 100, 4095, 4096, 4097, 16_384, 65_535, 65_537, 1_500_000];

#[test]
fn content_of_known_length_crosses_both_ways_unchanged() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for (index, length) in LENGTHS.into_iter().enumerate() {
        let content = pattern(length);
        let response = client.post("/", &content).response();
        assert_eq!(response.framing, Framing::Length);
        assert!(response.body == content, "{length} bytes came back as {}", response.body.len());
        let request = &origin.requests()[index];
        assert!(request.body == content, "{length} bytes arrived as {}", request.body.len());
        assert_eq!(request.field("content-length"), Some(length.to_string().as_str()));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn chunked_content_crosses_both_ways_unchanged() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            peer.send(chunked(&request.body, 3001));
            peer.send("0\r\n\r\n");
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for (index, length) in LENGTHS.into_iter().enumerate() {
        let content = pattern(length);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(chunked(&content, 1009)).send("0\r\n\r\n");
        let response = client.response();
        assert_eq!(response.framing, Framing::Chunked);
        assert!(response.body == content, "{length} bytes came back as {}", response.body.len());
        let request = &origin.requests()[index];
        assert_eq!(request.framing, Framing::Chunked);
        assert!(request.body == content, "{length} bytes arrived as {}", request.body.len());
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_chunk_of_one_byte_each_is_as_good_as_any() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let content = pattern(2000);
    let mut client = gateway.client();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n");
    client.send(chunked(&content, 1)).send("000\r\n\r\n");

    assert!(client.response().body == content);
    assert!(origin.only_request().body == content);
}

#[test]
fn chunk_extensions_are_not_passed_on() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;first=1\r\nabc\r\n0;last=\"2\"\r\n\r\n",
    );

    assert_eq!(client.response().text(), "abc");
    assert!(!origin.has_received("first") && !origin.has_received("last"));
    client.assert_silent();
}

#[test]
fn trailers_cross_both_ways() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Out\r\n\r\n3\r\nxyz\r\n0\r\nX-Out: b\r\n\r\n");
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\nTrailer: X-In\r\n\r\n");
    client.send("3\r\nabc\r\n0\r\nX-In: a\r\n\r\n");

    let response = client.response();
    assert_eq!(response.text(), "xyz");
    assert_eq!(response.trailer("x-out"), ["b"]);
    assert_eq!(origin.only_request().trailer("x-in"), ["a"]);
    client.assert_silent();
}

#[test]
fn trailers_cannot_say_what_a_head_must_say() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n");
    client.send(
        "Content-Length: 9\r\nHost: b\r\nTransfer-Encoding: chunked\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-User: root\r\n\
         X-Request-Id: forged\r\nX-Fine: 1\r\n\r\n",
    );

    assert_eq!(client.response().text(), "abc");
    let trailers = origin.only_request().trailers.clone();
    assert!(trailers.iter().all(|(name, _)| name.eq_ignore_ascii_case("x-fine")), "{trailers:?}");
}

#[test]
fn a_route_that_changes_fields_lets_no_trailers_through() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\nX-Debug: 1\r\nServer: s\r\nX-Request-Id: forged\r\n\r\n");
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Debug\r\n\r\n3\r\nxyz\r\n0\r\nX-Debug: 1\r\n\r\n");
        }
    });
    let mut config = proxy_to(&origin);
    config["routes"][0]["request_headers"] = json!({ "set": { "x-gateway-secret": "s" } });
    config["routes"][0]["response_headers"] = json!({ "remove": ["x-debug"], "set": { "server": "ours" } });
    let gateway = Gateway::start(config);
    let mut client = gateway.client();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Gateway-Secret\r\n\r\n");
    client.send("3\r\nabc\r\n0\r\nX-Gateway-Secret: forged\r\n\r\n");

    let hints = client.response();
    assert_eq!((hints.status(), hints.field("link")), (103, Some("x")));
    assert!(!hints.has("x-debug") && !hints.has("server") && !hints.has("x-request-id"), "{hints}");
    let response = client.response();
    assert_eq!((response.text().as_str(), response.values("server")), ("xyz", vec!["ours"]));
    assert!(!response.has("x-debug") && !response.has("trailer") && response.trailers.is_empty(), "{response}");
    let request = origin.only_request();
    assert_eq!(request.values("x-gateway-secret"), ["s"]);
    assert!(!request.has("trailer") && request.trailers.is_empty(), "{request:#?}");
}

#[test]
fn a_response_that_lasts_until_the_close_gets_an_end_of_its_own() {
    let origin = Origin::answering_once("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for _ in 0..2 {
        let response = client.get("/").response();
        assert_eq!((response.text().as_str(), response.framing), ("until the end", Framing::Chunked));
    }
}

#[test]
fn an_http_1_0_origin_is_understood() {
    let origin = Origin::answering_once("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold");
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for _ in 0..2 {
        let response = client.get("/").response();
        assert_eq!(response.text(), "old");
        assert!(response.first_line.starts_with("HTTP/1.1 200"), "{response}");
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-End: 1\r\n\r\n",
    );
    let gateway = Gateway::before(&origin);

    for ask in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"] {
        let mut client = gateway.client();
        let response = client.send(ask).response();
        assert_eq!((response.text().as_str(), response.framing), ("abcde", Framing::UntilClose), "{ask:?}");
        assert!(!response.connection_has("keep-alive"), "{response}");
        client.assert_closed();
    }
}

#[test]
fn an_http_1_0_client_can_upload() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);

    let response = gateway.client().send("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").response();

    assert_eq!(response.text(), "hello");
    assert_eq!(origin.only_request().first_line, "POST / HTTP/1.1");
}

#[test]
fn responses_without_content_leave_both_connections_usable() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            match request.target() {
                "/head" => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Kind: head\r\n\r\n"),
                "/head-chunked" => peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                "/204" => peer.send("HTTP/1.1 204 No Content\r\n\r\n"),
                "/304" => peer.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 700\r\nETag: \"x\"\r\n\r\n"),
                _ => peer.send(ok("full")),
            }
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for (method, path, status) in [
        ("HEAD", "/head", 200),
        ("GET", "/full", 200),
        ("HEAD", "/head-chunked", 200),
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("HEAD", "/304", 304),
        ("GET", "/full", 200),
    ] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response_to(method);
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(response.text(), if path == "/full" { "full" } else { "" }, "{method} {path}");
        match path {
            "/head" => assert_eq!(response.field("content-length"), Some("5")),
            "/204" => assert!(!response.has("content-length") && !response.has("transfer-encoding"), "{response}"),
            _ => {}
        }
    }
    client.assert_silent();
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_response_is_passed_on_as_it_comes() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let origin = Origin::scripted(move |peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            may_go_on.lock().expect("one connection only").recv().expect("the test goes on");
            peer.send("4\r\nlast\r\n0\r\n\r\n");
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.get("/");
    let mut seen = Vec::new();
    while !seen.ends_with(b"first\r\n") {
        seen.extend(client.read(1));
    }
    go_on.send(()).expect("the origin waits");

    assert_eq!(client.read(b"4\r\nlast\r\n0\r\n\r\n".len()), b"4\r\nlast\r\n0\r\n\r\n");
    client.assert_silent();
}

#[test]
fn a_request_is_passed_on_as_it_comes() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nfirst");
    eventually("the first part arrives before the rest is sent", || origin.has_received("first"));
    client.send("last");

    assert_eq!(client.response().text(), "firstlast");
}

#[test]
fn a_slow_reader_slows_the_origin_down_instead_of_filling_memory() {
    const PIECES: usize = 2048;
    let sent = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&sent);
    let origin = Origin::scripted(move |peer| {
        if peer.request().is_some() {
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECES * 65_536));
            for _ in 0..PIECES {
                peer.send([b'x'; 65_536]);
                *counter.lock().expect("one connection only") += 1;
            }
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.get("/");
    crate::harness::pause(500);

    // What the sockets of both connections hold is some megabytes; the rest must still be at the origin.
    let pieces = *sent.lock().expect("no script panics");
    assert!(pieces < PIECES / 2, "{pieces} of {PIECES} pieces were taken though nobody reads");
}
