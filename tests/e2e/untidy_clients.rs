//! Clients that stop half-way, send more than they should, or go on too soon: they cost nobody else anything.

use serde_json::json;

use crate::harness::config::proxy_to;
use crate::harness::{Client, Gateway, Origin, ok, pause};

#[test]
fn a_head_that_is_not_all_there_holds_no_receive_buffer() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::before(&origin);
    let slow: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = gateway.client();
            client.send("G");
            client
        })
        .collect();

    // The bytes of those who came before have been received when this is answered.
    assert_eq!(gateway.get("/").text(), "hello");

    let used = gateway.metrics().sum("postern_receive_buffers_used", &[]);
    assert!(used < 10.0, "{used} buffers for {} clients that have sent one byte each", slow.len());
}

#[test]
fn malformed_content_costs_no_upstream_connection() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::before(&origin);
    assert_eq!(gateway.get("/").status(), 200);

    for _ in 0..5 {
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
        assert_eq!(client.response_to("POST").status(), 400);
    }

    assert_eq!(gateway.get("/").status(), 200);
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.requests().len(), 2, "nothing of the malformed requests was sent");
}

#[test]
fn a_client_that_stops_sending_still_gets_the_response_that_is_under_way() {
    let origin = Origin::scripted(|peer| {
        if peer.head().is_some() {
            // An answer that does not wait for the content, and goes on for longer than the content may pause.
            peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\n01234");
            peer.pause(600);
            peer.send("56789");
            peer.wait_for_close();
        }
    });
    let mut config = proxy_to(&origin);
    config["listeners"][0]["timeouts"] = json!({ "body": "100ms" });
    let gateway = Gateway::start(config);
    let mut client = gateway.client();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome");

    let response = client.response_to("POST");
    assert_eq!((response.status(), response.text().as_str()), (403, "0123456789"));
    client.assert_closed();
}

#[test]
fn requests_behind_the_last_one_do_not_take_its_response_away() {
    let origin = Origin::answering(ok("x".repeat(300_000)));
    let mut config = proxy_to(&origin);
    config["listeners"][0]["limits"] = json!({ "max_requests_per_connection": 1 });
    let gateway = Gateway::start(config);
    let mut client = gateway.client();

    client.send("GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send("GET /more HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_000));

    // A close with bytes unread resets the connection, and a reset discards what the client has not read.
    pause(100);
    let response = client.response();
    assert_eq!((response.status(), response.body.len()), (200, 300_000));
    assert_eq!(origin.only_request().target(), "/last");
}

#[test]
fn an_empty_line_behind_a_request_is_not_the_beginning_of_another() {
    let origin = Origin::echo();
    let mut config = proxy_to(&origin);
    config["listeners"][0]["timeouts"] = json!({ "header": "100ms" });
    let gateway = Gateway::start(config);
    let mut client = gateway.client();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\n");
    assert_eq!(client.response_to("POST").text(), "hello");
    pause(300);

    client.assert_silent();
    assert_eq!(client.post("/", b"again").response_to("POST").text(), "again");
}

#[test]
fn a_connection_that_will_be_closed_is_not_said_to_stay() {
    let origin = Origin::saying("hello");
    let mut config = proxy_to(&origin);
    config["routes"][0]["match"] = json!({ "path": "/only" });
    let gateway = Gateway::start(config);
    let mut client = gateway.client();

    client.send("POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");

    let response = client.response_to("POST");
    assert_eq!(response.status(), 404);
    assert_eq!(response.field("connection"), Some("close"), "{response}");
}

#[test]
fn the_admin_listener_takes_gets_and_keeps_no_connection_whose_content_is_not_sent() {
    let gateway = Gateway::before(&Origin::saying("hello"));
    let mut client = Client::connect(&gateway.admin());
    client.send("DELETE /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response_to("DELETE");
    assert_eq!((response.status(), response.field("allow")), (405, Some("GET, HEAD")));

    client.send("GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\nExpect: 100-continue\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status(), response.field("connection")), (200, Some("close")), "{response}");
}
