//! No client holds anything for ever, and none of them delays another. How exactly long each wait is, is not asked here.

use serde_json::{Value, json};

use crate::harness::config::proxy_to;
use crate::harness::{Client, Gateway, Origin, eventually, pause};

fn gateway(origin: &Origin, timeouts: Value) -> Gateway {
    let mut config = proxy_to(origin);
    config["listeners"][0]["timeouts"] = timeouts;
    Gateway::start(config)
}

/// Sends one byte after the other until the server ends the connection, and serves another client between each two.
fn drip(gateway: &Gateway, client: &mut Client, byte: &str) {
    for _ in 0..200 {
        if client.try_send(byte).is_err() || client.has_bytes() {
            return;
        }
        assert_eq!(gateway.get("/other").text(), "/other");
        pause(20);
    }
    panic!("still connected after 200 bytes");
}

#[test]
fn a_head_that_drips_is_answered_with_408_and_closed() {
    let origin = Origin::naming_targets();
    let gateway = gateway(&origin, json!({ "header": "300ms" }));
    let mut client = gateway.client();

    client.send("GET /slow HTTP/1.1\r\nX: ");
    drip(&gateway, &mut client, "a");

    let response = client.response();
    assert_eq!(response.status(), 408, "{response}");
    assert!(response.connection_has("close"), "{response}");
    client.assert_closed();
    assert!(!origin.has_received("/slow"));
}

#[test]
fn a_head_that_stops_is_answered_with_408_and_closed() {
    let origin = Origin::naming_targets();
    let gateway = gateway(&origin, json!({ "header": "200ms" }));
    let mut client = gateway.client();

    client.get("/first");
    assert_eq!(client.response().text(), "/first");
    client.send("GET /second HTTP/1.1\r\nHo");

    assert_eq!(client.response().status(), 408);
    client.assert_closed();
    assert_eq!(gateway.get("/other").text(), "/other");
}

#[test]
fn a_connection_on_which_nothing_is_ever_sent_is_closed() {
    let origin = Origin::naming_targets();
    let gateway = gateway(&origin, json!({ "header": "200ms" }));

    gateway.client().assert_closed();
}

#[test]
fn each_listener_has_its_own_patience_with_heads() {
    let origin = Origin::naming_targets();
    let mut config = proxy_to(&origin);
    config["listeners"] = json!([
        { "name": "patient", "timeouts": { "header": "5m" } },
        { "name": "impatient", "timeouts": { "header": "200ms" } },
    ]);
    let gateway = Gateway::start(config);

    for begun in ["", "GET / HTTP/1.1\r\nHo"] {
        // Who may take longer comes first, so that one patience for both would end it first.
        let mut patient = Client::connect(&gateway.address_of("patient"));
        patient.send(begun);
        eventually("it is there", || {
            gateway.metrics().sum("postern_connections_open", &[("listener", "patient")]) == 1.0
        });
        let mut impatient = Client::connect(&gateway.address_of("impatient"));
        impatient.send(begun);
        if !begun.is_empty() {
            assert_eq!(impatient.response().status(), 408);
        }
        impatient.assert_closed();

        patient.assert_silent();
        let rest = &"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[begun.len()..];
        assert_eq!(patient.send(rest).response().text(), "/");
        drop(patient);
        eventually("it is gone", || {
            gateway.metrics().sum("postern_connections_open", &[("listener", "patient")]) == 0.0
        });
    }
}

#[test]
fn content_that_stops_is_answered_with_408_and_never_completed_at_the_backend() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, json!({ "body": "200ms" }));
    for head in ["Content-Length: 10\r\n\r\npart", "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"] {
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"));
        let response = client.response();
        assert_eq!(response.status(), 408, "{response}");
        client.assert_closed();
        eventually("the backend sees the end of it", || origin.open_connections() == 0);
    }
    assert_eq!(origin.requests().len(), 0);
    assert_eq!(gateway.client().post("/", b"other").response().text(), "other");
}

#[test]
fn content_that_is_slow_but_comes_is_not_cut_off() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, json!({ "body": "400ms", "header": "400ms" }));
    let mut client = gateway.client();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    for byte in "drop-by!".chars() {
        pause(100);
        client.send(byte.to_string());
    }

    assert_eq!(client.response().text(), "drop-by!");
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let origin = Origin::naming_targets();
    let gateway = gateway(&origin, json!({ "idle": "200ms" }));
    let mut client = gateway.client();
    assert_eq!(client.get("/").response().text(), "/");

    client.assert_closed();

    assert_eq!(gateway.get("/other").text(), "/other");
}

/// An origin whose response is larger than all buffers on its way.
fn flood() -> Origin {
    Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/flood" {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 4_u64 << 30));
                let block = vec![b'x'; 1 << 20];
                while peer.try_send(&block) {}
                return;
            }
            peer.send(crate::harness::ok("fine"));
        }
    })
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_its_upstream_connection_closed() {
    let origin = flood();
    let gateway = gateway(&origin, json!({ "write": "300ms" }));
    let mut client = gateway.client();

    client.get("/flood");

    eventually("the origin is let go", || origin.connections() == 1 && origin.open_connections() == 0);
    assert_eq!(gateway.get("/").text(), "fine");
}

#[test]
fn a_client_that_reads_slowly_is_not_cut_off() {
    let origin = flood();
    let gateway = gateway(&origin, json!({ "write": "1s" }));
    let mut client = gateway.client();

    client.get("/flood");
    for _ in 0..40 {
        client.read(1 << 20);
        pause(50);
    }

    assert_eq!(origin.open_connections(), 1);
}

#[test]
fn a_client_that_leaves_takes_its_upstream_request_with_it() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.stall();
        }
    });
    let gateway = Gateway::before(&origin);
    for by_reset in [false, true] {
        let mut client = gateway.client();
        client.get("/");
        eventually("the origin has the request", || origin.open_connections() == 1);
        match by_reset {
            true => client.reset(),
            false => drop(client),
        }
        eventually("the origin is let go", || origin.open_connections() == 0);
    }
}

/// An origin that switches to a protocol in which it sends back what it gets.
fn tunnelling() -> Origin {
    Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
            loop {
                let bytes = peer.read(4);
                if bytes.is_empty() {
                    return;
                }
                peer.send(bytes);
            }
        }
    })
}

const SWITCH: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

#[test]
fn a_tunnel_outlasts_the_requests_time() {
    let origin = tunnelling();
    let mut config = proxy_to(&origin);
    config["routes"][0]["timeout"] = json!("300ms");
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    assert_eq!(client.send(SWITCH).response().status(), 101);

    pause(600);

    assert_eq!(client.send("ping").read(4), b"ping");
}

#[test]
fn a_tunnel_in_which_nothing_moves_is_closed() {
    let origin = tunnelling();
    let mut config = proxy_to(&origin);
    config["upstreams"]["origin"]["timeouts"] = json!({ "tunnel_idle": "200ms" });
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    assert_eq!(client.send(SWITCH).response().status(), 101);

    client.assert_closed();

    eventually("the origin is let go", || origin.open_connections() == 0);
}
