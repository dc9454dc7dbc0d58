//! Requests that two parties could read in two ways (RFC 9112 section 11.2): refused, with nothing of them at the backend.
//!
//! Every case ends in bytes that are a request of their own if something before them is misread. The backend must never see it, in no
//! disguise: what counts is what the backend received, and the status is only how the client is told.

mod chunks;
mod framing;
mod heads;
mod limits;

use std::ops::RangeInclusive;

use crate::harness::{Client, Gateway, Message, Origin};

/// What is behind each case on the wire.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\nX-Smuggled: 1\r\n\r\n";

/// A gateway and the backend that must not be fooled.
struct Scene {
    origin: Origin,
    gateway: Gateway,
}

impl Scene {
    fn new() -> Self {
        let origin = Origin::naming_targets();
        let gateway = Gateway::before(&origin);
        Self { origin, gateway }
    }

    /// Sends bytes that must be refused before the backend gets any of them.
    fn refuse(&self, what: &str, bytes: &[u8], status: u16) {
        self.refuse_with_one_of(what, bytes, status..=status);
    }

    fn refuse_with_one_of(&self, what: &str, bytes: &[u8], status: RangeInclusive<u16>) {
        let mut client = self.gateway.client();
        client.send(bytes);
        let refusal = refusal(&mut client, what);
        assert!(status.contains(&refusal.status()), "{what}: {refusal}");
        self.assert_untouched(what);
    }

    /// The backend has got innocent requests only, and serves another now.
    fn assert_untouched(&self, what: &str) {
        assert_eq!(self.gateway.get("/innocent").text(), "/innocent", "after {what}");
        for request in self.origin.requests() {
            assert_eq!(request.target(), "/innocent", "after {what}: {request:#?}");
        }
        self.assert_nothing_smuggled(what);
    }

    fn assert_nothing_smuggled(&self, what: &str) {
        for connection in self.origin.received() {
            let text = String::from_utf8_lossy(&connection).into_owned();
            assert!(!text.contains("muggled"), "after {what}: {text}");
        }
    }
}

/// The one response that a refused client gets: an error that closes the connection, in the form that all of them have.
fn refusal(client: &mut Client, what: &str) -> Message {
    let refusal = client.try_response("GET").unwrap_or_else(|fault| panic!("{what}: {fault:?}"));
    assert!((400..600).contains(&refusal.status()), "{what}: {refusal}");
    assert!(refusal.connection_has("close"), "{what}: {refusal}");
    assert_eq!(refusal.field("content-type"), Some("application/problem+json"), "{what}: {refusal}");
    client.assert_closed();
    refusal
}

/// A request with these lines in its head and this content, and the smuggled request behind it.
fn post(lines: &str, content: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{content}{SMUGGLED}").into_bytes()
}

/// A request with this line as a field, and the smuggled request behind it.
fn get(line: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n{SMUGGLED}").into_bytes()
}
