//! What is told of requests that went wrong: the access log and the counters say what became of each, and who ended it.

use std::sync::{Mutex, mpsc};

use serde_json::{Value, json};

use crate::harness::config::proxy_to;
use crate::harness::{Client, Gateway, Metrics, Origin, Peer, latin1, ok};

/// A gateway with an access log, a short patience for heads and narrow limits.
fn strict(origin: &Origin) -> Gateway {
    let mut config = proxy_to(origin);
    config["access_log"] = json!({ "format": "json" });
    config["listeners"][0]["limits"] = json!({ "max_fields": 8, "max_target": "64B", "max_body": "10B" });
    config["listeners"][0]["timeouts"] = json!({ "header": "200ms" });
    Gateway::start(config)
}

/// The one line that has this in it.
fn line(gateway: &Gateway, needle: &str) -> Value {
    let lines = gateway.wait_for_lines(needle, 1);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    serde_json::from_str(&lines[0]).unwrap_or_else(|error| panic!("{error}: {lines:?}"))
}

// === Requests that are refused ===

#[test]
fn a_request_whose_head_is_refused_has_a_line_with_the_id_that_its_client_was_given() {
    let origin = Origin::saying("x");
    let gateway = strict(&origin);
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(10));
    for (head, status, problem) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "ambiguous-length",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400, "space-before-colon"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad-host"),
        (&long_target, 414, "target-too-long"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\n\r\n", 417, "unknown-expectation"),
        (&many_fields, 431, "too-many-fields"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501, "connect-not-implemented"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported-version"),
        // A head of which the rest never came.
        ("GET /unfinished HTTP/1.1\r\nHo", 408, "request-timeout"),
    ] {
        let response = gateway.client().send(head).response();
        assert_eq!(response.status(), status, "{head:?}: {response}");

        let line = line(&gateway, response.field("x-request-id").expect("an id"));
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["problem"], problem, "{line}");
        assert_eq!(line["flags"], "DPE", "{line}");
        assert_eq!(line["client"], "127.0.0.1", "{line}");
        assert_eq!(line["listener"], "public", "{line}");
        assert_eq!(line["bytes_received"], head.len(), "{line}");
        assert_eq!(line["attempts"], 0, "{line}");
        for unknown in ["method", "host", "path", "version", "upstream", "endpoint"] {
            assert_eq!(line.get(unknown), Some(&Value::Null), "{unknown} in {line}");
        }
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_request_that_is_refused_for_what_its_head_says_has_one_line_that_names_it() {
    let origin = Origin::saying("x");
    let gateway = strict(&origin);
    for (method, path, content, status, problem) in [
        ("GET", "/bad%00path", "", 400, "bad-path"),
        ("POST", "/much", "more than ten bytes", 413, "content-too-large"),
    ] {
        let length = content.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let response = gateway.client().send([head.as_bytes(), content.as_bytes()].concat()).response();
        assert_eq!(response.status(), status, "{response}");

        let line = line(&gateway, response.field("x-request-id").expect("an id"));
        assert_eq!((&line["method"], &line["path"]), (&json!(method), &json!(path)), "{line}");
        assert_eq!((&line["status"], &line["problem"]), (&json!(status), &json!(problem)), "{line}");
        assert_eq!(line["bytes_received"], head.len(), "{line}");
    }
}

// === Who ended what ===

fn logged(origin: &Origin) -> Value {
    let mut config = proxy_to(origin);
    config["access_log"] = json!({ "format": "json" });
    config
}

/// Asserts what the log says of the only request to `path`, and that the listener counts it as ended by `by` and by nobody else.
fn assert_ended(gateway: &Gateway, path: &str, (status, flags, problem): (u16, &str, &str), by: &str) {
    let line = line(gateway, path);
    assert_eq!(line["status"], status, "{line}");
    assert_eq!((&line["flags"], &line["problem"]), (&json!(flags), &json!(problem)), "{line}");
    let metrics = gateway.metrics();
    for who in ["client", "upstream", "deadline"] {
        let count = metrics.sum("postern_responses_incomplete_total", &[("listener", "public"), ("by", who)]);
        assert_eq!(count, if who == by { 1.0 } else { 0.0 }, "by {who}");
    }
}

fn failures(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("postern_upstream_failures_total", &[("upstream", "origin")])
}

const HALF: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";

/// An origin that sends half a response, and then does what the test wants.
fn half(then: impl Fn(&mut Peer) + Send + Sync + 'static) -> Origin {
    Origin::scripted(move |peer| {
        if peer.request().is_some() {
            peer.send(HALF);
            then(peer);
        }
    })
}

/// Asks, and waits until half the response is here.
fn client_with_half(gateway: &Gateway, path: &str) -> Client {
    let mut client = gateway.client();
    client.get(path);
    let mut seen = String::new();
    // What comes behind it may be in the same chunk by now.
    while !seen.ends_with("half") {
        seen.push_str(&latin1(&client.read(1)));
    }
    client
}

#[test]
fn an_upstream_that_breaks_off_is_said_to_have_done_so() {
    let origin = half(|peer| peer.pause(50));
    let gateway = Gateway::start(logged(&origin));

    gateway.client().get("/half").broken_off_response("GET");

    assert_ended(&gateway, "/half", (200, "UC", "upstream-reset"), "upstream");
    assert_eq!(failures(&gateway), 0.0, "it did respond");
}

#[test]
fn an_upstream_that_sends_nonsense_half_way_is_said_to_have_done_so() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let origin = half(move |peer| {
        if released.lock().expect("no script panics").recv().is_ok() {
            peer.send("nonsense\r\n");
            peer.wait_for_close();
        }
    });
    let gateway = Gateway::start(logged(&origin));

    let mut client = client_with_half(&gateway, "/half");
    release.send(()).expect("the origin waits");
    client.read_to_end();

    assert_ended(&gateway, "/half", (200, "UPE", "bad-upstream-response"), "upstream");
}

