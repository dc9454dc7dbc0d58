//! Where backends are: behind names, at several addresses, on Unix sockets; and how requests are spread over them.

use std::net::{SocketAddr, ToSocketAddrs};

use serde_json::json;

use crate::harness::config::{proxy, proxy_to};
use crate::harness::{Client, Gateway, Origin, TempDir, eventually, free_port, ok};

#[test]
fn all_addresses_of_a_name_are_used() {
    let port = free_port();
    let mut addresses: Vec<SocketAddr> =
        ("localhost", port).to_socket_addrs().expect("localhost has an address").collect();
    addresses.sort_unstable();
    addresses.dedup();
    let origins: Vec<Origin> = addresses
        .iter()
        .map(|address| {
            Origin::scripted_at(*address, |peer| {
                while peer.request().is_some() {
                    peer.send(ok("named"));
                }
            })
        })
        .collect();
    let gateway = Gateway::start(proxy(&[&format!("http://localhost:{port}")]));

    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "named");
    }

    for (origin, address) in origins.iter().zip(&addresses) {
        assert!(!origin.requests().is_empty(), "{address} was never asked");
        let request = &origin.requests()[0];
        assert_eq!(request.field("host"), Some("example.com"));
    }
}

#[test]
fn a_name_that_does_not_resolve_is_an_error_of_its_upstream_only() {
    let origin = Origin::saying("fine");
    let mut config = proxy_to(&origin);
    config["upstreams"]["lost"] = json!({ "endpoints": ["http://no-such-host.invalid:80"] });
    config["routes"] = json!([{ "match": { "path": "/lost" }, "upstream": "lost" }, { "upstream": "origin" }]);
    let mut gateway = Gateway::start(config);

    let response = gateway.get("/lost");

    assert!(matches!(response.status(), 502 | 503), "{response}");
    assert!(!response.text().contains("no-such-host"), "{response}");
    assert_eq!(gateway.get("/").text(), "fine");
    assert!(gateway.is_running());
}

#[test]
fn both_sides_may_be_unix_sockets() {
    let directory = TempDir::new();
    let origin = Origin::scripted_on_unix(&directory.join("origin.sock"), |peer| {
        while let Some(request) = peer.request() {
            peer.send(ok(request.body));
        }
    });
    let mut config = proxy_to(&origin);
    let address = format!("unix:{}", directory.join("public.sock").display());
    config["listeners"][0]["address"] = json!(address);
    let mut gateway = Gateway::start(config);
    let mut client = Client::connect(&address);

    for body in [b"one".to_vec(), vec![b'2'; 300_000]] {
        assert!(client.post("/", &body).response().body == body);
    }

    assert_eq!(origin.connections(), 1);
    let request = &origin.requests()[0];
    assert_eq!(request.field("host"), Some("example.com"));
    assert!(request.values("x-forwarded-for").iter().all(|value| *value == "unknown"), "{request:#?}");
    assert!(gateway.terminate().success());
    assert!(!directory.join("public.sock").exists());
}

#[test]
fn a_socket_file_that_a_dead_process_left_is_in_nobodys_way() {
    let directory = TempDir::new();
    let origin = Origin::saying("fine");
    let mut config = proxy_to(&origin);
    let address = format!("unix:{}", directory.join("public.sock").display());
    config["listeners"][0]["address"] = json!(address);

    // Dropping a gateway kills it, so that it cannot clean up.
    drop(Gateway::start(config.clone()));
    // The kernel takes io_uring apart, and its sockets with it, a moment after the process has ended.
    eventually("nobody listens any more", || Client::try_connect(&address).is_err());
    assert!(directory.join("public.sock").exists());
    let gateway = Gateway::start(config);

    assert_eq!(gateway.get("/").text(), "fine");
}

#[test]
fn round_robin_gives_each_endpoint_its_turn() {
    let origins = [Origin::saying("a"), Origin::saying("b"), Origin::saying("c")];
    let endpoints: Vec<&str> = origins.iter().map(|origin| origin.endpoint.as_str()).collect();
    let gateway = Gateway::start(proxy(&endpoints));
    let mut client = gateway.client();

    for _ in 0..30 {
        assert_eq!(client.get("/").response().status(), 200);
    }

    for origin in &origins {
        assert_eq!((origin.requests().len(), origin.connections()), (10, 1));
    }
}

#[test]
fn least_request_goes_around_an_endpoint_that_stalls() {
    let healthy = Origin::saying("healthy");
    let stalled = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.stall();
        }
    });
    let mut config = proxy(&[&healthy.endpoint, &stalled.endpoint]);
    config["upstreams"]["origin"]["balance"] = json!("least_request");
    let gateway = Gateway::start(config);

    // Idle endpoints are picked at random, so sooner or later the stalled one gets a request.
    let mut stuck = None;
    for asked in 1..=100 {
        let mut client = gateway.client();
        client.get("/");
        eventually("an endpoint gets it", || healthy.requests().len() + stalled.requests().len() == asked);
        if stalled.requests().len() == 1 {
            stuck = Some(client);
            break;
        }
        client.response();
    }
    assert!(stuck.is_some(), "the other endpoint was never tried");

    for _ in 0..40 {
        assert_eq!(gateway.get("/").text(), "healthy");
    }
    assert_eq!(stalled.requests().len(), 1);
}
