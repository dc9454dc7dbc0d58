//! Requests that are too large in some way: refused as such, and as early as it is known.

use serde_json::json;

use crate::harness::config::proxy_to;
use crate::harness::{Gateway, Origin, eventually};

use super::{Scene, refusal};

fn scene() -> Scene {
    let origin = Origin::naming_targets();
    let mut config = proxy_to(&origin);
    config["listeners"][0]["limits"] =
        json!({ "max_head": "2KiB", "max_fields": 10, "max_target": 200, "max_body": 1000 });
    let gateway = Gateway::start(config);
    Scene { origin, gateway }
}

#[test]
fn a_target_past_its_bound_is_414() {
    let scene = scene();
    let target = |length: usize| format!("/{}", "a".repeat(length - 1));

    scene.refuse("a long target", format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", target(201)).as_bytes(), 414);
    scene.refuse("a target without end", format!("GET {}", target(1500)).as_bytes(), 414);
    assert_eq!(scene.gateway.get(&target(200)).status(), 200);
}

#[test]
fn a_head_past_its_bounds_is_431() {
    let scene = scene();
    let many = "X: a\r\n".repeat(10);
    let long = format!("X: {}\r\n", "a".repeat(2048));
    let endless = format!("X: {}", "a".repeat(4096));

    for fields in [&many, &long, &endless] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        scene.refuse(&fields[..20], bytes.as_bytes(), 431);
    }
    let just = format!("GET /innocent HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(9));
    assert_eq!(scene.gateway.client().send(just).response().status(), 200);
}

#[test]
fn a_body_past_its_bound_is_413_at_once_where_its_length_is_said() {
    let scene = scene();

    scene.refuse("a large body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413);
    scene.refuse("a huge body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n", 413);
    let mut client = scene.gateway.client();
    assert_eq!(client.post("/innocent", &[b'a'; 1000]).response().status(), 200);
}

#[test]
fn a_client_that_asks_first_is_not_invited_to_send_too_much() {
    let scene = scene();

    scene.refuse(
        "a large body",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n",
        413,
    );
}

#[test]
fn a_chunked_body_past_its_bound_is_413_and_is_never_completed_at_the_backend() {
    let scene = scene();
    let chunk = format!("1F4\r\n{}\r\n", "b".repeat(500));
    let mut client = scene.gateway.client();

    client.send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").send(&chunk).send(&chunk);
    eventually("the allowed part arrives", || {
        scene.origin.received().iter().any(|bytes| bytes.iter().filter(|byte| **byte == b'b').count() >= 1000)
    });
    client.send("1\r\nc\r\n0\r\n\r\n");

    assert_eq!(refusal(&mut client, "a long chunked body").status(), 413);
    scene.assert_untouched("a long chunked body");
}

#[test]
fn a_body_within_its_bound_by_chunks_is_passed_on() {
    let scene = scene();
    let mut client = scene.gateway.client();

    client.send(format!(
        "POST /innocent HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3E8\r\n{}\r\n0\r\n\r\n",
        "b".repeat(1000)
    ));

    assert_eq!(client.response().status(), 200);
    assert_eq!(scene.origin.only_request().body.len(), 1000);
}

#[test]
fn a_route_may_allow_more_or_less_than_its_listener() {
    let origin = Origin::echo();
    let mut config = proxy_to(&origin);
    config["listeners"][0]["limits"] = json!({ "max_body": 100 });
    config["routes"] = json!([
        { "match": { "path": "/more" }, "upstream": "origin", "max_body": "1KiB" },
        { "match": { "path": "/less" }, "upstream": "origin", "max_body": 10 },
        { "upstream": "origin" },
    ]);
    let gateway = Gateway::start(config);
    for (path, length, status) in [
        ("/more", 1024, 200),
        ("/more", 1025, 413),
        ("/less", 10, 200),
        ("/less", 11, 413),
        ("/", 100, 200),
        ("/", 101, 413),
    ] {
        let response = gateway.client().post(path, &vec![b'a'; length]).response();
        assert_eq!(response.status(), status, "{path} {length}");
    }
}