#[test]
fn an_upstream_that_stalls_half_way_is_said_to_have_done_so() {
    let origin = half(Peer::stall);
    let mut config = logged(&origin);
    config["upstreams"]["origin"]["timeouts"] = json!({ "idle": "200ms" });
    let gateway = Gateway::start(config);

    gateway.client().get("/half").broken_off_response("GET");

    assert_ended(&gateway, "/half", (200, "UT", "upstream-timeout"), "upstream");
}

#[test]
fn a_response_past_the_requests_time_is_said_to_be() {
    let origin = half(|peer| {
        while peer.try_send("1\r\nx\r\n") {
            peer.pause(50);
        }
    });
    let mut config = logged(&origin);
    config["routes"][0]["timeout"] = json!("400ms");
    let gateway = Gateway::start(config);

    gateway.client().get("/half").broken_off_response("GET");

    assert_ended(&gateway, "/half", (200, "UT", "deadline-exceeded"), "deadline");
}

#[test]
fn a_client_that_leaves_half_way_is_said_to_have_left() {
    for by_reset in [false, true] {
        let origin = half(Peer::stall);
        let gateway = Gateway::start(logged(&origin));

        let client = client_with_half(&gateway, "/half");
        match by_reset {
            true => client.reset(),
            false => drop(client),
        }

        assert_ended(&gateway, "/half", (200, "DC", "client-gone"), "client");
        assert_eq!(failures(&gateway), 0.0);
    }
}

#[test]
fn a_client_that_leaves_before_the_response_is_said_to_have_left() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.stall();
        }
    });
    let gateway = Gateway::start(logged(&origin));
    let mut client = gateway.client();

    client.get("/early");
    origin.wait_for_requests(1);
    drop(client);

    assert_ended(&gateway, "/early", (0, "DC", "client-gone"), "client");
    assert_eq!(failures(&gateway), 0.0, "the upstream is not to blame");
}

