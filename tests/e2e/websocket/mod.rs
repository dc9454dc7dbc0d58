//! WebSocket through the gateway: nothing changes on the way, and a drain ends it with a word.

mod ended;
mod talk;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Debian's own: the one that its packages are for.
const PYTHON: &str = "/usr/bin/python3";

/// The example of RFC 6455 section 1.3.
const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A server or a client of Python's `websockets`, see `peer.py`. It is killed when dropped.
struct Python {
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// Whether there is such a Python; if not, says so, for the test to be skipped.
fn has_python() -> bool {
    let imports = Command::new(PYTHON).args(["-c", "import websockets"]).stderr(Stdio::null()).status();
    let has = imports.is_ok_and(|status| status.success());
    if !has {
        eprintln!("skipped: python3-websockets is not installed");
    }
    has
}

fn file(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name).display().to_string()
}

impl Python {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(PYTHON);
        command.arg("-B").arg(file("tests/e2e/websocket/peer.py")).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it is installed");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self { child, lines }
    }

    /// What it says next. A client gives up by itself.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it writes text");
        line.trim_end().to_owned()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
