//! HTTP/2 in front of backends that speak HTTP/1.1, spoken by clients that were not written for these tests: curl and nghttp2's.

use std::fs;
use std::process::{Command, Output};

use serde_json::json;

use crate::harness::config::{proxy_to, routes};
use crate::harness::{Authority, Gateway, Origin, TempDir, eventually, latin1, ok};
use crate::tls::{encrypted, run};

/// A gateway that speaks HTTP/2 with clients that know it beforehand.
fn before(origin: &Origin) -> Gateway {
    let mut config = proxy_to(origin);
    config["listeners"][0]["http2"] = json!(true);
    Gateway::start(config)
}

fn curl(gateway: &Gateway, path: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--noproxy", "*", "--max-time", "20", "--http2-prior-knowledge"]);
    run(command.args(arguments).arg(format!("http://{}{path}", gateway.address())))
}

/// What nghttp, or h2load, says about its frames; `None` where it is not installed.
fn nghttp2(program: &str, arguments: &[&str], url: &str) -> Option<String> {
    let output = Command::new(program).args(arguments).arg(url).output();
    let Ok(output) = output else {
        eprintln!("skipped: {program} is not installed");
        return None;
    };
    Some(latin1(&output.stdout))
}

/// Bytes that are not the same twice in a row.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + (index >> 8) * 17 + (index >> 16)) as u8).collect()
}

#[test]
fn a_request_goes_on_in_http_1_1_and_its_response_comes_back() {
    let origin = Origin::answering(
        "HTTP/1.1 203 Fine\r\nX-Mixed: Case\r\nConnection: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello",
    );
    let gateway = before(&origin);

    let answer = latin1(&curl(&gateway, "/path?query", &["-H", "X-Own: value"]).stdout);

    assert!(answer.starts_with("HTTP/2 203 \r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(answer.contains("\r\nx-mixed: Case\r\n") && answer.contains("\r\nvia: 1.1 postern\r\n"), "{answer}");
    assert!(!answer.contains("connection:") && !answer.contains("\r\nx: "), "{answer}");
    let request = origin.only_request();
    assert_eq!(request.first_line, "GET /path?query HTTP/1.1");
    assert_eq!(request.field("host"), Some(gateway.address().as_str()));
    assert_eq!(request.field("x-own"), Some("value"));
    assert_eq!(request.field("via"), Some("2.0 postern"));
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert!(!request.has("transfer-encoding") && !request.has("content-length"));
}

#[test]
fn the_same_listener_speaks_http_1_1_and_another_does_not_speak_http_2() {
    let origin = Origin::saying("hello");
    assert_eq!(before(&origin).get("/").text(), "hello");

    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.response().status(), 505);
}

#[test]
fn several_requests_at_once_share_a_connection() {
    let origin = Origin::naming_targets();
    let gateway = before(&origin);
    let url = format!("http://{}/", gateway.address());
    let Some(said) = nghttp2("h2load", &["-n", "2000", "-c", "2", "-m", "50"], &url) else { return };

    assert!(said.contains("2000 succeeded, 0 failed, 0 errored"), "{said}");
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("postern_connections_total", &[("listener", "public")]), 2.0);
    assert_eq!(metrics.sum("postern_requests_total", &[("listener", "public")]), 2000.0);
    assert_eq!(metrics.sum("postern_responses_total", &[("class", "2xx"), ("listener", "public")]), 2000.0);
    assert_eq!(metrics.sum("postern_requests_open", &[("listener", "public")]), 0.0);
}

#[test]
fn content_of_megabytes_crosses_both_ways_with_and_without_a_length() {
    let origin = Origin::echo();
    let gateway = before(&origin);
    let directory = TempDir::new();
    let content = bytes(3_000_000);
    let file = directory.join("content");
    fs::write(&file, &content).expect("room");
    let file = file.display().to_string();

    let with_length = curl(&gateway, "/", &["-T", &file]).stdout;
    assert!(with_length.ends_with(&content), "{} bytes", with_length.len());
    assert_eq!(origin.only_request().field("content-length"), Some("3000000"));

    let mut command = Command::new("sh");
    let url = format!("http://{}/", gateway.address());
    command.args(["-c", &format!("cat {file} | curl -sS --noproxy '*' --http2-prior-knowledge -T - {url}")]);
    assert!(run(&mut command).stdout == content);
    assert_eq!(origin.requests()[1].field("transfer-encoding"), Some("chunked"));
}

