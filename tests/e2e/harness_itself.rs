//! The harness, tried without a gateway: a test that cannot fail proves nothing.

use crate::harness::{Client, Framing, Metrics, Origin, latin1, ok};

#[test]
fn a_client_reads_what_an_origin_sends_and_the_origin_remembers_the_request() {
    let origin = Origin::saying("hello");
    let mut client = Client::connect(origin.address());

    let first = client.get("/a").response();
    let second = client.post("/b", b"body").response();

    assert_eq!((first.status(), first.text().as_str()), (200, "hello"));
    assert_eq!(second.framing, Framing::Length);
    let requests = origin.requests();
    assert_eq!(requests[0].target(), "/a");
    assert_eq!((requests[1].method(), requests[1].body.as_slice()), ("POST", b"body".as_slice()));
    assert_eq!(requests[1].connection, 0);
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.received(), [[requests[0].raw.clone(), requests[1].raw.clone()].concat()]);
}

#[test]
fn a_chunked_message_is_read_with_its_trailers() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n");
    let mut client = Client::connect(origin.address());
    let request = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n";

    let response = client.send_split(request, &(1..request.len()).collect::<Vec<_>>()).response();

    assert_eq!(response.text(), "abc");
    assert_eq!(response.trailer("x-end"), ["1"]);
    assert_eq!(origin.only_request().body, b"hi");
    assert_eq!(origin.only_request().trailer("x-sum"), ["2"]);
    client.assert_silent();
}

#[test]
fn a_response_that_breaks_off_is_no_response() {
    let cut = [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ];
    for response in cut {
        let origin = Origin::answering_once(response);
        assert_eq!(Client::connect(origin.address()).get("/").broken_off_response("GET"), response);
    }
}

#[test]
fn a_malformed_response_is_no_response() {
    let malformed = [
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    ];
    for response in malformed {
        let origin = Origin::answering_once(response);
        let fault = Client::connect(origin.address()).get("/").try_response("GET").expect_err(response);
        assert!(!fault.why.contains("the connection was ended"), "{response:?}");
    }
}

#[test]
fn a_response_that_lasts_until_the_close_is_complete_with_a_close_and_not_with_a_reset() {
    let response = "HTTP/1.1 200 OK\r\n\r\nuntil";
    let origin = Origin::scripted(move |peer| {
        if let Some(request) = peer.request() {
            peer.send(response);
            peer.pause(50);
            if request.target() == "/reset" {
                peer.reset_on_close();
            }
        }
    });

    assert_eq!(Client::connect(origin.address()).get("/close").response().text(), "until");
    assert_eq!(Client::connect(origin.address()).get("/reset").broken_off_response("GET"), response);
}

#[test]
fn a_close_and_a_reset_are_seen_by_both_sides() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send(ok("x"));
            peer.reset_on_close();
        }
    });
    let mut client = Client::connect(origin.address());
    assert_eq!(client.get("/").response().text(), "x");
    client.assert_closed();

    let mut leaving = Client::connect(origin.address());
    leaving.send("GET");
    leaving.finish();
    leaving.assert_closed();
    let received = origin.received();
    assert_eq!(latin1(&received[1]), "GET");
}

#[test]
fn well_formed_metrics_are_read() {
    let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{b=\"x\\\"y\\\\,z}\",c=\"d\"} 3\na_total{b=\"q\",c=\"d\"} 4\n\
                # HELP h Times.\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 1.25\nh_count 2\n";

    let metrics = Metrics::parse(text).unwrap();

    assert_eq!(metrics.sum("a_total", &[("c", "d")]), 7.0);
    assert_eq!(metrics.sum("a_total", &[("b", "x\"y\\,z}")]), 3.0);
    assert_eq!(metrics.sum("h_count", &[]), 2.0);
}

#[test]
fn malformed_metrics_are_refused() {
    let head = "# HELP a Things.\n# TYPE a counter\n";
    let histogram = "# HELP a Times.\n# TYPE a histogram\n";
    for text in [
        format!("{head}a 1"),
        "a 1\n".to_owned(),
        "# TYPE a counter\na 1\n".to_owned(),
        format!("{head}b 1\n"),
        format!("{head}a 1\na 2\n"),
        format!("{head}a -1\n"),
        format!("{head}a one\n"),
        format!("{head}a{{b=c}} 1\n"),
        format!("{head}a{{b=\"c}} 1\n"),
        format!("{head}a{{b=\"c\",b=\"d\"}} 1\n"),
        format!("{head}a 1\n# HELP b Other.\n# TYPE b gauge\nb 1\n{head}a{{x=\"y\"}} 1\n"),
        format!("{histogram}a_bucket{{le=\"1\"}} 1\na_sum 1\na_count 1\n"),
        format!("{histogram}a_bucket{{le=\"1\"}} 2\na_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 1\n"),
        format!("{histogram}a_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 2\n"),
    ] {
        assert!(Metrics::parse(&text).is_err(), "{text}");
    }
}
