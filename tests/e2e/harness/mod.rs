//! What the tests are made of: a gateway (the real binary), origins behind it and clients before it, all on real sockets.

mod authority;
mod client;
pub mod config;
mod gateway;
pub mod h2;
mod message;
mod metrics;
mod origin;
pub mod peers;
mod socket;
mod temp;
mod tls_client;

use std::thread;
use std::time::{Duration, Instant};

pub use authority::Authority;
pub use client::Client;
pub use gateway::{Gateway, free_port, postern};
pub use message::{Framing, Message, latin1};
pub use metrics::Metrics;
pub use origin::{Origin, Peer, Received, ok};
pub use temp::TempDir;
pub use tls_client::{TlsCaller, certificate_in};

/// How long anything may take that must happen. No test passes or fails by how much less it took.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until a condition holds.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets time pass, where a test is about what must not have happened after it.
pub fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}
