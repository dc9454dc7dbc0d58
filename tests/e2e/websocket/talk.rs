//! Python's client and Python's server.

use serde_json::{Value, json};

use super::{Python, file, has_python};
use crate::harness::Gateway;
use crate::harness::config::proxy;

/// A server, the gateway before it, and how to ask for it, with TLS before and behind the gateway or without.
struct Scene {
    server: Python,
    gateway: Gateway,
    tls: bool,
}

impl Scene {
    fn new(tls_before: bool, tls_behind: bool, timeouts: Value) -> Self {
        let (ca, chain, key) = (file("config/tls/ca.pem"), file("config/tls/site.pem"), file("config/tls/site.key"));
        let mut server = match tls_behind {
            true => Python::start(&["server", &chain, &key]),
            false => Python::start(&["server"]),
        };
        let scheme = if tls_behind { "https" } else { "http" };
        let mut config = proxy(&[&format!("{scheme}://127.0.0.1:{}", server.line())]);
        config["access_log"] = json!({});
        config["upstreams"]["origin"]["timeouts"] = timeouts;
        if tls_behind {
            config["upstreams"]["origin"]["tls"] = json!({ "ca": ca, "server_name": "example.com" });
        }
        if tls_before {
            config["listeners"][0]["tls"] = json!({ "certificates": [{ "chain": chain, "key": key }] });
        }
        Self { server, gateway: Gateway::start(config), tls: tls_before }
    }

    fn client(&self, case: &str) -> Python {
        let address = self.gateway.address();
        match self.tls {
            true => Python::start(&[case, &format!("wss://{address}/{case}"), &file("config/tls/ca.pem")]),
            false => Python::start(&[case, &format!("ws://{address}/{case}")]),
        }
    }

    /// Status, flags and problem in the log.
    fn log_line(&self, case: &str) -> [Value; 3] {
        let line = self.gateway.wait_for_lines(&format!("\"path\":\"/{case}\""), 1).remove(0);
        let line: Value = serde_json::from_str(&line).expect("a line is JSON");
        ["status", "flags", "problem"].map(|name| line[name].clone())
    }
}

const WITH_TLS_OR_WITHOUT: [(bool, bool); 3] = [(false, false), (true, false), (true, true)];

#[test]
fn every_kind_of_message_and_a_close_cross_it() {
    if !has_python() {
        return;
    }
    for (tls_before, tls_behind) in WITH_TLS_OR_WITHOUT {
        let mut scene = Scene::new(tls_before, tls_behind, json!({}));

        assert_eq!(scene.client("messages").line(), "closed 4001");

        assert_eq!(scene.server.line(), "closed 4001");
        assert_eq!(scene.log_line("messages"), [json!(101), json!("-"), Value::Null]);
    }
}

#[test]
fn the_servers_close_crosses_it_too() {
    if !has_python() {
        return;
    }
    let mut scene = Scene::new(false, false, json!({}));

    assert_eq!(scene.client("ask_to_close").line(), "closed 4002");

    assert_eq!(scene.server.line(), "closed 4002");
}

#[test]
fn one_in_which_nothing_moves_is_cut_and_the_log_says_why() {
    if !has_python() {
        return;
    }
    for (tls_before, tls_behind) in WITH_TLS_OR_WITHOUT {
        // What bounds the silence of a response bounds none here.
        let mut scene = Scene::new(tls_before, tls_behind, json!({ "idle": "50ms", "tunnel_idle": "500ms" }));
        let mut client = scene.client("stay");

        assert_eq!(client.line(), "open");

        // Without a word: nobody is going away.
        assert_eq!(client.line(), "closed 1006");
        assert_eq!(scene.server.line(), "closed 1006");
        assert_eq!(scene.log_line("stay"), [json!(101), json!("SI"), json!("tunnel-idle")]);
        let cut = scene.gateway.metrics().sum("postern_responses_incomplete_total", &[("by", "deadline")]);
        assert_eq!(cut, 1.0);
    }
}

#[test]
fn a_drain_tells_both_sides_that_the_gateway_is_going_away() {
    if !has_python() {
        return;
    }
    for (tls_before, tls_behind) in WITH_TLS_OR_WITHOUT {
        let mut scene = Scene::new(tls_before, tls_behind, json!({}));
        let mut clients = [scene.client("stay"), scene.client("stay")];
        for client in &mut clients {
            assert_eq!(client.line(), "open");
        }

        scene.gateway.ask_to_terminate();

        for client in &mut clients {
            assert_eq!(client.line(), "closed 1001");
            assert_eq!(scene.server.line(), "closed 1001");
        }
        assert_eq!(scene.gateway.wait().code(), Some(0));
        assert_eq!(scene.log_line("stay"), [json!(101), json!("-"), Value::Null]);
    }
}
