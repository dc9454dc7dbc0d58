//! Peers that were not written for these tests: curl before the gateway and nginx behind it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::config::proxy;
use crate::harness::{Gateway, TempDir, eventually, free_port, latin1};

/// nginx, serving and storing files below `files/`.
struct Nginx {
    child: Child,
    endpoint: String,
    directory: TempDir,
}

impl Nginx {
    fn start() -> Self {
        let directory = TempDir::new();
        let port = free_port();
        let root = directory.path().display();
        fs::create_dir(directory.join("files")).expect("a new directory");
        let config = format!(
            "daemon off; worker_processes 1; pid {root}/nginx.pid; error_log stderr warn;
             events {{}}
             http {{
               access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
               uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; client_max_body_size 50m;
               server {{
                 listen 127.0.0.1:{port}; root {root}/files;
                 location / {{ dav_methods PUT; }}
                 location /request/ {{ return 200 \"$request_method $request_uri $http_host $http_x_forwarded_for\\n\"; }}
               }}
             }}"
        );
        // Started as root, nginx would serve as somebody who may not read here.
        let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        let config = if is_root { format!("user root; {config}") } else { config };
        let file = directory.write("nginx.conf", &config);
        let child = Command::new("nginx")
            .arg("-p")
            .arg(directory.path())
            .arg("-c")
            .arg(file)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        let address = format!("127.0.0.1:{port}");
        eventually("nginx serves", || TcpStream::connect(&address).is_ok());
        Self { child, endpoint: format!("http://{address}"), directory }
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.directory.join("files").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its worker at this signal, and not when it is killed.
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}

/// nginx behind Postern, unless this machine lacks what it takes.
fn scene() -> Option<(Nginx, Gateway)> {
    for (program, flag) in [("nginx", "-v"), ("curl", "--version")] {
        if Command::new(program).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("skipped: {program} is not installed");
            return None;
        }
    }
    let nginx = Nginx::start();
    let gateway = Gateway::start(proxy(&[&nginx.endpoint]));
    Some((nginx, gateway))
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
        assert!(nginx.file(name) == content, "{name} was not stored as it was sent");
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