#[test]
fn trailers_cross_both_ways() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n");
        }
    });
    let gateway = before(&origin);
    let directory = TempDir::new();
    let file = directory.write("content", "some content").display().to_string();
    let url = format!("http://{}/", gateway.address());
    let Some(said) = nghttp2("nghttp", &["-v", "-d", &file, "--no-content-length", "--trailer", "x-own: 7"], &url)
    else {
        return;
    };

    assert!(said.contains("x-sum: 42") && said.contains("hello"), "{said}");
    let request = origin.only_request();
    assert_eq!(request.text(), "some content");
    assert_eq!(request.trailer("x-own"), ["7"]);
}

#[test]
fn interim_responses_are_passed_on() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            peer.send(ok("hello"));
        }
    });
    let gateway = before(&origin);
    let url = format!("http://{}/", gateway.address());
    let Some(said) = nghttp2("nghttp", &["-v"], &url) else { return };

    let (early, last) = (said.find(":status: 103"), said.find(":status: 200"));
    assert!(early.is_some() && early < last && said.contains("link: </a>"), "{said}");
}

#[test]
fn a_client_that_waits_for_a_word_before_its_content_is_told_to_go_on() {
    let origin = Origin::scripted(|peer| {
        peer.head();
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
        let content = peer.read(12);
        peer.send(ok(content));
    });
    let gateway = before(&origin);
    let directory = TempDir::new();
    let file = directory.write("content", "some content").display().to_string();
    let url = format!("http://{}/", gateway.address());
    let Some(said) = nghttp2("nghttp", &["-v", "-d", &file, "--expect-continue"], &url) else { return };

    let (word, content) = (said.find(":status: 100"), said.find("send DATA frame"));
    assert!(word.is_some() && word < content && said.contains("some content"), "{said}");
}

#[test]
fn content_that_is_not_as_long_as_was_said_costs_its_stream_and_no_kept_connection() {
    let origin = Origin::echo();
    let gateway = before(&origin);
    let directory = TempDir::new();
    let file = directory.write("content", "12345").display().to_string();
    let url = format!("http://{}/", gateway.address());
    for said_length in ["4", "6", "100"] {
        let field = format!("content-length: {said_length}");
        let arguments = ["-v", "-d", &file, "--no-content-length", "-H", ":method: POST", "-H", &field];
        let Some(said) = nghttp2("nghttp", &arguments, &url) else { return };
        assert!(said.contains("recv RST_STREAM frame") && said.contains("error_code=PROTOCOL_ERROR"), "{said}");
        assert!(!said.contains(":status: 200"), "{said}");
    }
    // What comes next is on a connection of its own, and is what its client sent.
    let answer = latin1(&curl(&gateway, "/", &["-d", "mine"]).stdout);
    assert!(answer.ends_with("\r\n\r\nmine"), "{answer}");
    eventually("no connection is kept that has part of a request", || origin.open_connections() <= 1);
}

