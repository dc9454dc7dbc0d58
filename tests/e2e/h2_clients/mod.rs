//! HTTP/2 clients that were not written for these tests, in plain text and in TLS: curl, and nghttp and h2load of nghttp2.

mod grpc;

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::harness::config::proxy_to;
use crate::harness::peers::are_installed;
use crate::harness::{Gateway, Origin, TempDir, latin1, ok};

/// What the certificate is for.
const NAME: &str = "example.com";

/// A gateway that listens in plain text and in TLS, before a backend that sends back what it gets.
struct Scene {
    origin: Origin,
    gateway: Gateway,
    directory: TempDir,
}

fn file(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Bytes that are not the same twice in a row.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + (index >> 8) * 17 + (index >> 16)) as u8).collect()
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it is installed")
}

impl Scene {
    /// Unless a program is missing.
    fn new(programs: &[&str]) -> Option<Self> {
        if !are_installed(programs) {
            return None;
        }
        let origin = Origin::scripted(|peer| {
            while let Some(request) = peer.request() {
                match request.target().strip_prefix("/bytes/").and_then(|count| count.parse().ok()) {
                    Some(count) => peer.send(ok(bytes(count))),
                    None if request.body.is_empty() => peer.send(ok(request.target())),
                    None if request.trailers.is_empty() => peer.send(ok(request.body)),
                    None => {
                        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n";
                        let length = format!("{:x}\r\n", request.body.len());
                        let end = format!("\r\n0\r\nX-Sum: {}\r\n\r\n", request.trailer("x-sum").concat());
                        peer.send([head.as_bytes(), length.as_bytes(), &request.body, end.as_bytes()].concat());
                    }
                }
            }
        });
        let certificate = json!({ "chain": file("config/tls/site.pem"), "key": file("config/tls/site.key") });
        let mut config = proxy_to(&origin);
        config["listeners"] = json!([
            { "name": "http", "http2": true },
            { "name": "https", "tls": { "certificates": [certificate] } },
        ]);
        Some(Self { origin, gateway: Gateway::start(config), directory: TempDir::new() })
    }

    /// The listener's port is all that differs.
    fn url(&self, scheme: &str, path: &str) -> String {
        let address = self.gateway.address_of(scheme);
        format!("{scheme}://{NAME}:{}{path}", address.rsplit(':').next().expect("a port"))
    }

    fn curl(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "30", "--cacert"]);
        command.args([&file("config/tls/ca.pem"), "--connect-to", &format!("{NAME}::127.0.0.1:")]).args(arguments);
        let output = run(&mut command);
        assert!(output.status.success(), "curl {arguments:?}: {}", latin1(&output.stderr));
        output.stdout
    }

    /// What nghttp or h2load say. They look up no names.
    fn nghttp2(&self, program: &str, scheme: &str, arguments: &[&str], paths: &[&str]) -> String {
        let urls = paths.iter().map(|path| self.url(scheme, path).replace(NAME, "127.0.0.1"));
        let mut command = Command::new(program);
        command.args(["-H", &format!(":authority: {NAME}")]).args(arguments).args(urls);
        let output = run(&mut command);
        latin1(&[output.stdout, output.stderr].concat())
    }

    fn write(&self, content: &[u8]) -> String {
        let path = self.directory.join("content");
        fs::write(&path, content).expect("room");
        path.display().to_string()
    }
}

#[test]
fn curl_downloads_and_uploads_in_every_protocol() {
    let Some(scene) = Scene::new(&["curl"]) else { return };
    let content = bytes(3_000_000);
    let upload = scene.write(&content);
    for (scheme, option, version) in [
        ("http", "--http1.0", "1.1"),
        ("http", "--http1.1", "1.1"),
        // It asks for an upgrade, which RFC 9113 has done away with.
        ("http", "--http2", "1.1"),
        ("http", "--http2-prior-knowledge", "2"),
        ("https", "--http1.1", "1.1"),
        ("https", "--http2", "2"),
        ("https", "--http2-prior-knowledge", "2"),
    ] {
        let url = scene.url(scheme, "/bytes/3000000");
        assert!(scene.curl(&[option, &url]) == content, "{scheme} {option}");
        assert!(scene.curl(&[option, "--limit-rate", "20m", &url]) == content, "{scheme} {option}, slowly");
        let url = scene.url(scheme, "/echo");
        let data = format!("@{upload}");
        for arguments in [&["--data-binary", &data][..], &["-T", &upload], &["-T", &upload, "-H", "Expect:"]] {
            assert!(scene.curl(&[&[option][..], arguments, &[&url]].concat()) == content, "{scheme} {option}");
        }
        let head = latin1(&scene.curl(&[option, "--head", "-w", "%{http_version}", &url]));
        assert!(head.ends_with(version) && head.to_lowercase().contains("content-length: 5\r\n"), "{option}: {head}");
    }
}

