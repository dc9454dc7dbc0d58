//! Clients that use HTTP/2 to make the gateway work, remember or wait more than they pay for, or to say to a backend what they may not.
//!
//! Every attack is shown the right answer, costs little memory, is counted, and is not noticed by another client of the same shard.

mod floods;
mod heads;
mod messages;
mod resets;
mod streams;
mod windows;

use serde_json::{Value, json};

use crate::harness::config::proxy_to;
use crate::harness::h2::H2Client;
use crate::harness::h2::frame::{self, END_STREAM, setting};
use crate::harness::{Gateway, Origin, eventually, ok};

/// What the process may need for an attack beside what it had. The attacks would need several times as much if nothing bounded them.
const TOLERABLE: u64 = 8 * MIB;

const MIB: u64 = 1024 * 1024;

/// Bytes of the backend's large responses.
const LARGE: usize = 1024 * 1024;
const MEDIUM: usize = LARGE / 10;

/// A gateway with HTTP/2 between a backend and a client that was there before the attack.
struct Scene {
    origin: Origin,
    gateway: Gateway,
    other: H2Client,
    others_stream: u32,
    /// Bytes of memory before the attack.
    before: u64,
}

impl Scene {
    fn new() -> Self {
        Self::with(json!({}))
    }

    /// With these keys of the listener.
    fn with(listener: Value) -> Self {
        Self::before(json!({}), listener)
    }

    /// With these limits of the upstream, and keys of the listener. The other client has a listener of its own, with what is usual.
    fn before(limits: Value, listener: Value) -> Self {
        let origin = origin();
        let mut config = proxy_to(&origin);
        config["upstreams"]["origin"]["limits"] = limits;
        config["listeners"] = json!([listener, { "name": "other", "http2": true }]);
        config["listeners"][0]["name"] = json!("public");
        config["listeners"][0]["http2"] = json!(true);
        let gateway = Gateway::start(config);
        let other = H2Client::connect(&gateway.address_of("other"));
        let mut scene = Self { origin, gateway, other, others_stream: 1, before: 0 };
        scene.serve_other();
        scene.warm_up();
        scene.before = scene.gateway.resident_memory();
        scene.gateway.forget_peak_memory();
        scene
    }

    /// Makes the process as large as it gets for one client that takes what it asks for.
    fn warm_up(&mut self) {
        let window = [(setting::INITIAL_WINDOW_SIZE, 0x7fff_ffff)];
        let mut client = H2Client::connect_with(&self.gateway.address_of("other"), &window);
        client.is_polite = false;
        client.send(frame::window_update(0, 0x7fff_0000));
        for round in 0..12 {
            let streams = (0..8).map(|count| 2 * (8 * round + count) + 1);
            for stream in streams.clone() {
                client.send(frame::headers(stream, END_STREAM, &frame::get("/medium")));
            }
            for stream in streams {
                assert_eq!(client.response(stream).body.len(), MEDIUM);
            }
        }
        self.gateway.metrics();
    }

    fn attacker(&self) -> H2Client {
        H2Client::connect(&self.gateway.address())
    }

    /// The other client asks and is answered.
    fn serve_other(&mut self) {
        let path = format!("/other/{}", self.others_stream);
        assert_eq!(self.other.get(self.others_stream, &path).text(), path);
        self.others_stream += 2;
    }

    fn assert_unharmed(&mut self) {
        self.assert_unharmed_at(TOLERABLE);
    }

    /// For an attack that may cost so many bytes, because it goes on.
    fn assert_unharmed_at(&mut self, tolerable: u64) {
        self.serve_other();
        let grown = self.gateway.peak_memory().saturating_sub(self.before);
        assert!(grown < tolerable, "the process has grown by {} KiB", grown / 1024);
        assert_eq!(self.gateway.metrics().sum("postern_task_panics_total", &[]), 0.0);
    }

    /// How many connections were ended because of this kind of flood.
    fn floods(&self, kind: &str) -> f64 {
        self.gateway.metrics().sum("postern_http2_floods_total", &[("listener", "public"), ("kind", kind)])
    }

    /// Waits until nothing is done for anybody any more.
    fn assert_at_rest(&self) {
        eventually("no request is open", || {
            let metrics = self.gateway.metrics();
            metrics.sum("postern_requests_open", &[("listener", "public")]) == 0.0 && self.working() == 0
        });
    }

    /// Connections on which the backend is at work.
    fn working(&self) -> u32 {
        let metrics = self.gateway.metrics();
        let [open, idle] = ["open", "idle"].map(|it| metrics.sum(&format!("postern_upstream_connections_{it}"), &[]));
        (open - idle) as u32
    }

    /// What the backend was asked by anybody but the other client.
    fn attacks_received(&self) -> Vec<String> {
        let requests = self.origin.requests();
        requests
            .iter()
            .map(|it| it.first_line.clone())
            .filter(|line| !line.contains("/other/") && !line.contains("/medium"))
            .collect()
    }
}

/// Answers with the target, except where that says that it is slow or large.
fn origin() -> Origin {
    Origin::scripted(|peer| {
        while let Some(line) = peer.first_line() {
            if line.contains(" /wait") {
                return peer.stall();
            }
            let Some(request) = peer.request() else { return };
            match request.target() {
                "/medium" => peer.send(ok(vec![b'x'; MEDIUM])),
                "/large" => peer.send(ok(vec![b'x'; LARGE])),
                target => peer.send(ok(target)),
            }
        }
    })
}
