//! Which route a request takes, what becomes of it on the way, and what Postern says itself.

use serde_json::{Value, json};

use crate::harness::config::{proxy_to, routes};
use crate::harness::{Client, Gateway, Message, Origin};

/// Routes that answer with their names.
fn naming(matches: &[(&str, Value)]) -> Gateway {
    let origin = Origin::saying("unused");
    let list = matches.iter().map(|(name, matcher)| json!({ "match": matcher, "respond": { "body": name } }));
    let mut config = routes(&origin, list.collect());
    config["listeners"] = json!([{ "name": "public" }, { "name": "other" }]);
    Gateway::start(config)
}

fn ask(client: &mut Client, method: &str, host: &str, path: &str) -> Message {
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).response_to(method)
}

#[test]
fn the_most_specific_host_and_path_win_whatever_their_order() {
    let gateway = naming(&[
        ("any", json!({})),
        ("suffix", json!({ "host": "*.example.com" })),
        ("exact", json!({ "host": "api.example.com" })),
        ("exact-path", json!({ "host": "api.example.com", "path": "/v1/{*rest}" })),
        ("longer-path", json!({ "host": "api.example.com", "path": "/v1/users/{id}" })),
        ("fixed-path", json!({ "host": "api.example.com", "path": "/v1/users/me" })),
        ("other-listener", json!({ "listener": "other", "host": "api.example.com", "path": "/v1/users/me" })),
    ]);
    let mut client = gateway.client();
    for (host, path, name) in [
        ("somewhere.test", "/", "any"),
        ("example.com", "/", "any"),
        ("www.example.com", "/", "suffix"),
        ("a.b.example.com:8080", "/x", "suffix"),
        ("notexample.com", "/", "any"),
        ("api.example.com", "/", "exact"),
        ("API.Example.COM:443", "/", "exact"),
        ("api.example.com", "/v1/", "exact-path"),
        ("api.example.com", "/v1/users/7/x", "exact-path"),
        ("api.example.com", "/v1/users/7", "longer-path"),
        ("api.example.com", "/v1/users/me?x=/v2", "fixed-path"),
        ("api.example.com", "/v1/./users/%6De", "fixed-path"),
        ("api.example.com", "/v2/../v1/users/me", "fixed-path"),
        ("api.example.com", "/v1%2Fusers/me", "exact"),
    ] {
        assert_eq!(ask(&mut client, "GET", host, path).text(), name, "{host}{path}");
    }
    let mut other = Client::connect(&gateway.address_of("other"));
    assert_eq!(ask(&mut other, "GET", "api.example.com", "/v1/users/me").text(), "other-listener");
    assert_eq!(ask(&mut other, "GET", "api.example.com", "/v1/users/7").text(), "longer-path");
}

#[test]
fn a_method_that_no_route_of_the_path_has_is_405_with_allow() {
    let gateway = naming(&[
        ("read", json!({ "path": "/a", "methods": ["GET"] })),
        ("write", json!({ "path": "/a", "methods": ["PUT", "POST"] })),
        ("rest", json!({ "path": "/b/{*rest}" })),
    ]);
    let mut client = gateway.client();
    for (method, path, name) in
        [("GET", "/a", "read"), ("POST", "/a", "write"), ("PUT", "/a", "write"), ("DELETE", "/b/", "rest")]
    {
        assert_eq!(ask(&mut client, method, "a", path).text(), name, "{method} {path}");
    }
    assert_eq!(ask(&mut client, "HEAD", "a", "/a").status(), 200);

    let refused = ask(&mut client, "DELETE", "a", "/a");

    assert_eq!(refused.status(), 405);
    let mut allowed: Vec<&str> = refused.field("allow").expect("Allow").split(", ").collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST", "PUT"]);
    assert_problem(&refused);
    assert_eq!(ask(&mut client, "GET", "a", "/c").status(), 404);
    client.assert_silent();
}