#[test]
fn curl_asks_for_much_at_once() {
    let Some(scene) = Scene::new(&["curl"]) else { return };
    let content = bytes(200_000);
    let upload = scene.write(&content);
    // Not with --http2-prior-knowledge: curl 7.88 loses its way then, before nginx as well.
    for (scheme, option) in [("https", "--http2"), ("https", "--http1.1"), ("http", "--http1.1")] {
        let output = |count: usize| scene.directory.join(&format!("{count}")).display().to_string();
        let mut arguments =
            vec![option.to_owned(), "--parallel".to_owned(), "--parallel-max".to_owned(), "50".to_owned()];
        for count in 0..120 {
            let path = if count % 2 == 0 { "/bytes/200000".to_owned() } else { format!("/{count}") };
            arguments.extend(["-o".to_owned(), output(count), scene.url(scheme, &path)]);
        }
        scene.curl(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        for count in 0..120 {
            let got = fs::read(output(count)).expect("it was written");
            let is_right = if count % 2 == 0 { got == content } else { got == format!("/{count}").as_bytes() };
            assert!(is_right, "{scheme} {option}: {} bytes as number {count}", got.len());
        }
        let url = scene.url(scheme, "/echo-[1-40]");
        let out = scene.directory.join("upload-#1").display().to_string();
        scene.curl(&[option, "--parallel", "--data-binary", &format!("@{upload}"), "-o", &out, &url]);
        for count in 1..=40 {
            assert!(fs::read(scene.directory.join(&format!("upload-{count}"))).expect("it was written") == content);
        }
    }
}

#[test]
fn nghttp_opens_many_streams_and_sends_trailers() {
    let Some(scene) = Scene::new(&["nghttp"]) else { return };
    let upload = scene.write(b"some content");
    for scheme in ["http", "https"] {
        let paths: Vec<String> = (0..90).map(|count| format!("/stream-{count}-")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let said = scene.nghttp2("nghttp", scheme, &[], &paths);
        for path in &paths {
            assert_eq!(said.matches(path).count(), 1, "{scheme} {path}: {said}");
        }
        let said = scene.nghttp2("nghttp", scheme, &["-ns", "-w", "16", "-W", "16"], &["/bytes/3000000"]);
        assert!(said.contains(" 200 "), "{said}");

        let arguments = ["-v", "-d", &upload, "--no-content-length", "--trailer", "x-sum: 12"];
        let said = scene.nghttp2("nghttp", scheme, &arguments, &["/echo"]);
        assert!(said.contains("some content") && said.contains("x-sum: 12"), "{said}");
        let request = scene.origin.requests().pop().expect("it came");
        assert_eq!((request.text().as_str(), request.trailer("x-sum")), ("some content", vec!["12"]));
    }
}

#[test]
fn h2load_loses_nothing() {
    let Some(scene) = Scene::new(&["h2load"]) else { return };
    let upload = scene.write(&bytes(30_000));
    for scheme in ["http", "https"] {
        for (requests, path, more) in
            [("2000", "/small", &[][..]), ("400", "/bytes/100000", &[]), ("400", "/echo", &["-d", &upload])]
        {
            let arguments = [&["-n", requests, "-c", "8", "-m", "32"], more].concat();
            let said = scene.nghttp2("h2load", scheme, &arguments, &[path]);
            assert!(
                said.contains(&format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout")),
                "{scheme} {path}: {said}"
            );
            assert!(
                said.contains(&format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx")),
                "{scheme} {path}: {said}"
            );
            assert!(!said.contains("Application protocol: http/1.1"), "{said}");
        }
    }
    for listener in ["http", "https"] {
        let metrics = scene.gateway.metrics();
        assert_eq!(metrics.sum("postern_requests_total", &[("listener", listener)]), 2800.0);
        assert_eq!(metrics.sum("postern_requests_open", &[("listener", listener)]), 0.0);
        assert_eq!(metrics.sum("postern_responses_incomplete_total", &[("listener", listener)]), 0.0);
    }
}
