//! One connection, many requests: each is answered, in order, and knows nothing of the others.

use serde_json::json;

use crate::harness::config::proxy_to;
use crate::harness::{Client, Gateway, Origin, ok};

#[test]
fn one_connection_serves_many_requests_over_one_upstream_connection() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for number in 0..20 {
        let path = format!("/{number}?q={number}");
        assert_eq!(client.get(&path).response().text(), path);
    }

    assert_eq!(origin.connections(), 1);
    client.assert_silent();
}

#[test]
fn pipelined_requests_are_answered_in_order_whatever_time_each_takes() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/slow" {
                peer.pause(100);
            }
            peer.send(ok(request.target()));
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send(["/slow", "/b", "/c"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).concat());

    let answers = [client.response().text(), client.response().text(), client.response().text()];
    assert_eq!(answers, ["/slow", "/b", "/c"]);
    let targets: Vec<String> = origin.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets, ["/slow", "/b", "/c"]);
    client.assert_silent();
}

/// Two requests of which the first has a body that looks like a request.
const PAIRS: [&str; 2] = [
    "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\nGET /inner HTTP/1.1\r\nHost: inner\r\n\r\n\
     GET /second HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n13\r\nGET /inner HTTP/1.1\r\n11\r\n\r\nHost: inner\r\n\r\n\r\n\
     0\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n",
];

fn assert_pair(client: &mut Client, origin: &Origin, before: usize, what: &str) {
    let answers = [client.response().text(), client.response().text()];
    assert_eq!(answers, ["/first", "/second"], "{what}");
    let requests = origin.requests().split_off(before);
    let [first, second] = requests.as_slice() else { panic!("{what}: {requests:#?}") };
    assert_eq!((first.method(), first.target()), ("POST", "/first"), "{what}");
    assert!(first.text().starts_with("GET /inner HTTP/1.1\r\n"), "{what}: {first:#?}");
    assert_eq!((second.method(), second.target(), second.body.len()), ("GET", "/second", 0), "{what}");
}

#[test]
fn a_body_that_looks_like_a_request_stays_a_body_before_a_pipelined_request() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    for (index, pair) in PAIRS.iter().enumerate() {
        let mut client = gateway.client();
        assert_pair(client.send(pair), &origin, 2 * index, pair);
        client.assert_silent();
    }
}

#[test]
fn a_request_means_the_same_wherever_its_bytes_are_cut() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    let mut served = 0;
    for pair in PAIRS {
        for cut in 1..pair.len() {
            client.send_split(pair.as_bytes(), &[cut]);
            assert_pair(&mut client, &origin, served, &format!("cut at {cut} of {pair:?}"));
            served += 2;
        }
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    for (index, pair) in PAIRS.iter().enumerate() {
        client.send_split(pair.as_bytes(), &(1..pair.len()).collect::<Vec<_>>());
        assert_pair(&mut client, &origin, 2 * index, pair);
    }
}

#[test]
fn a_response_means_the_same_wherever_its_bytes_are_cut() {
    let response =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n5\r\nhello\r\n0\r\nX-End: 1\r\n\r\n";
    let origin = Origin::scripted(move |peer| {
        while let Some(request) = peer.request() {
            let cut = request.target()[1..].parse().expect("the target is a number");
            peer.send(&response[..cut]);
            peer.pause(5);
            peer.send(&response[cut..]);
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for cut in 1..response.len() {
        let response = client.get(&format!("/{cut}")).response();
        assert_eq!((response.status(), response.text().as_str()), (200, "hello"), "cut at {cut}");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_empty_line_before_a_request_is_passed_over() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send("\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n");

    assert_eq!([client.response().text(), client.response().text()], ["/a", "/b"]);
    assert!(origin.requests()[1].raw.starts_with(b"GET /b"));
}

#[test]
fn a_client_that_says_close_gets_its_answer_and_the_close() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n");

    let response = client.response();
    assert_eq!(response.text(), "/a");
    assert!(response.connection_has("close"), "{response}");
    client.assert_closed();
    assert!(!origin.has_received("/never"));
}

#[test]
fn the_clients_close_does_not_close_the_upstream_connection() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);

    for _ in 0..3 {
        let mut client = gateway.client();
        client.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(client.response().text(), "/a");
        client.assert_closed();
    }

    assert_eq!(origin.connections(), 1);
    assert!(origin.requests().iter().all(|request| !request.connection_has("close")));
}

#[test]
fn an_upstream_that_says_close_does_not_close_the_clients_connection() {
    let origin = Origin::answering_once("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for _ in 0..3 {
        let response = client.get("/").response();
        assert_eq!(response.text(), "hi");
        assert!(!response.connection_has("close"), "{response}");
    }

    assert_eq!(origin.connections(), 3);
}

#[test]
fn an_http_1_0_client_is_closed_unless_it_asks_to_be_kept() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);

    let mut plain = gateway.client();
    plain.send("GET /a HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(plain.response().text(), "/a");
    plain.assert_closed();

    let mut kept = gateway.client();
    for path in ["/b", "/c"] {
        kept.send(format!("GET {path} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"));
        let response = kept.response();
        assert_eq!(response.text(), path);
        assert!(response.connection_has("keep-alive"), "{response}");
    }
    kept.assert_silent();
}

#[test]
fn the_last_of_the_requests_that_a_connection_may_have_is_answered_with_close() {
    let origin = Origin::naming_targets();
    let mut config = proxy_to(&origin);
    config["listeners"][0]["limits"] = json!({ "max_requests_per_connection": 3 });
    let gateway = Gateway::start(config);
    let mut client = gateway.client();

    for path in ["/1", "/2"] {
        assert!(!client.get(path).response().connection_has("close"));
    }
    let last = client.get("/3").response();

    assert!(last.connection_has("close"), "{last}");
    client.assert_closed();
}

#[test]
fn connections_past_the_listeners_bound_are_closed_at_once_and_others_served() {
    let origin = Origin::naming_targets();
    let mut config = proxy_to(&origin);
    config["listeners"][0]["limits"] = json!({ "max_connections": 2 });
    let gateway = Gateway::start(config);
    let mut first = gateway.client();
    let mut second = gateway.client();
    assert_eq!(first.get("/1").response().text(), "/1");
    assert_eq!(second.get("/2").response().text(), "/2");

    gateway.client().assert_closed();

    assert_eq!(first.get("/3").response().text(), "/3");
    let count = |name: &str| gateway.metrics().sum(name, &[("listener", "public")]);
    assert_eq!((count("postern_connections_total"), count("postern_connections_refused_total")), (2.0, 1.0));
    drop(second);
    crate::harness::eventually("the place of the closed connection is free", || {
        gateway.client().get("/4").try_response("GET").is_ok_and(|response| response.text() == "/4")
    });
}