#[test]
fn a_path_is_rewritten_with_what_was_captured_and_its_query_stays() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::start(routes(
        &origin,
        json!([
            { "match": { "path": "/v2/ledger/{*rest}" }, "upstream": "origin", "rewrite": { "path": "/ledger/{rest}" } },
            { "match": { "path": "/u/{id}/posts/{post}" }, "upstream": "origin", "rewrite": { "path": "/posts/{post}/by/{id}" } },
            { "match": { "path": "/fixed" }, "upstream": "origin", "rewrite": { "path": "/elsewhere" } },
        ]),
    ));
    let mut client = gateway.client();
    for (sent, received) in [
        ("/v2/ledger/a/b?x=1", "/ledger/a/b?x=1"),
        ("/v2/ledger/", "/ledger/"),
        ("/v2/ledger/../ledger/a%2Fb", "/ledger/a%2Fb"),
        ("/u/7/posts/9?", "/posts/9/by/7?"),
        ("/fixed?a=/fixed", "/elsewhere?a=/fixed"),
    ] {
        assert_eq!(client.get(sent).response().text(), received, "{sent}");
    }
}

#[test]
fn the_host_that_is_sent_is_the_clients_the_endpoints_or_a_given_one() {
    let origin = Origin::naming_targets();
    let rewritten = |host: &str| json!({ "match": { "path": format!("/{host}") }, "upstream": "origin", "rewrite": { "host": host } });
    let gateway = Gateway::start(routes(
        &origin,
        json!([{ "upstream": "origin" }, rewritten("client"), rewritten("endpoint"), rewritten("inner.test")]),
    ));
    let mut client = gateway.client();
    for (path, host) in [
        ("/", "example.com"),
        ("/client", "example.com"),
        ("/endpoint", origin.address()),
        ("/inner.test", "inner.test"),
    ] {
        client.get(path).response();
        let request = origin.requests().pop().expect("it was answered");
        assert_eq!(request.field("host"), Some(host), "{path}");
        assert_eq!(request.field("x-forwarded-host"), Some("example.com"), "{path}");
    }
}

#[test]
fn fields_are_removed_set_and_added_on_both_ways() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nX-Set: old\r\nX-Add: old\r\nContent-Length: 1\r\n\r\nx",
    );
    let edits = json!({ "remove": ["server", "x-gone"], "set": { "x-set": "new" }, "add": { "x-add": "more" } });
    let mut config = proxy_to(&origin);
    config["routes"][0]["request_headers"] = edits.clone();
    config["routes"][0]["response_headers"] = edits;
    let gateway = Gateway::start(config);

    let response = gateway
        .client()
        .send("GET / HTTP/1.1\r\nHost: a\r\nX-Gone: 1\r\nX-Set: a\r\nX-SET: b\r\nX-Add: old\r\nX-Kept: 1\r\n\r\n")
        .response();

    let request = origin.only_request();
    assert!(!request.has("x-gone"));
    assert_eq!(request.field("x-kept"), Some("1"));
    for message in [&request.message, &response] {
        assert_eq!(message.values("x-set"), ["new"], "{message}");
        assert_eq!(message.values("x-add"), ["old", "more"], "{message}");
        assert!(!message.has("server"), "{message}");
    }
}

#[test]
fn a_static_answer_is_sent_as_it_was_written() {
    let origin = Origin::saying("unused");
    let gateway = Gateway::start(routes(
        &origin,
        json!([
            { "match": { "path": "/json" }, "respond": { "status": 201, "content_type": "application/json", "body": "{\"a\":1}" } },
            { "match": { "path": "/text" }, "respond": { "body": "plain" }, "response_headers": { "set": { "cache-control": "no-store" } } },
            { "match": { "path": "/empty" }, "respond": { "status": 204 } },
        ]),
    ));
    let mut client = gateway.client();

    let json = client.get("/json").response();
    assert_eq!(
        (json.status(), json.field("content-type"), json.text().as_str()),
        (201, Some("application/json"), "{\"a\":1}")
    );
    let text = client.post("/text", b"ignored").response();
    assert_eq!((text.status(), text.text().as_str()), (200, "plain"));
    assert_eq!(text.field("cache-control"), Some("no-store"));
    let head = client.send("HEAD /text HTTP/1.1\r\nHost: a\r\n\r\n").response_to("HEAD");
    assert_eq!(head.field("content-length"), Some("5"));
    let empty = client.get("/empty").response();
    assert_eq!((empty.status(), empty.body.len(), empty.has("content-length")), (204, 0, false));
    for response in [&json, &text, &empty] {
        assert!(response.has("x-request-id"), "{response}");
        let date = response.field("date").expect("a date");
        assert!(date.ends_with(" GMT") && !date.contains(" 1970 "), "{response}");
    }
    client.assert_silent();
    assert_eq!(origin.connections(), 0);
}

