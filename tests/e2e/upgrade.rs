//! `Upgrade` (RFC 9110 section 7.8): a tunnel begins with the origin's 101 and with nothing else.

use std::time::Duration;

use crate::harness::{Gateway, Origin, ok, pause};

/// The example of RFC 6455 section 1.3.
const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn after_the_origins_101_bytes_go_both_ways_until_a_side_closes() {
    let origin = Origin::scripted(|peer| {
        let Some(request) = peer.request() else { return };
        assert_eq!(request.field("upgrade"), Some("websocket"));
        assert!(request.connection_has("upgrade"), "{request}");
        peer.send([SWITCH.as_bytes(), b"\x00first"].concat());
        for _ in 0..3 {
            let mut bytes = peer.read(4);
            bytes.reverse();
            peer.send(bytes);
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    let switched = client.send(ASK).response();
    assert_eq!((switched.status(), switched.field("upgrade")), (101, Some("websocket")));
    assert!(switched.connection_has("upgrade"), "{switched}");
    assert_eq!(client.read(6), b"\x00first");
    for message in [b"\x81\x00\r\n", b"GET ", b"0\r\n\r"] {
        let mut reversed = *message;
        reversed.reverse();
        assert_eq!(client.send(message).read(4), reversed);
    }
    client.assert_closed();
}

#[test]
fn the_clients_close_ends_the_tunnel() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send(SWITCH);
            peer.wait_for_close();
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    assert_eq!(client.send(ASK).response().status(), 101);

    drop(client);

    crate::harness::eventually("the origin sees the close", || origin.open_connections() == 0);
}

#[test]
fn much_goes_through_a_tunnel_in_both_directions_at_once() {
    const LENGTH: usize = 3_000_000;
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send(SWITCH);
            let mut left = LENGTH;
            while left > 0 {
                let bytes = peer.read(left.min(10_000));
                if bytes.is_empty() {
                    return;
                }
                left -= bytes.len();
                peer.send(bytes);
            }
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    assert_eq!(client.send(ASK).response().status(), 101);

    let block: Vec<u8> = (0..100_000).map(|index| (index % 251) as u8).collect();
    for _ in 0..LENGTH / block.len() {
        client.send(&block);
        assert!(client.read(block.len()) == block);
    }
    client.assert_closed();
}

#[test]
fn an_upgrade_that_the_origin_does_not_take_is_an_ordinary_exchange() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for _ in 0..2 {
        let response = client.send(ASK).response();
        assert_eq!((response.status(), response.text().as_str()), (200, "plain"));
    }
    assert_eq!(client.get("/next").response().text(), "plain");
    client.assert_silent();
}

#[test]
fn what_the_client_sends_before_the_101_belongs_to_the_tunnel() {
    const EARLY: &str = "GET /early HTTP/1.1\r\nHost: a\r\n\r\n";
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            let before = peer.read_for(Duration::from_millis(150));
            peer.send(SWITCH);
            let after = peer.read(EARLY.len());
            peer.send([before, b"|".to_vec(), after].concat());
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send([ASK, EARLY].concat());

    assert_eq!(client.response().status(), 101);
    assert_eq!(String::from_utf8(client.read(1 + EARLY.len())), Ok(format!("|{EARLY}")));
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn what_the_client_sends_before_a_refusal_is_not_passed_on_before_it() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.pause(150);
            peer.send(ok("refused"));
            // A second request on this connection may follow by now, but not have come before the answer.
            peer.request();
            peer.send(ok("second"));
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send([ASK, "GET /second HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    pause(75);
    assert!(!origin.has_received("/second"));

    assert_eq!(client.response().text(), "refused");
    if let Ok(second) = client.try_response("GET") {
        assert_eq!(second.text(), "second");
        let request = &origin.requests()[1];
        assert!(request.has("via"), "passed on without having been read: {request:#?}");
    }
}

#[test]
fn a_request_with_content_is_not_upgraded() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    );

    assert_eq!(client.response().text(), "abc");
    assert!(!origin.only_request().has("upgrade"));
    assert_eq!(client.get("/").response().status(), 200);
}

#[test]
fn http_is_not_tunnelled_and_http_1_0_does_not_upgrade() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    for request in [
        "GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        "GET /tls HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n",
        "GET /old HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET /unlisted HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert_eq!(gateway.client().send(request).response().status(), 200, "{request}");
    }
    for request in origin.requests() {
        assert!(!request.has("upgrade") && !request.has("http2-settings"), "{request:#?}");
    }
}

#[test]
fn a_101_that_nobody_asked_for_is_a_fault_of_the_origin() {
    let origin = Origin::answering_once([SWITCH, "tunnel"].concat());
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    let response = client.get("/").response();

    assert_eq!(response.status(), 502);
    assert!(!response.text().contains("tunnel"));
}

#[test]
fn a_101_that_does_not_say_what_was_asked_for_is_a_fault_of_the_origin() {
    for switch in [
        "HTTP/1.1 101 X\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n",
        "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket, other\r\n\r\n",
        "HTTP/1.0 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let origin = Origin::answering_once([switch, "tunnel"].concat());
        let gateway = Gateway::before(&origin);
        let response = gateway.client().send(ASK).response();
        assert_eq!(response.status(), 502, "{switch}");
        assert!(!response.text().contains("tunnel"), "{switch}");
    }
}

#[test]
fn one_of_several_protocols_may_be_taken_in_any_case_of_letters() {
    let origin = Origin::answering_once("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\nframes");
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    let ask = ASK.replace("Upgrade: websocket", "Upgrade: other/1, websocket");
    let switched = client.send(ask).response();

    assert_eq!((switched.status(), switched.field("upgrade")), (101, Some("WebSocket")));
    assert_eq!(client.read(6), b"frames");
}

#[test]
fn a_426_says_what_to_upgrade_to() {
    let origin = Origin::answering(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: HTTP/3.0\r\nConnection: Upgrade\r\nContent-Length: 4\r\n\r\nmore",
    );
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    let response = client.get("/").response();
    assert_eq!((response.status(), response.values("upgrade")), (426, vec!["HTTP/3.0"]));
    assert!(response.connection_has("upgrade"), "{response}");
    assert_eq!(response.text(), "more");

    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = client.response();
    assert!(response.connection_has("upgrade") && response.connection_has("close"), "{response}");
    client.assert_closed();
}