#[test]
fn what_we_answer_ourselves_is_the_same_as_in_http_1_1() {
    let origin = Origin::saying("hello");
    let mut config = routes(
        &origin,
        json!([
            { "match": { "path": "/text" }, "respond": { "body": "a text\n" } },
            { "match": { "path": "/only-get", "methods": ["GET"] }, "upstream": "origin" },
            { "match": { "path": "/small" }, "upstream": "origin", "max_body": 3 },
        ]),
    );
    config["listeners"][0]["http2"] = json!(true);
    let gateway = Gateway::start(config);
    for (path, arguments, status, end) in [
        ("/text", &[][..], "200", "\r\n\r\na text\n"),
        ("/text", &["-I"], "200", "content-length: 7\r\n\r\n"),
        ("/nowhere", &[], "404", "}\n"),
        ("/only-get", &["-d", "x"], "405", "}\n"),
        ("/small", &["-d", "longer"], "413", "}\n"),
        ("/small", &["-d", "x", "-H", "expect: 42"], "417", "}\n"),
        ("/%00", &[], "400", "}\n"),
    ] {
        let answer = latin1(&curl(&gateway, path, arguments).stdout);
        assert!(answer.starts_with(&format!("HTTP/2 {status} \r\n")) && answer.ends_with(end), "{path}: {answer}");
        assert!(answer.contains("x-request-id: "), "{answer}");
        assert_eq!(answer.contains("content-type: application/problem+json"), status != "200", "{answer}");
    }
    assert!(origin.received().is_empty());
}

#[test]
fn content_without_a_length_is_counted() {
    let origin = Origin::echo();
    let mut config = routes(&origin, json!([{ "upstream": "origin", "max_body": 100_000 }]));
    config["listeners"][0]["http2"] = json!(true);
    let gateway = Gateway::start(config);
    let directory = TempDir::new();
    let file = directory.write("content", &"x".repeat(1_000_000)).display().to_string();
    let url = format!("http://{}/", gateway.address());
    let arguments = ["-v", "-d", &file, "--no-content-length", "-H", ":method: PUT"];
    let Some(said) = nghttp2("nghttp", &arguments, &url) else { return };

    assert!(said.contains(":status: 413") && said.contains("content-too-large"), "{said}");
    // What the client need not send any more (RFC 9113 section 8.1).
    assert!(said.contains("recv RST_STREAM frame") && said.contains("error_code=NO_ERROR"), "{said}");
    assert!(origin.requests().is_empty());
}

#[test]
fn a_backend_that_breaks_off_resets_the_stream_only() {
    let origin = Origin::scripted(|peer| {
        let request = peer.request().expect("a request");
        if request.target() == "/broken" {
            return peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        }
        peer.send(ok("whole"));
    });
    let gateway = before(&origin);
    let (broken, whole) = (format!("http://{}/broken", gateway.address()), format!("http://{}/", gateway.address()));
    let Some(said) = nghttp2("nghttp", &["-v", &broken], &whole) else { return };

    assert!(said.contains("recv RST_STREAM frame") && said.contains("error_code=INTERNAL_ERROR"), "{said}");
    assert!(said.contains("whole"), "{said}");
    assert_eq!(gateway.metrics().sum("postern_responses_incomplete_total", &[("by", "upstream")]), 1.0);
}

#[test]
fn a_client_that_leaves_takes_its_requests_with_it() {
    let origin = Origin::scripted(|peer| {
        peer.request();
        peer.wait_for_close();
    });
    let gateway = before(&origin);
    let answer = curl(&gateway, "/", &["--max-time", "0.5"]);
    assert!(!answer.status.success());
    eventually("the backend's work is cancelled", || origin.open_connections() == 0);
    let open = || gateway.metrics().sum("postern_requests_open", &[("listener", "public")]);
    eventually("no request is open", || open() == 0.0);
}

#[test]
fn a_draining_gateway_says_so_and_ends_what_is_under_way() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/slow" {
                std::thread::sleep(std::time::Duration::from_millis(500));
            }
            peer.send(ok("whole"));
        }
    });
    let mut gateway = before(&origin);
    let url = format!("http://{}/slow", gateway.address());
    let client = std::thread::spawn(move || nghttp2("nghttp", &["-v"], &url));
    origin.wait_for_requests(1);
    gateway.ask_to_terminate();
    let Some(said) = client.join().expect("no panic") else { return };
    assert!(said.contains("recv GOAWAY frame") && said.contains("error_code=NO_ERROR"), "{said}");
    assert!(said.contains("whole"), "{said}");
    assert!(gateway.wait().success());
}

