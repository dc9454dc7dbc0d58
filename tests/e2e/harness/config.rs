//! Configurations for tests: the common shapes, to be changed by index where a test needs more.
//!
//! A listener without an `address` gets a free port when the gateway starts, and an admin listener is added there.

use serde_json::{Value, json};

use super::origin::Origin;

/// One listener, and one upstream `origin` that gets everything.
pub fn proxy(endpoints: &[&str]) -> Value {
    json!({
        "listeners": [{ "name": "public" }],
        "upstreams": { "origin": { "endpoints": endpoints, "balance": "round_robin" } },
        "routes": [{ "upstream": "origin" }],
    })
}

pub fn proxy_to(origin: &Origin) -> Value {
    proxy(&[&origin.endpoint])
}

/// One listener, and these routes to the upstream `origin` or to answers of their own.
pub fn routes(origin: &Origin, routes: Value) -> Value {
    let mut config = proxy_to(origin);
    config["routes"] = routes;
    config
}
