//! Peers that were not written for these tests: curl before the gateway and nginx behind it.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::harness::config::proxy;
use crate::harness::peers::{Server, are_installed};
use crate::harness::{Gateway, latin1};

/// nginx behind Postern, unless this machine lacks what it takes.
fn scene() -> Option<(Server, Gateway)> {
    if !are_installed(&["nginx", "curl"]) {
        return None;
    }
    let nginx = Server::nginx(|address, directory| {
        let files = directory.join("files");
        fs::create_dir(&files).expect("a new directory");
        format!(
            "listen {address}; root {}; client_max_body_size 50m;
             location / {{ dav_methods PUT; }}
             location /request/ {{ return 200 \"$request_method $request_uri $http_host $http_x_forwarded_for\\n\"; }}",
            files.display()
        )
    });
    let gateway = Gateway::start(proxy(&[&format!("http://{}", nginx.address)]));
    Some((nginx, gateway))
}

/// What nginx has stored.
fn stored(nginx: &Server, name: &str) -> Vec<u8> {
    fs::read(nginx.directory.join("files").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn curl(arguments: &[&str]) -> Output {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "20"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("curl is installed");
    assert!(output.status.success(), "curl {arguments:?}: {}", latin1(&output.stderr));
    output
}

/// Bytes that are not the same twice in a row.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + (index >> 8) * 17 + (index >> 16)) as u8).collect()
}

#[test]
fn curl_asks_several_times_on_one_connection() {
    let Some((_nginx, gateway)) = scene() else { return };
    let url = |path: &str| format!("http://{}/request/{path}", gateway.address());

    let output = curl(&["-w", "%{num_connects} %{http_version}\n", &url("a"), &url("b?x=1"), &url("c")]);

    let text = latin1(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    let address = gateway.address();
    let expected = [("a", "1 1.1"), ("b?x=1", "0 1.1"), ("c", "0 1.1")];
    for (pair, (path, connects)) in lines.chunks(2).zip(expected) {
        assert_eq!(pair, [format!("GET /request/{path} {address} 127.0.0.1"), connects.to_owned()]);
    }
    assert_eq!(lines.len(), 6);
}

#[test]
fn curl_uploads_with_a_length_in_chunks_and_after_asking() {
    let Some((nginx, gateway)) = scene() else { return };
    let content = bytes(3_000_000);
    let source = nginx.directory.join("source");
    fs::write(&source, &content).expect("a new file");
    let source = source.display().to_string();
    for (name, fields) in [
        ("length", &["-H", "Expect:"][..]),
        ("asking", &["-H", "Expect: 100-continue"]),
        ("chunked", &["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]),
        ("chunked-asking", &["-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"]),
    ] {
        let url = format!("http://{}/{name}", gateway.address());
        let output = curl(&[fields, &["-T", &source, "-w", "%{http_code}", &url]].concat());
        assert!(latin1(&output.stdout).ends_with("201"), "{name}: {output:?}");
        assert!(stored(&nginx, name) == content, "{name} was not stored as it was sent");
    }
}

#[test]
fn curl_downloads_what_nginx_has() {
    let Some((nginx, gateway)) = scene() else { return };
    let content = bytes(5_000_000);
    fs::write(nginx.directory.join("files/large"), &content).expect("a new file");
    fs::write(nginx.directory.join("files/empty"), "").expect("a new file");
    let url = |name: &str| format!("http://{}/{name}", gateway.address());

    assert!(curl(&[&url("large")]).stdout == content);
    assert!(curl(&["--http1.0", &url("large")]).stdout == content);
    assert!(curl(&["--range", "1000-1999", &url("large")]).stdout == content[1000..2000]);
    assert!(curl(&[&url("empty")]).stdout.is_empty());
    let head = latin1(&curl(&["--head", &url("large")]).stdout);
    assert!(head.to_ascii_lowercase().contains("content-length: 5000000\r\n"), "{head}");
    let slow = curl(&["--limit-rate", "20m", &url("large")]);
    assert!(slow.stdout == content);
}

#[test]
fn curl_in_http_1_0_is_answered_and_closed() {
    let Some((_nginx, gateway)) = scene() else { return };
    let url = format!("http://{}/request/old", gateway.address());

    let output = curl(&["--http1.0", "-w", "%{num_connects}\n", &url, &url]);

    let text = latin1(&output.stdout);
    assert_eq!(text.matches("GET /request/old").count(), 2, "{text}");
}

#[test]
fn what_nginx_refuses_is_refused_to_curl() {
    let Some((nginx, gateway)) = scene() else { return };
    let source = nginx.directory.join("source");
    fs::write(&source, bytes(60_000_000)).expect("a new file");
    let url = format!("http://{}/too-large", gateway.address());

    // Without --fail, since the refusal is what is wanted.
    let output = Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "-T"])
        .arg(&source)
        .arg(&url)
        .output()
        .expect("curl is installed");

    assert_eq!(latin1(&output.stdout), "413");
    assert!(!nginx.directory.join("files/too-large").exists());
}
