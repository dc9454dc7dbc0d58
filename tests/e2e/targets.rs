//! Every form of a request target (RFC 9112 section 3.2), and one spelling of each path.

use serde_json::json;

use crate::harness::config::routes;
use crate::harness::{Gateway, Origin};

#[test]
fn an_absolute_target_is_sent_on_as_a_path() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    for (target, host, expected) in [
        ("http://shop.example/a?b=c", "shop.example", "/a?b=c"),
        ("http://SHOP.example:80/a", "shop.example", "/a"),
        ("HTTP://shop.example:8080", "shop.example:8080", "/"),
        ("http://shop.example?q", "shop.example", "/?q"),
    ] {
        let text = client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).response().text();
        assert_eq!(text, expected, "{target}");
        let last = origin.requests().pop().expect("it was answered");
        assert!(last.field("host").is_some_and(|it| it.eq_ignore_ascii_case(host)), "{last:#?}");
    }
}

#[test]
fn options_of_the_whole_server_leaves_the_connection_usable() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    let response = client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").response();

    assert!((200..300).contains(&response.status()), "{response}");
    // The same, as a proxy is asked for it (RFC 9112 section 3.2.4).
    let response = client.send("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert!((200..300).contains(&response.status()), "{response}");
    assert_eq!(client.get("/next").response().text(), "/next");
    assert!(origin.requests().iter().all(|request| request.method() != "OPTIONS" || request.target() == "*"));
}

#[test]
fn connect_is_refused_and_opens_no_tunnel() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    for target in ["example.com:443", "/path", "*"] {
        let mut client = gateway.client();
        client
            .send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nGET /inner HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response();
        assert!(matches!(response.status(), 400 | 501), "{target}: {response}");
        client.assert_closed();
    }
    let mut client = gateway.client();
    assert_eq!(
        client.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n").response().status(),
        501
    );
    assert_eq!(origin.connections(), 0);
}

#[test]
fn the_backend_gets_the_one_spelling_of_a_path() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    for (sent, received) in [
        ("/a/../b", "/b"),
        ("/a/./b/.", "/a/b/"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/.%2E/b", "/b"),
        ("/%41%7e", "/A~"),
        ("/a%2fb", "/a%2Fb"),
        ("/a//b", "/a//b"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/a?x=/../%2e%41", "/a?x=/../%2e%41"),
        ("/a?", "/a?"),
        ("/", "/"),
    ] {
        assert_eq!(client.get(sent).response().text(), received, "{sent}");
    }
}

#[test]
fn a_path_that_nobody_sends_in_good_faith_is_refused() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    for path in [
        "/..",
        "/a/../../b",
        "/%2e%2e/b",
        "/%00",
        "/a%",
        "/a%4",
        "/a%zz",
        "/a\\..\\b",
        "/a%5cb",
        "/a#fragment",
        "a",
        "",
    ] {
        let mut client = gateway.client();
        assert_eq!(client.get(path).response().status(), 400, "{path}");
    }
    let mut client = gateway.client();
    let refusal = client.send("HEAD /%00 HTTP/1.1\r\nHost: a\r\n\r\n").response_to("HEAD");
    assert_eq!(refusal.status(), 400);
    client.assert_closed();
    assert_eq!(origin.connections(), 0);
}

#[test]
fn unusual_methods_are_passed_on_as_they_are() {
    let origin = Origin::saying("x");
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    for method in ["PATCH", "DELETE", "PROPFIND", "get", "M-SEARCH", "X!#$%&'*+.^`|~1"] {
        assert_eq!(
            client.send(format!("{method} /m HTTP/1.1\r\nHost: a\r\n\r\n")).response().status(),
            200,
            "{method}"
        );
        assert_eq!(origin.requests().pop().expect("it was answered").method(), method);
    }
}

#[test]
fn trace_is_for_routes_that_name_it() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::start(routes(
        &origin,
        json!([
            { "match": { "path": "/{*rest}" }, "upstream": "origin", "request_headers": { "set": { "x-secret": "s" } } },
            { "match": { "path": "/named", "methods": ["GET", "TRACE"] }, "upstream": "origin" },
            { "match": { "path": "/named" }, "upstream": "origin" },
        ]),
    ));
    let mut client = gateway.client();

    let refusal = client.send("TRACE / HTTP/1.1\r\nHost: a\r\nX-A: echo\r\n\r\n").response();

    assert_eq!(refusal.status(), 405);
    assert_eq!(refusal.field("allow"), Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"));
    assert!(!refusal.text().contains("echo") && origin.requests().is_empty(), "{refusal}");
    assert_eq!(client.send("TRACE /named HTTP/1.1\r\nHost: a\r\n\r\n").response().text(), "/named");
}

#[test]
fn max_forwards_is_counted_down_and_ends_here() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::start(routes(
        &origin,
        json!([
            { "upstream": "origin" },
            { "match": { "path": "/trace", "methods": ["TRACE", "PUT"] }, "upstream": "origin" },
        ]),
    ));
    let mut client = gateway.client();
    let mut ask = |line: &str, value: &str| {
        client.send(format!("{line} HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n")).response()
    };

    assert_eq!(ask("OPTIONS /x", "0").status(), 200);
    let refusal = ask("TRACE /trace", "0");
    assert_eq!((refusal.status(), refusal.field("allow")), (405, Some("PUT")));
    assert!(origin.requests().is_empty());

    for (line, sent, received) in [
        ("OPTIONS /x", "1", "0"),
        ("TRACE /trace", "10", "9"),
        ("OPTIONS /x", "99999999999999999999", "18446744073709551614"),
        ("GET /x", "0", "0"),
        ("GET /x", "many", "many"),
    ] {
        assert_eq!(ask(line, sent).status(), 200, "{line} {sent}");
        let request = origin.requests().pop().expect("it was answered");
        assert_eq!(request.values("max-forwards"), [received], "{line} {sent}");
    }
    assert_eq!(ask("OPTIONS /x", "many").status(), 400);
}

#[test]
fn an_ipv6_host_has_one_spelling() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    for (host, status) in [
        ("[::1]", 200),
        ("[2001:DB8::1]:80", 200),
        ("[::ffff:192.0.2.1]", 200),
        ("[0:0::1]", 400),
        ("[0:0:0:0:0:0:0:1]:80", 400),
        ("[2001:0db8::1]", 400),
        ("[::ffff:c000:201]", 400),
    ] {
        let mut client = gateway.client();
        assert_eq!(
            client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).response().status(),
            status,
            "{host}"
        );
    }
}
