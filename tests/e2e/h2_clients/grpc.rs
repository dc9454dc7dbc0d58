//! gRPC of another language through the gateway: Python's client and Python's server.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::json;

use super::file;
use crate::harness::config::proxy;
use crate::harness::h2::frame::{self, END_STREAM};
use crate::harness::h2::{H2Client, Stream};
use crate::harness::{Gateway, Origin, free_port, latin1};

/// Debian's own: the one that its packages are for.
const PYTHON: &str = "/usr/bin/python3";

/// A server, see `grpc.py`. It is killed when dropped.
struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
    address: String,
}

/// TLS before and behind the gateway, or plain text.
const WITH_TLS_OR_WITHOUT: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// Whether there is such a Python; if not, says so, for the test to be skipped.
fn has_python() -> bool {
    let imports = Command::new(PYTHON).args(["-c", "import grpc"]).stderr(Stdio::null()).status();
    let has = imports.is_ok_and(|status| status.success());
    if !has {
        eprintln!("skipped: python3-grpcio is not installed");
    }
    has
}

fn python(arguments: &[&str]) -> Command {
    let mut command = Command::new(PYTHON);
    command.arg("-B").arg(file("tests/e2e/h2_clients/grpc.py")).args(arguments).stdin(Stdio::null());
    command
}

impl Server {
    fn start(tls: bool) -> Self {
        let (chain, key) = (file("config/tls/site.pem"), file("config/tls/site.key"));
        let mut command = if tls { python(&["server", &chain, &key]) } else { python(&["server"]) };
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it is installed");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut server = Self { child, lines, address: String::new() };
        server.address = format!("127.0.0.1:{}", server.line());
        server
    }

    /// What it says next.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it writes text");
        line.trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway that speaks HTTP/2 on both sides.
fn gateway(address: &str, tls_before: bool, tls_behind: bool) -> Gateway {
    let scheme = if tls_behind { "https" } else { "http" };
    let mut config = proxy(&[&format!("{scheme}://{address}")]);
    config["upstreams"]["origin"]["protocol"] = json!("h2");
    if tls_behind {
        config["upstreams"]["origin"]["tls"] = json!({ "ca": file("config/tls/ca.pem"), "server_name": "example.com" });
    }
    config["listeners"][0]["http2"] = json!(true);
    if tls_before {
        let certificate = json!({ "chain": file("config/tls/site.pem"), "key": file("config/tls/site.key") });
        config["listeners"][0]["tls"] = json!({ "certificates": [certificate] });
    }
    config["routes"] = json!([{ "match": { "path": "/test.Test/{*call}" }, "upstream": "origin" }]);
    Gateway::start(config)
}

fn assert_done(case: &str, gateway: &Gateway, tls: bool) {
    let (address, ca) = (gateway.address(), file("config/tls/ca.pem"));
    let mut command = if tls { python(&[case, &address, &ca]) } else { python(&[case, &address]) };
    let output = command.output().expect("it is installed");
    let said = latin1(&output.stdout);
    assert!(said.ends_with("done\n"), "{case}, TLS {tls}: {said}{}", latin1(&output.stderr));
}

#[test]
fn every_kind_of_call_crosses_it_in_plain_text_and_in_tls() {
    if !has_python() {
        return;
    }
    for (tls_before, tls_behind) in WITH_TLS_OR_WITHOUT {
        let server = Server::start(tls_behind);
        let gateway = gateway(&server.address, tls_before, tls_behind);
        for case in ["calls", "dialogue", "many", "errors"] {
            assert_done(case, &gateway, tls_before);
        }
        assert_eq!(gateway.metrics().sum("postern_requests_open", &[("listener", "public")]), 0.0);
    }
}

#[test]
fn a_deadline_and_a_cancellation_reach_the_server() {
    if !has_python() {
        return;
    }
    let mut server = Server::start(false);
    let gateway = gateway(&server.address, false, false);
    assert_done("deadline", &gateway, false);
    assert_eq!([server.line(), server.line()], ["deadline True", "cancelled True"]);
    assert_done("cancelled", &gateway, false);
    assert_eq!(server.line().split(' ').next(), Some("deadline"));
    assert_eq!(server.line(), "cancelled True");
}

/// The only block of fields of what a call of gRPC is answered with, by frames: a library would make a status out of anything.
fn answer(gateway: &Gateway, path: &str, more: &[(&str, &str)]) -> Stream {
    let mut client = H2Client::connect(&gateway.address());
    let fields = [&frame::post(path)[..], &[("content-type", "application/grpc"), ("te", "trailers")], more].concat();
    client.send(frame::headers(1, 0, &fields)).send(frame::data(1, END_STREAM, [0; 5]));
    client.response(1)
}

#[test]
fn what_the_gateway_answers_itself_is_a_status_of_grpc() {
    let waiting = Origin::scripted(|peer| peer.stall());
    let mut config = proxy(&[&format!("http://127.0.0.1:{}", free_port())]);
    config["listeners"][0]["http2"] = json!(true);
    config["upstreams"]["waiting"] = json!({ "endpoints": [waiting.endpoint] });
    config["routes"] = json!([
        { "match": { "path": "/test.Test/{*call}" }, "upstream": "origin" },
        { "match": { "path": "/wait.Test/{*call}" }, "upstream": "waiting" },
        { "match": { "path": "/late.Test/{*call}" }, "upstream": "waiting", "timeout": "300ms" },
    ]);
    let gateway = Gateway::start(config);
    for (path, more, status) in [
        // Nobody is there: UNAVAILABLE. Nothing is there: UNIMPLEMENTED. It takes too long: DEADLINE_EXCEEDED.
        ("/test.Test/Unary", &[][..], "14"),
        ("/other.Test/Unary", &[], "12"),
        ("/late.Test/Unary", &[], "4"),
        ("/wait.Test/Unary", &[("grpc-timeout", "300m")], "4"),
    ] {
        let answer = answer(&gateway, path, more);
        assert_eq!((answer.blocks.len(), answer.body.len()), (1, 0), "{path}: {answer:?}");
        assert_eq!((answer.status(), answer.field("grpc-status")), (200, Some(status)), "{path}: {answer:?}");
        assert!(answer.field("content-type").is_some_and(|it| it.starts_with("application/grpc")), "{answer:?}");
    }
}