#[test]
fn a_connection_takes_as_many_requests_as_it_may_and_idles_as_long() {
    let origin = Origin::saying("hello");
    let mut config = proxy_to(&origin);
    config["listeners"][0]["http2"] = json!(true);
    config["listeners"][0]["limits"] = json!({ "max_requests_per_connection": 2 });
    config["listeners"][0]["timeouts"] = json!({ "idle": "200ms", "header": "500ms" });
    let gateway = Gateway::start(config);
    let url = format!("http://{}/", gateway.address());
    let other = format!("{url}other");
    for (arguments, requests) in [(&["-v"][..], 1), (&["-v", &other], 2)] {
        let Some(said) = nghttp2("nghttp", arguments, &url) else { return };
        let told = said.contains("recv GOAWAY frame");
        assert_eq!((said.matches("hello").count(), told), (requests, requests == 2), "{said}");
    }

    let mut client = gateway.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send(b"\0\0\0\x04\0\0\0\0\0");
    let said = client.read_to_end();
    assert!(said.windows(5).any(|bytes| bytes == b"\0\0\x08\x07\0"), "no GOAWAY: {said:?}");
}

#[test]
fn http_2_is_agreed_on_in_the_handshake() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    for (offered, http2, spoken) in [("--http2", true, "2"), ("--http1.1", true, "1.1"), ("--http2", false, "1.1")] {
        let mut config = proxy_to(&origin);
        config["listeners"][0]["tls"] = json!({ "certificates": [authority.sign(&["a.example"])] });
        if !http2 {
            config["listeners"][0]["http2"] = json!(false);
        }
        let gateway = Gateway::start(config);
        let port = gateway.address().rsplit(':').next().expect("a port").to_owned();
        let mut command = Command::new("curl");
        command.args(["-sS", "--cacert", &authority.file("ca.pem"), "-w", "%{http_version}", offered, "--resolve"]);
        command.args([format!("a.example:{port}:127.0.0.1"), format!("https://a.example:{port}/")]);
        assert_eq!(latin1(&run(&mut command).stdout), format!("hello{spoken}"));
    }
    assert_eq!(origin.requests()[0].field("x-forwarded-proto"), Some("https"));
}

#[test]
fn a_host_that_the_certificate_is_not_for_is_misdirected() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let certificates =
        json!([authority.sign(&["a.example", "also.example", "*.wild.example"]), authority.sign(&["b.example"])]);
    let gateway = encrypted(&origin, json!({ "certificates": certificates }));
    let port = gateway.address().rsplit(':').next().expect("a port").to_owned();
    for (host, status) in [
        ("a.example", "200"),
        ("also.example", "200"),
        ("x.wild.example", "200"),
        ("b.example", "421"),
        ("stranger.example", "421"),
    ] {
        let mut command = Command::new("curl");
        command.args(["-sS", "--http2", "--cacert", &authority.file("ca.pem"), "-o", "/dev/null"]);
        command.args(["-w", "%{http_code}", "-H", &format!("Host: {host}")]);
        command.args(["--resolve", &format!("a.example:{port}:127.0.0.1"), &format!("https://a.example:{port}/")]);
        assert_eq!(latin1(&run(&mut command).stdout), status, "{host}");
    }
}

#[test]
fn which_hosts_are_misdirected_is_told_by_the_renewed_certificate() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let never = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    let certificate = authority.issue("site", &["a.example", "old.example"], never);
    let gateway = encrypted(&origin, json!({ "certificates": [certificate] }));
    let port = gateway.address().rsplit(':').next().expect("a port").to_owned();
    let status = |host: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--http2", "--cacert", &authority.file("ca.pem"), "-o", "/dev/null"]);
        command.args(["-w", "%{http_code}", "-H", &format!("Host: {host}")]);
        command.args(["--resolve", &format!("a.example:{port}:127.0.0.1"), &format!("https://a.example:{port}/")]);
        latin1(&run(&mut command).stdout)
    };
    assert_eq!([status("old.example"), status("new.example")], ["200", "421"]);

    authority.issue("site", &["a.example", "new.example"], never);
    gateway.signal("HUP");
    eventually("new connections go by the new names", || {
        [status("old.example"), status("new.example")] == ["421", "200"]
    });
}
