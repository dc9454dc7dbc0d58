//! `Expect: 100-continue` (RFC 9110 section 10.1.1) and other interim responses: whoever speaks first, nobody loses count.

use crate::harness::{Gateway, Origin, eventually, ok};

const HEAD: &str = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn the_content_is_sent_after_the_origins_100_and_not_before() {
    let origin = Origin::scripted(|peer| {
        let Some(head) = peer.head() else { return };
        assert!(head.to_ascii_lowercase().contains("expect: 100-continue\r\n"), "{head}");
        let early = peer.read_for(std::time::Duration::from_millis(100));
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
        let body = peer.read(5);
        peer.send(ok(format!("{}+{}", early.len(), String::from_utf8_lossy(&body))));
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send(HEAD);
    assert_eq!(client.response().status(), 100);
    client.send("hello");

    assert_eq!(client.response().text(), "0+hello");
}

#[test]
fn content_that_the_client_sends_at_once_waits_for_the_origins_100() {
    let origin = Origin::scripted(|peer| {
        if peer.head().is_some() {
            let early = peer.read_for(std::time::Duration::from_millis(100));
            peer.send("HTTP/1.1 100 Continue\r\n\r\n");
            let body = peer.read(5);
            peer.send(ok(format!("{}+{}", early.len(), String::from_utf8_lossy(&body))));
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send(HEAD).send("hello");

    let mut response = client.response();
    if response.status() == 100 {
        response = client.response();
    }
    assert_eq!(response.text(), "0+hello");
}

#[test]
fn a_refusal_without_a_100_reaches_the_client_and_desynchronises_nobody() {
    let origin = Origin::scripted(|peer| {
        while let Some(head) = peer.head() {
            match head.starts_with("POST") {
                true => peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
                false => peer.send(ok("next")),
            }
        }
    });
    let gateway = Gateway::before(&origin);
    // The content is a request. Whether it is sent after the refusal or with the head, nobody may take it for one.
    let content = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        content.len()
    );

    for at_once in [false, true] {
        let mut client = gateway.client();
        client.send(&head);
        if at_once {
            client.send(content);
        }
        let refusal = client.response();
        assert_eq!((refusal.status(), refusal.text().as_str()), (403, "no"));
        if !at_once {
            let _ = client.try_send(content);
        }
        let _ = client.try_send("GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
        // Either the content was read and the next request is served, or the connection is closed.
        if let Ok(next) = client.try_response("GET") {
            assert_eq!(next.text(), "next");
        }
        assert_eq!(gateway.get("/innocent").text(), "next");
    }
    for connection in origin.received() {
        let connection = String::from_utf8_lossy(&connection).into_owned();
        assert!(!connection.contains("\r\n\r\nGET /smuggled"), "{connection}");
        assert!(!connection.starts_with("GET /smuggled"), "{connection}");
    }
}

#[test]
fn a_client_that_does_not_wait_for_ever_can_send_its_content_without_a_100() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send(HEAD);
    eventually("the head arrives", || origin.has_received("/upload"));
    client.send("hello");

    let mut response = client.response();
    if response.status() == 100 {
        response = client.response();
    }
    assert_eq!(response.text(), "hello");
    assert_eq!(origin.only_request().text(), "hello");
}

#[test]
fn an_expectation_without_content_or_in_http_1_0_asks_for_nothing() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    for request in [
        "GET /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "POST /b HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    ] {
        assert_eq!(gateway.client().send(request).response().status(), 200, "{request}");
    }
    assert!(origin.requests().iter().all(|request| !request.has("expect")));
}

#[test]
fn another_expectation_fails() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);

    let response = gateway.client().send("GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n").response();

    assert_eq!(response.status(), 417);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn interim_responses_are_passed_on_before_the_final_one() {
    let origin = Origin::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone",
    );
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for _ in 0..2 {
        client.get("/");
        for link in ["</a.css>; rel=preload", "</b.css>; rel=preload"] {
            let hints = client.response();
            assert_eq!((hints.status(), hints.field("link")), (103, Some(link)));
        }
        let response = client.response();
        assert_eq!((response.status(), response.text().as_str()), (200, "done"));
        assert!(!response.has("link"));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_http_1_0_client_gets_no_interim_response() {
    let origin = Origin::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone",
    );
    let gateway = Gateway::before(&origin);

    let response = gateway.client().send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").response();

    assert_eq!((response.status(), response.text().as_str()), (200, "done"));
}
