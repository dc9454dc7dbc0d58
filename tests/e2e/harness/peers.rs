//! Servers that were not written for these tests.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use super::{TempDir, eventually, free_port};

/// A server in a process of its own, which is ended when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// `ip:port`.
    pub address: String,
    pub directory: TempDir,
}

/// Whether the programs can be run; if not, says so, for the test to be skipped.
pub fn are_installed(programs: &[&str]) -> bool {
    let is_there = |program: &&str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    let missing = programs.iter().find(|program| !is_there(program));
    if let Some(program) = missing {
        eprintln!("skipped: {program} is not installed");
    }
    missing.is_none()
}

impl Server {
    /// HAProxy. `sections` says for an address what is to be there.
    pub fn haproxy(sections: impl FnOnce(&str, &TempDir) -> String) -> Self {
        Self::start(|address, directory| {
            let sections = sections(address, directory);
            let config = format!(
                "defaults
                   timeout connect 5s
                   timeout client 5s
                   timeout server 5s
                 {sections}\n"
            );
            let mut command = Command::new("haproxy");
            command.args(["-db", "-q", "-f"]).arg(directory.write("haproxy.cfg", &config));
            command
        })
    }

    /// nginx. `server` says for an address what its `server` block holds.
    pub fn nginx(server: impl FnOnce(&str, &TempDir) -> String) -> Self {
        Self::start(|address, directory| {
            let (root, server) = (directory.path().display(), server(address, directory));
            // Started as root, nginx would serve as somebody who may not read here.
            let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
            let user = if is_root { "user root;" } else { "" };
            let config = format!(
                "{user} daemon off; worker_processes 1; pid {root}/nginx.pid; error_log stderr warn;
                 events {{}}
                 http {{
                   access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/p;
                   fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                   server {{ {server} }}
                 }}"
            );
            let file = directory.write("nginx.conf", &config);
            let mut command = Command::new("nginx");
            command.arg("-p").arg(directory.path()).arg("-c").arg(file).args(["-e", "stderr"]);
            command
        })
    }

    fn start(command: impl FnOnce(&str, &TempDir) -> Command) -> Self {
        let (address, directory) = (format!("127.0.0.1:{}", free_port()), TempDir::new());
        let mut command = command(&address, &directory);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is installed");
        eventually("the server listens", || TcpStream::connect(&address).is_ok());
        Self { child, address, directory }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The master of nginx ends its worker at this signal, and not when it is killed.
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}
