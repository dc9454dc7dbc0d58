//! `postern demo`: a gateway and a backend in one process, from one configuration that a person can keep.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anstyle::{AnsiColor, Style};

const TEMPLATE: &str = include_str!("demo.json");
const DEFAULT_PORT: u16 = 8080;

const TITLE: Style = AnsiColor::Cyan.on_default().bold();
const COMMAND: Style = AnsiColor::Green.on_default();
const FAINT: Style = Style::new().dimmed();

/// A demo that is ready to run.
pub struct Demo {
    /// The configuration, as JSON.
    pub config: String,
    gateway: u16,
    backend: u16,
    admin: u16,
}

/// Finds free ports, and the configuration for them.
///
/// # Errors
/// The system has no free port.
pub fn prepare(port: Option<u16>) -> io::Result<Demo> {
    let wanted = port.unwrap_or(DEFAULT_PORT);
    // All are held until each is chosen, so that they differ.
    let gateway = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).or_else(|_| any_port())?;
    let (backend, admin) = (any_port()?, any_port()?);
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    let (gateway, backend, admin) = (port(&gateway)?, port(&backend)?, port(&admin)?);
    let config = TEMPLATE
        .replace("$GATEWAY", &gateway.to_string())
        .replace("$BACKEND", &backend.to_string())
        .replace("$ADMIN", &admin.to_string());
    Ok(Demo { config, gateway, backend, admin })
}

fn any_port() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

impl Demo {
    /// What runs, and what to try.
    pub fn describe(&self, written: Option<&Path>) -> String {
        let Self { gateway, backend, admin, .. } = self;
        let mut text = String::new();
        let mut line = |line: &str| {
            // Writing to a `String` does not fail.
            let _ = writeln!(text, "{line}");
        };
        line(&format!("\n{TITLE}Postern is running.{TITLE:#}\n"));
        line(&format!("  gateway  http://127.0.0.1:{gateway}   what a client talks to"));
        line(&format!("  backend  http://127.0.0.1:{backend}   built in, only the gateway talks to it"));
        line(&format!("  admin    http://127.0.0.1:{admin}   health and metrics"));
        match written {
            Some(path) => line(&format!("\n{TITLE}Its configuration{TITLE:#} is in {}", path.display())),
            None => {
                line(&format!("\n{TITLE}Its configuration{TITLE:#} {FAINT}(--write-config FILE keeps it){FAINT:#}\n"));
                self.config.lines().for_each(|config| line(&format!("  {FAINT}{config}{FAINT:#}")));
            }
        }
        line(&format!("\n{TITLE}Try it{TITLE:#}\n"));
        let tries = [
            ("a response from the backend, by way of the gateway", format!("curl -i http://127.0.0.1:{gateway}/")),
            ("a path rewritten on its way", format!("curl -i http://127.0.0.1:{gateway}/api/orders/42")),
            (
                "a method that the route does not take",
                format!("curl -i -X DELETE http://127.0.0.1:{gateway}/api/orders/42"),
            ),
            ("a backend that is down", format!("curl -i http://127.0.0.1:{gateway}/broken")),
            ("what was counted", format!("curl -s http://127.0.0.1:{admin}/metrics | grep upstream_requests")),
        ];
        for (what, command) in tries {
            line(&format!("  {FAINT}# {what}{FAINT:#}\n  {COMMAND}{command}{COMMAND:#}"));
        }
        line(&format!("\n{FAINT}Ctrl-C ends it.{FAINT:#}"));
        text
    }
}
