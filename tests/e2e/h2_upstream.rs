//! HTTP/2 behind: nghttp2's server, which was not written for these tests, and peers that say frame by frame what happens.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::harness::config::proxy;
use crate::harness::h2::frame::{self, END_HEADERS, END_STREAM, kind};
use crate::harness::{Authority, Gateway, Origin, Peer, TempDir, certificate_in, eventually, free_port, latin1};
use crate::tls::run;

/// nghttpd, which serves files and echoes uploads.
struct Nghttpd {
    child: Child,
    port: u16,
    directory: TempDir,
}

impl Nghttpd {
    /// Speaks plain text without a certificate. `None` where it is not installed.
    fn start(certificate: Option<&Value>) -> Option<Self> {
        let (directory, port) = (TempDir::new(), free_port());
        let mut command = Command::new("nghttpd");
        command.args(["--echo-upload", "--trailer", "x-sum: 42", "-a", "127.0.0.1", "-d"]).arg(directory.path());
        match certificate {
            None => command.args(["--no-tls", &port.to_string()]),
            Some(files) => {
                let file = |name: &str| files[name].as_str().expect("a path").to_owned();
                command.args([port.to_string(), file("key"), file("chain")])
            }
        };
        let Ok(child) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            eprintln!("skipped: nghttpd is not installed");
            return None;
        };
        let server = Self { child, port, directory };
        eventually("nghttpd serves", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(server)
    }
}

impl Drop for Nghttpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn before(endpoint: &str, upstream: Value) -> Gateway {
    let mut config = proxy(&[endpoint]);
    config["listeners"][0]["http2"] = json!(true);
    for (key, value) in upstream.as_object().expect("an object") {
        config["upstreams"]["origin"][key] = value.clone();
    }
    Gateway::start(config)
}

fn curl(gateway: &Gateway, path: &str, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("curl");
    command.args(["-sS", "--noproxy", "*", "--max-time", "20"]);
    run(command.args(arguments).arg(format!("http://{}{path}", gateway.address()))).stdout
}

const VERSIONS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

fn connects(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("postern_upstream_connects_total", &[])
}

#[test]
fn content_crosses_every_pairing_on_one_connection() {
    let Some(server) = Nghttpd::start(None) else { return };
    let content: Vec<u8> = (0..2_000_000u32).map(|at| (at * 31 + (at >> 8) * 17) as u8).collect();
    let file = server.directory.join("content");
    std::fs::write(&file, &content).expect("room");
    let file = file.display().to_string();
    let gateway = before(&format!("http://127.0.0.1:{}", server.port), json!({ "protocol": "h2" }));
    for version in VERSIONS {
        assert!(curl(&gateway, "/content", &[version]) == content, "{version}: not downloaded as it is");
        let echoed = curl(&gateway, "/echo", &[version, "-H", "Expect:", "--data-binary", &format!("@{file}")]);
        assert!(echoed == content, "{version}: not echoed as it was sent");
        let mut command = Command::new("sh");
        let url = format!("http://{}/echo", gateway.address());
        command.args(["-c", &format!("cat {file} | curl -sS --noproxy '*' {version} -T - {url}")]);
        assert!(run(&mut command).stdout == content, "{version}: without a length");
        let head = latin1(&curl(&gateway, "/content", &[version, "--head"]));
        assert!(head.to_ascii_lowercase().contains("content-length: 2000000\r\n"), "{head}");
        let missing = latin1(&curl(&gateway, "/nothing", &[version, "-i"])).to_ascii_lowercase();
        assert!(missing.contains(" 404") && missing.contains("via: 2.0 postern\r\n"), "{missing}");
    }
    assert_eq!(connects(&gateway), 1.0);
}

#[test]
fn trailers_of_the_upstream_reach_both_kinds_of_clients() {
    let Some(server) = Nghttpd::start(None) else { return };
    server.directory.write("content", "some content");
    let gateway = before(&format!("http://127.0.0.1:{}", server.port), json!({ "protocol": "h2" }));
    for version in VERSIONS {
        let said = latin1(&curl(&gateway, "/content", &[version, "-i", "--raw"])).to_ascii_lowercase();
        // A body with a length has no room for trailers in HTTP/1.1.
        let has_room = version == VERSIONS[1] || said.contains("transfer-encoding");
        assert!(said.contains("some content"), "{said}");
        assert_eq!(said.contains("x-sum: 42"), has_room && !said.contains("content-length"), "{said}");
    }
}

