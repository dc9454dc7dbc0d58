//! What is told of requests that went wrong: the access log and the counters say what became of each, and who ended it.

use serde_json::{Value, json};

use crate::harness::config::proxy_to;
use crate::harness::{Gateway, Origin};

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