/// RFC 9457, and nothing that is nobody's business.
fn assert_problem(response: &Message) {
    assert_eq!(response.field("content-type"), Some("application/problem+json"), "{response}");
    let problem = response.json();
    let kind = problem["type"].as_str().unwrap_or_default();
    let slug = kind.strip_prefix("urn:postern:problem:").unwrap_or_default();
    assert!(
        !slug.is_empty() && slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-' || byte.is_ascii_digit()),
        "{response}"
    );
    assert_eq!(problem["status"], response.status(), "{response}");
    assert_eq!(problem["request_id"].as_str(), response.field("x-request-id"), "{response}");
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{response}");
    let text = response.text().to_ascii_lowercase();
    for internal in ["127.0.0.1", "origin", "os error", "src/", "panick", ".json", "glommio", "errno"] {
        assert!(!text.contains(internal), "{internal} in {response}");
    }
}

#[test]
fn every_problem_has_one_shape_and_shows_no_internals() {
    let origin = Origin::answering_once("garbage\r\n\r\n");
    let mut config = routes(
        &origin,
        json!([
            { "match": { "path": "/garbage" }, "upstream": "origin" },
            { "match": { "path": "/refused" }, "upstream": "nobody" },
            { "match": { "path": "/get", "methods": ["GET"] }, "upstream": "origin" },
            { "match": { "path": "/small" }, "upstream": "origin", "max_body": 1 },
        ]),
    );
    config["upstreams"]["nobody"] =
        json!({ "endpoints": [format!("http://127.0.0.1:{}", crate::harness::free_port())] });
    let gateway = Gateway::start(config);
    for (status, request) in [
        (404, "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"),
        (405, "PUT /get HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        (502, "GET /garbage HTTP/1.1\r\nHost: a\r\n\r\n"),
        (502, "GET /refused HTTP/1.1\r\nHost: a\r\n\r\n"),
        (413, "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxx"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (501, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\n\r\n"),
    ] {
        let response = gateway.client().send(request).response();
        assert_eq!(response.status(), status, "{request:?}: {response}");
        assert_problem(&response);
    }
}

#[test]
fn problems_that_are_the_routes_leave_the_connection_usable() {
    let gateway = naming(&[("here", json!({ "path": "/here" }))]);
    let mut client = gateway.client();

    for _ in 0..3 {
        assert_eq!(client.post("/nowhere", b"unread content").response().status(), 404);
        assert_eq!(client.get("/here").response().text(), "here");
    }
    let head = client.send("HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").response_to("HEAD");
    assert_eq!(head.status(), 404);
    client.assert_silent();
}

#[test]
fn one_endpoint_of_many_routes_gets_only_what_is_routed_to_it() {
    let (blue, green) = (Origin::saying("blue"), Origin::saying("green"));
    let gateway = Gateway::start(json!({
        "listeners": [{ "name": "public" }],
        "upstreams": { "blue": { "endpoints": [blue.endpoint] }, "green": { "endpoints": [green.endpoint] } },
        "routes": [
            { "match": { "path": "/blue/{*rest}" }, "upstream": "blue" },
            { "match": { "path": "/green/{*rest}" }, "upstream": "green" },
        ],
    }));
    let mut client = gateway.client();

    for _ in 0..5 {
        assert_eq!(client.get("/blue/x").response().text(), "blue");
        assert_eq!(client.get("/green/x").response().text(), "green");
        assert_eq!(client.get("/blue/../green/x").response().text(), "green");
    }

    assert!(blue.requests().iter().all(|request| request.target() == "/blue/x"));
    assert!(green.requests().iter().all(|request| request.target() == "/green/x"));
}