#[test]
fn what_an_https_endpoint_speaks_is_agreed_on() {
    let authority = Authority::new("trusted");
    let certificate = authority.sign(&["a.example"]);
    let Some(server) = Nghttpd::start(Some(&certificate)) else { return };
    server.directory.write("content", "some content");
    let endpoint = format!("https://127.0.0.1:{}", server.port);
    let tls = json!({ "ca": authority.file("ca.pem") });
    for (protocol, spoken) in [("auto", true), ("h2", true), ("h1", false)] {
        let gateway = before(&endpoint, json!({ "protocol": protocol, "tls": tls }));
        let answer = latin1(&curl(&gateway, "/content", &["-i"]));
        assert_eq!(answer.contains("some content"), spoken, "{protocol}: {answer}");
    }
}

/// Takes uploads on one connection after the other. It opens its windows together with the last word of its handshake, in one write, and never again: with
/// TLS 1.2, whose last word is the server's.
fn serve_uploads(listener: &TcpListener, config: &Arc<ServerConfig>) -> io::Result<()> {
    loop {
        let (mut socket, _) = listener.accept()?;
        let mut tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            while tls.wants_write() {
                tls.write_tls(&mut socket)?;
            }
            tls.read_tls(&mut socket)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
        tls.writer().write_all(&[frame::settings(&[(4, 1 << 24)]), frame::window_update(0, 1 << 24)].concat())?;
        let mut last_flight = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut last_flight)?;
        }
        socket.write_all(&last_flight)?;

        let mut stream = StreamOwned::new(tls, socket);
        stream.read_exact(&mut [0; frame::PREFACE.len()])?;
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).is_err() {
                break;
            }
            let [a, b, c, kind, flags, number @ ..] = head;
            io::copy(&mut (&mut stream).take(u32::from_be_bytes([0, a, b, c]).into()), &mut io::sink())?;
            if kind == kind::DATA && flags & END_STREAM != 0 {
                let ok = frame::frame(kind::HEADERS, END_HEADERS | END_STREAM, u32::from_be_bytes(number), [0x88]);
                stream.write_all(&ok)?;
            }
        }
    }
}

#[test]
fn what_an_https_endpoint_says_with_the_end_of_its_handshake_is_heard() {
    let authority = Authority::new("trusted");
    let files = authority.sign(&["a.example"]);
    let file = |name: &str| files[name].as_str().expect("a path").to_owned();
    let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
    let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
        .with_no_client_auth()
        .with_single_cert(vec![certificate_in(&file("chain"))], key)
        .expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (listener, config) = (TcpListener::bind("127.0.0.1:0").expect("a free port"), Arc::new(config));
    let endpoint = format!("https://{}", listener.local_addr().expect("bound"));
    // It ends with the test's process.
    std::thread::spawn(move || serve_uploads(&listener, &config));

    let tls = json!({ "ca": authority.file("ca.pem"), "server_name": "a.example" });
    let gateway = before(&endpoint, json!({ "protocol": "h2", "tls": tls }));
    let directory = TempDir::new();
    let upload = format!("@{}", directory.write("content", &"x".repeat(300_000)).display());
    let answer = latin1(&curl(&gateway, "/", &["-i", "-H", "Expect:", "--data-binary", &upload]));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn an_endpoint_that_speaks_only_http_1_1_is_spoken_to_so_unless_http_2_is_asked_for() {
    let origin = Origin::saying("hello");
    assert_eq!(before(&origin.endpoint, json!({})).get("/").text(), "hello");
    assert_eq!(before(&origin.endpoint, json!({ "protocol": "h2" })).get("/").status(), 502);
}

/// The frames of an upstream's connection.
struct Frames<'p>(&'p mut Peer);

