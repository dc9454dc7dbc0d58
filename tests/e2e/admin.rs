//! What operators see: health, metrics, the access log.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::harness::config::{proxy_to, routes};
use crate::harness::{Client, Gateway, Origin, eventually, free_port};

#[test]
fn health_and_readiness_are_told_on_the_admin_listener_only() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);

    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(gateway.ask_admin(path).status(), 200, "{path}");
        assert_eq!(gateway.get(path).text(), path, "{path} of the public listener is the backend's");
    }
    assert_eq!(gateway.ask_admin("/").status(), 404);
    assert_eq!(gateway.ask_admin("/other").status(), 404);
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn the_admin_listener_is_as_strict_as_any() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    let mut client = Client::connect(&gateway.admin());

    let response = client
        .send("GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        .response();

    assert_eq!(response.status(), 400);
    client.assert_closed();
    let mut client = Client::connect(&gateway.admin());
    for _ in 0..3 {
        assert_eq!(client.get("/healthz").response().status(), 200);
    }
    let head = client.send("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n").response_to("HEAD");
    assert_eq!(head.status(), 200);
    client.assert_silent();
}

#[test]
fn metrics_are_well_formed_and_all_ours() {
    let origin = Origin::saying("x");
    let mut config = proxy_to(&origin);
    // All that a name may be made of, and it is all the label's.
    let name = "A-z_0.9:[/]";
    config["listeners"][0]["name"] = json!(name);
    let gateway = Gateway::start(config);
    gateway.get("/");

    let response = gateway.ask_admin("/metrics");

    let content_type = response.field("content-type").expect("a content type");
    assert!(content_type.starts_with("text/plain") && content_type.contains("version=0.0.4"), "{content_type}");
    let metrics = gateway.metrics();
    for (family, kind) in &metrics.types {
        assert!(family.starts_with("postern_"), "{family}");
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
    }
    assert!(metrics.types.values().any(|kind| kind == "histogram"));
    assert_eq!(metrics.sum("postern_requests_total", &[("listener", name)]), 1.0);
}

#[test]
fn counters_count_what_happens() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            let status = request.target()[1..].to_owned();
            peer.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\nhello"));
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    let public = [("listener", "public")];
    assert_eq!(gateway.metrics().sum("postern_requests_total", &public), 0.0);

    for status in ["200", "201", "301", "404", "500", "503", "200"] {
        client.get(&format!("/{status}")).response();
    }
    client.post("/200", b"content").response();

    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("postern_requests_total", &public), 8.0);
    assert_eq!(metrics.sum("postern_connections_total", &public), 1.0);
    assert_eq!(metrics.sum("postern_connections_open", &public), 1.0);
    for (class, count) in [("2xx", 4.0), ("3xx", 1.0), ("4xx", 1.0), ("5xx", 2.0)] {
        assert_eq!(
            metrics.sum("postern_responses_total", &[("listener", "public"), ("class", class)]),
            count,
            "{class}"
        );
        assert_eq!(
            metrics.sum("postern_upstream_responses_total", &[("upstream", "origin"), ("class", class)]),
            count,
            "{class}"
        );
    }
    let upstream = [("upstream", "origin")];
    assert_eq!(metrics.sum("postern_upstream_requests_total", &upstream), 8.0);
    assert_eq!(metrics.sum("postern_upstream_connects_total", &upstream), 1.0);
    assert_eq!(metrics.sum("postern_upstream_request_duration_seconds_count", &upstream), 8.0);
    assert!(metrics.sum("postern_received_bytes_total", &public) > 8.0 * 40.0);
    assert!(metrics.sum("postern_sent_bytes_total", &public) > 8.0 * 40.0);

    drop(client);
    eventually("the closed connection is counted down", || {
        gateway.metrics().sum("postern_connections_open", &public) == 0.0
    });
    assert_eq!(gateway.metrics().sum("postern_requests_open", &public), 0.0);
}

#[test]
fn problems_are_counted_by_kind() {
    let origin = Origin::saying("x");
    let gateway = Gateway::start(routes(&origin, json!([{ "match": { "path": "/here" }, "upstream": "origin" }])));
    let of_kind = |gateway: &Gateway, kind| gateway.metrics().sum("postern_problems_total", &[("kind", kind)]);
    let before = gateway.metrics().sum("postern_problems_total", &[]);
    assert_eq!(of_kind(&gateway, "route-not-found"), 0.0);

    for _ in 0..3 {
        assert_eq!(gateway.get("/nowhere").status(), 404);
    }

    assert_eq!(gateway.metrics().sum("postern_problems_total", &[]), before + 3.0);
    assert_eq!(of_kind(&gateway, "route-not-found"), 3.0);
}

#[test]
fn counts_of_all_shards_are_summed() {
    let origin = Origin::saying("x");
    let mut config = proxy_to(&origin);
    config["shards"] = json!(2);
    let gateway = Gateway::start(config);

    for _ in 0..40 {
        assert_eq!(gateway.get("/").status(), 200);
    }

    let public = [("listener", "public")];
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("postern_requests_total", &public), 40.0);
    assert_eq!(metrics.sum("postern_connections_total", &public), 40.0);
    assert_eq!(metrics.sum("postern_shards", &[]), 2.0);
}

#[test]
fn clients_cannot_make_new_series() {
    let origin = Origin::saying("x");
    let gateway = Gateway::before(&origin);
    let series = |gateway: &Gateway| {
        let samples = gateway.metrics().samples.into_iter();
        samples.map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect::<BTreeSet<_>>()
    };
    let before = series(&gateway);
    let mut client = gateway.client();

    for number in 0..100 {
        let ask = format!("M{number} /path{number} HTTP/1.1\r\nHost: host{number}\r\nX-{number}: 1\r\n\r\n");
        assert_eq!(client.send(ask).response().status(), 200);
    }

    assert_eq!(series(&gateway), before);
}