#[test]
fn a_client_that_does_not_read_is_told_from_one_that_leaves() {
    let origin = half(|peer| {
        let block = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
        while peer.try_send(&block) {}
    });
    let mut config = logged(&origin);
    config["listeners"][0]["timeouts"] = json!({ "write": "300ms" });
    let gateway = Gateway::start(config);

    let _client = client_with_half(&gateway, "/flood");

    assert_ended(&gateway, "/flood", (200, "SI", "client-stalled"), "client");
}

// === What counters count ===

#[test]
fn attempts_that_end_without_a_response_are_failures_of_the_upstream() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            match request.target() {
                "/close" => return,
                "/nonsense" => peer.send("nonsense\r\n\r\n"),
                "/stall" => peer.stall(),
                _ => peer.send(ok("fine")),
            }
        }
    });
    let mut config = proxy_to(&origin);
    config["upstreams"]["origin"]["timeouts"] = json!({ "first_byte": "300ms" });
    let gateway = Gateway::start(config);

    for (path, status, count) in
        [("/close", 502, 1.0), ("/nonsense", 502, 2.0), ("/stall", 504, 3.0), ("/fine", 200, 3.0)]
    {
        assert_eq!(gateway.get(path).status(), status, "{path}");
        assert_eq!(failures(&gateway), count, "{path}");
    }
    // Content that its client got wrong, on a connection that is good.
    let malformed = "POST /fine HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(gateway.client().send(malformed).response().status(), 400);
    assert_eq!(failures(&gateway), 3.0);
}

#[test]
fn a_tunnel_is_no_success_and_its_length_no_duration_of_a_request() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
            let bytes = peer.read(4);
            peer.send(bytes);
        }
    });
    let gateway = Gateway::start(logged(&origin));
    let mut client = gateway.client();
    client.send("GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.response().status(), 101);
    assert_eq!(client.send("ping").read(4), b"ping");
    client.assert_closed();
    drop(client);

    let line = line(&gateway, "/tunnel");
    assert_eq!((&line["status"], &line["flags"]), (&json!(101), &json!("-")), "{line}");
    let metrics = gateway.metrics();
    for (class, count) in [("1xx", 1.0), ("2xx", 0.0)] {
        for name in ["postern_responses_total", "postern_upstream_responses_total"] {
            assert_eq!(
                metrics.sum(name, &[("class", class)]) - by_admin(&metrics, name, class),
                count,
                "{name} {class}"
            );
        }
    }
    assert_eq!(metrics.sum("postern_upstream_request_duration_seconds_count", &[]), 0.0);
}

/// What the admin listener answered itself.
fn by_admin(metrics: &Metrics, name: &str, class: &str) -> f64 {
    match name {
        "postern_responses_total" => metrics.sum(name, &[("listener", "admin"), ("class", class)]),
        _ => 0.0,
    }
}

#[test]
fn what_is_received_is_what_clients_sent() {
    let origin = Origin::saying("x");
    let mut config = logged(&origin);
    config["routes"][0]["request_headers"] = json!({ "set": { "x-long": "y".repeat(1000) } });
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    let get = "GET /get HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\ncontent";

    client.send(get).response();
    client.send(post).response();

    assert_eq!(line(&gateway, "/get")["bytes_received"], get.len());
    assert_eq!(line(&gateway, "/post")["bytes_received"], post.len());
    let received = gateway.metrics().sum("postern_received_bytes_total", &[("listener", "public")]);
    assert_eq!(received, (get.len() + post.len()) as f64);
}

#[test]
fn problems_that_nobody_can_be_told_of_are_no_series() {
    let origin = Origin::saying("x");
    let gateway = Gateway::before(&origin);

    let metrics = gateway.metrics();

    let problems = metrics.samples.iter().filter(|sample| sample.name == "postern_problems_total");
    let kinds: Vec<&str> = problems.map(|sample| sample.labels["kind"].as_str()).collect();
    assert!(kinds.contains(&"upstream-reset"), "{kinds:?}");
    for kind in ["internal", "overloaded", "draining", "truncated-content"] {
        assert!(!kinds.contains(&kind), "{kind}");
    }
}