impl<'p> Frames<'p> {
    fn accept(peer: &'p mut Peer) -> Self {
        assert_eq!(peer.read(24), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        peer.send(frame::settings(&[]));
        Self(peer)
    }

    /// The stream of the next request; `None` when the connection ends first.
    fn request(&mut self) -> Option<u32> {
        loop {
            let head = self.0.read(9);
            let [a, b, c, kind, _, stream @ ..] = <[u8; 9]>::try_from(head).ok()?;
            self.0.read(u32::from_be_bytes([0, a, b, c]) as usize);
            if kind == 1 {
                return Some(u32::from_be_bytes(stream));
            }
        }
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.0.send(frame::frame(kind, flags, stream, payload));
    }

    /// 200, and nothing else.
    fn answer(&mut self, stream: u32) {
        self.send(1, 5, stream, &[0x88]);
    }
}

#[test]
fn a_grpc_client_is_told_of_problems_in_its_way_and_its_patience_is_the_deadline() {
    let origin = Origin::scripted(|peer| {
        let mut frames = Frames::accept(peer);
        while frames.request().is_some() {}
    });
    let mut config = proxy(&[&origin.endpoint]);
    config["listeners"][0]["http2"] = json!(true);
    config["upstreams"]["origin"]["protocol"] = json!("h2");
    config["routes"] = json!([{ "match": { "path": "/slow" }, "upstream": "origin" }]);
    let gateway = Gateway::start(config);
    let grpc = ["-i", VERSIONS[1], "-d", "x", "-H", "content-type: application/grpc+proto", "-H", "grpc-timeout: 200m"];
    for (path, status) in [("/slow", "4"), ("/nowhere", "12")] {
        let answer = latin1(&curl(&gateway, path, &grpc));
        let told = format!("\r\ngrpc-status: {status}\r\n");
        assert!(answer.starts_with("HTTP/2 200 \r\n") && answer.contains(&told), "{answer}");
        assert!(answer.contains("content-type: application/grpc\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
    // Who speaks HTTP/1.1 has no use for that.
    let plain = latin1(&curl(&gateway, "/nowhere", &["-i", "-d", "x", "-H", "content-type: application/grpc"]));
    assert!(plain.starts_with("HTTP/1.1 404 "), "{plain}");
}

#[test]
fn a_request_that_the_upstream_has_refused_goes_out_again_with_its_content() {
    let origin = Origin::scripted(|peer| {
        let mut frames = Frames::accept(peer);
        let first = frames.request().expect("a request");
        frames.send(3, 0, first, &7u32.to_be_bytes());
        while let Some(again) = frames.request() {
            frames.answer(again);
        }
    });
    let gateway = before(&origin.endpoint, json!({ "protocol": "h2" }));
    let mut client = gateway.client();
    client.post("/", b"content");
    assert_eq!(client.response().status(), 200);
    assert_eq!(gateway.metrics().sum("postern_upstream_repeats_total", &[]), 1.0);
}

#[test]
fn a_goodbye_retires_the_connection_and_repeats_what_came_too_late_for_it() {
    let origin = Origin::scripted(|peer| {
        let mut frames = Frames::accept(peer);
        let first = frames.request().expect("a request");
        frames.answer(first);
        // The second one is above the last stream that this end has seen.
        if first == 1 && frames.request().is_some() {
            frames.send(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
            while frames.request().is_some() {}
        }
    });
    let gateway = before(&origin.endpoint, json!({ "protocol": "h2" }));
    let mut client = gateway.client();
    assert_eq!(client.get("/").response().status(), 200);
    assert_eq!(client.post("/", b"content").response().status(), 200);
    assert_eq!(connects(&gateway), 2.0);
}

#[test]
fn another_connection_is_opened_when_the_upstream_takes_no_more_streams() {
    let origin = Origin::scripted(|peer| {
        let mut frames = Frames::accept(peer);
        // MAX_CONCURRENT_STREAMS is one.
        frames.send(4, 0, 0, &[0, 3, 0, 0, 0, 1]);
        while let Some(stream) = frames.request() {
            if stream > 1 {
                frames.0.pause(300);
            }
            frames.answer(stream);
        }
    });
    let gateway = before(&origin.endpoint, json!({ "protocol": "h2" }));
    assert_eq!(gateway.get("/").status(), 200);
    let mut clients: Vec<_> = (0..2).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.get("/");
    }
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(connects(&gateway), 2.0);
}

#[test]
fn a_response_that_breaks_off_does_not_look_complete() {
    let origin = Origin::scripted(|peer| {
        let mut frames = Frames::accept(peer);
        while let Some(stream) = frames.request() {
            frames.send(1, 4, stream, &[0x88]);
            frames.send(0, 0, stream, b"part");
            frames.send(3, 0, stream, &2u32.to_be_bytes());
        }
    });
    let gateway = before(&origin.endpoint, json!({ "protocol": "h2" }));
    let mut client = gateway.client();
    client.get("/");
    client.broken_off_response("GET");
    assert_eq!(gateway.metrics().sum("postern_responses_incomplete_total", &[("by", "upstream")]), 1.0);
}

#[test]
fn an_idle_connection_is_closed() {
    let origin = Origin::scripted(|peer| {
        let mut frames = Frames::accept(peer);
        while let Some(stream) = frames.request() {
            frames.answer(stream);
        }
    });
    let gateway = before(&origin.endpoint, json!({ "protocol": "h2", "keepalive": { "idle": "200ms" } }));
    assert_eq!(gateway.get("/").status(), 200);
    eventually("it is closed", || origin.open_connections() == 0);
    let open = || gateway.metrics().sum("postern_upstream_connections_open", &[]);
    eventually("and not counted any more", || open() == 0.0);
}