// === The access log ===

fn with_access_log(origin: &Origin, access_log: Value) -> Value {
    let mut config = proxy_to(origin);
    config["access_log"] = access_log;
    config
}

fn entry(lines: &[String], path: &str) -> Value {
    let entries =
        lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    let mut of_path: Vec<Value> = entries.filter(|entry| entry["path"] == path).collect();
    assert_eq!(of_path.len(), 1, "{path} in {lines:#?}");
    of_path.remove(0)
}

#[test]
fn each_request_is_one_line_of_json_that_says_what_became_of_it() {
    let origin = Origin::echo();
    let mut config = with_access_log(&origin, json!({ "format": "json", "path": "stdout" }));
    config["upstreams"]["nobody"] = json!({ "endpoints": [format!("http://127.0.0.1:{}", free_port())] });
    config["routes"] = json!([{ "match": { "path": "/refused" }, "upstream": "nobody" }, { "match": { "path": "/echo" }, "upstream": "origin" }]);
    let gateway = Gateway::start(config);
    let mut client = gateway.client();

    let response = client.post("/echo?q=\"\\", &[b'x'; 5000]).response();
    let refused = client.get("/refused").response();
    client.get("/nowhere").response();

    let lines = gateway.wait_for_lines("\"public\"", 3);
    let echoed = entry(&lines, "/echo?q=\"\\");
    assert_eq!(echoed["status"], 200);
    assert_eq!(echoed["method"], "POST");
    assert_eq!(echoed["host"], "example.com");
    assert_eq!(echoed["client"], "127.0.0.1");
    assert_eq!(echoed["upstream"], "origin");
    assert_eq!(echoed["endpoint"], origin.address());
    assert_eq!(echoed["request_id"].as_str(), response.field("x-request-id"));
    for bytes in ["bytes_received", "bytes_sent"] {
        let count = echoed[bytes].as_u64().unwrap_or_else(|| panic!("{bytes} in {echoed}"));
        assert!((5000..6000).contains(&count), "{bytes} in {echoed}");
    }
    assert!(echoed["duration_us"].is_u64(), "{echoed}");
    assert_eq!((&echoed["flags"], &echoed["problem"]), (&json!("-"), &Value::Null));
    let time = echoed["time"].as_str().expect("a time");
    assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{time}");

    let failed = entry(&lines, "/refused");
    assert_eq!(failed["status"], 502);
    assert_eq!(failed["request_id"].as_str(), refused.field("x-request-id"));
    assert_eq!((&failed["flags"], &failed["problem"]), (&json!("UF"), &json!("connect-failed")), "{failed}");
    let nowhere = entry(&lines, "/nowhere");
    assert_eq!(nowhere["status"], 404);
    assert!(nowhere["upstream"].is_null(), "{nowhere}");
    assert_eq!((&nowhere["flags"], &nowhere["problem"]), (&json!("NR"), &json!("route-not-found")), "{nowhere}");
}

#[test]
fn a_response_that_broke_off_is_told_from_one_that_did_not() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
            peer.pause(50);
        }
    });
    let gateway = Gateway::start(with_access_log(&origin, json!({ "format": "json" })));

    gateway.client().get("/half").broken_off_response("GET");

    let entry = entry(&gateway.wait_for_lines("/half", 1), "/half");
    assert_eq!(entry["status"], 200, "{entry}");
    assert_eq!(entry["flags"], "UC", "{entry}");
    assert_eq!(entry["problem"], "upstream-reset", "{entry}");
}

#[test]
fn a_file_gets_one_text_line_for_each_request_which_nobody_can_forge() {
    let origin = Origin::saying("x");
    let mut gateway = Gateway::start(with_access_log(&origin, json!({ "format": "text", "path": "access.log" })));
    let mut client = gateway.client();

    for number in 0..20 {
        client.get(&format!("/number/{number}")).response();
    }
    client.send("GET /forged HTTP/1.1\r\nHost: a\r\nUser-Agent: x 200 y\r\n\r\n").response();
    drop(client);
    assert!(gateway.terminate().success());

    let log = fs::read_to_string(gateway.directory().join("access.log")).expect("the log is beside the configuration");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("/number/") || line.contains("/forged")).collect();
    assert_eq!(lines.len(), 21, "{log}");
    for (line, number) in lines.iter().zip(0..20) {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(words.contains(&"GET") && words.contains(&"200"), "{line}");
        assert!(words.contains(&format!("/number/{number}").as_str()), "{line}");
        assert!(words.contains(&"127.0.0.1") && words.contains(&"example.com"), "{line}");
        assert_eq!(words.len(), lines[0].split(' ').count(), "{line}");
    }
}

#[test]
fn no_line_is_lost_when_the_process_drains() {
    let origin = Origin::saying("x");
    let mut config = with_access_log(&origin, json!({ "format": "json", "path": "access.log" }));
    config["shards"] = json!(2);
    let mut gateway = Gateway::start(config);
    for number in 0..50 {
        gateway.get(&format!("/number/{number}/"));
    }

    assert!(gateway.terminate().success());

    let log = fs::read_to_string(gateway.directory().join("access.log")).expect("the log is beside the configuration");
    for number in 0..50 {
        assert_eq!(log.matches(&format!("/number/{number}/")).count(), 1, "{number}");
    }
}

#[test]
fn without_an_access_log_standard_output_stays_empty() {
    let origin = Origin::saying("x");
    let gateway = Gateway::before(&origin);

    gateway.get("/");

    assert_eq!(gateway.stdout(), "");
}
