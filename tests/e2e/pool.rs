//! Upstream connections: used again while they are good, never more than allowed, and waited for in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use serde_json::{Value, json};

use crate::harness::config::proxy_to;
use crate::harness::{Client, Gateway, Origin, eventually, ok, pause};

/// An origin that answers each request only when the test says so.
fn held() -> (Origin, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let origin = Origin::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if released.lock().expect("no script panics").recv().is_err() {
                return;
            }
            peer.send(ok(request.target()));
        }
    });
    (origin, release)
}

fn gateway(origin: &Origin, upstream: Value) -> Gateway {
    let mut config = proxy_to(origin);
    for (key, value) in upstream.as_object().expect("an object") {
        config["upstreams"]["origin"][key] = value.clone();
    }
    Gateway::start(config)
}

fn ask(gateway: &Gateway, path: &str) -> Client {
    let mut client = gateway.client();
    client.get(path);
    client
}

fn queued(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("postern_upstream_queued", &[("upstream", "origin")])
}

#[test]
fn many_clients_one_after_the_other_use_one_connection() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);

    for number in 0..30 {
        assert_eq!(gateway.get(&format!("/{number}")).text(), format!("/{number}"));
    }

    assert_eq!(origin.connections(), 1);
    let metrics = gateway.metrics();
    for (gauge, count) in [("open", 1.0), ("idle", 1.0)] {
        let name = format!("postern_upstream_connections_{gauge}");
        assert_eq!(metrics.sum(&name, &[("upstream", "origin")]), count, "{gauge}");
    }
}

#[test]
fn requests_past_the_bound_wait_and_are_served_in_order() {
    let (origin, release) = held();
    let limits = json!({ "max_connections": 1, "max_pending": 3, "pending_timeout": "30s" });
    let gateway = gateway(&origin, json!({ "limits": limits }));
    let mut clients = vec![ask(&gateway, "/0")];
    origin.wait_for_requests(1);
    for place in 1..=3 {
        clients.push(ask(&gateway, &format!("/{place}")));
        eventually("it waits", || queued(&gateway) == f64::from(place));
    }

    let refused = gateway.get("/too-many");
    assert_eq!(refused.status(), 503, "{refused}");
    assert_eq!(gateway.metrics().sum("postern_upstream_queue_overflows_total", &[("upstream", "origin")]), 1.0);
    for (place, client) in clients.iter_mut().enumerate() {
        release.send(()).expect("the origin waits");
        assert_eq!(client.response().text(), format!("/{place}"));
    }

    let order: Vec<String> = origin.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(order, ["/0", "/1", "/2", "/3"]);
    assert_eq!(origin.connections(), 1);
    assert!(!origin.has_received("too-many"));
}

#[test]
fn who_waits_too_long_for_a_connection_gets_503() {
    let (origin, release) = held();
    let gateway = gateway(&origin, json!({ "limits": { "max_connections": 1, "pending_timeout": "200ms" } }));
    let mut first = ask(&gateway, "/first");
    origin.wait_for_requests(1);

    let refused = gateway.get("/impatient");

    assert_eq!(refused.status(), 503, "{refused}");
    assert_eq!(gateway.metrics().sum("postern_upstream_queue_timeouts_total", &[("upstream", "origin")]), 1.0);
    release.send(()).expect("the origin waits");
    assert_eq!(first.response().text(), "/first");
    release.send(()).expect("the origin waits");
    assert_eq!(gateway.get("/next").text(), "/next");
    assert!(!origin.has_received("impatient"));
}

#[test]
fn each_upstream_has_its_own_patience_with_who_waits() {
    let ((origin, release), (other, release_other)) = (held(), held());
    let mut config = proxy_to(&origin);
    let limits = |pending_timeout| json!({ "max_connections": 1, "pending_timeout": pending_timeout });
    config["upstreams"]["origin"]["limits"] = limits("5m");
    config["upstreams"]["other"] = json!({ "endpoints": [other.endpoint], "limits": limits("200ms") });
    config["routes"] =
        json!([{ "upstream": "origin" }, { "match": { "path": "/other/{*rest}" }, "upstream": "other" }]);
    let gateway = Gateway::start(config);
    let mut served = [ask(&gateway, "/served"), ask(&gateway, "/other/served")];
    origin.wait_for_requests(1);
    other.wait_for_requests(1);

    // Who may wait longer comes first, so that one patience for both would refuse it first.
    let mut patient = ask(&gateway, "/patient");
    eventually("it waits", || queued(&gateway) == 1.0);
    assert_eq!(gateway.get("/other/impatient").status(), 503);

    patient.assert_silent();
    for _ in 0..2 {
        release.send(()).expect("the origin waits");
    }
    release_other.send(()).expect("the origin waits");
    assert_eq!(patient.response().text(), "/patient");
    for client in &mut served {
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn who_leaves_the_queue_makes_room() {
    let (origin, release) = held();
    let limits = json!({ "max_connections": 1, "max_pending": 1, "pending_timeout": "30s" });
    let gateway = gateway(&origin, json!({ "limits": limits }));
    let mut first = ask(&gateway, "/first");
    origin.wait_for_requests(1);
    let leaving = ask(&gateway, "/leaving");
    eventually("it waits", || queued(&gateway) == 1.0);

    drop(leaving);
    eventually("its place is free", || queued(&gateway) == 0.0);
    let mut patient = ask(&gateway, "/patient");
    eventually("it waits", || queued(&gateway) == 1.0);
    release.send(()).expect("the origin waits");
    release.send(()).expect("the origin waits");

    assert_eq!(first.response().text(), "/first");
    assert_eq!(patient.response().text(), "/patient");
    assert!(!origin.has_received("/leaving"));
}

#[test]
fn a_connection_that_breaks_makes_room_for_who_waits() {
    let origin = Origin::scripted(|peer| {
        let Some(request) = peer.request() else { return };
        if request.target() == "/breaks" {
            peer.pause(200);
        } else {
            peer.send(ok("fine"));
        }
    });
    let gateway = gateway(&origin, json!({ "limits": { "max_connections": 1, "pending_timeout": "30s" } }));
    let mut first = ask(&gateway, "/breaks");
    origin.wait_for_requests(1);
    let mut second = ask(&gateway, "/waits");

    assert_eq!(first.response().status(), 502);
    assert_eq!(second.response().text(), "fine");
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let origin = Origin::naming_targets();
    let gateway = gateway(&origin, json!({ "keepalive": { "idle": "200ms" } }));
    assert_eq!(gateway.get("/1").text(), "/1");

    eventually("the idle connection is closed", || origin.open_connections() == 0);

    assert_eq!(gateway.get("/2").text(), "/2");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn no_connection_is_kept_where_none_shall_be() {
    let origin = Origin::naming_targets();
    let gateway = gateway(&origin, json!({ "keepalive": { "idle": "0s" } }));

    for path in ["/1", "/2", "/3"] {
        assert_eq!(gateway.get(path).text(), path);
    }

    assert_eq!(origin.connections(), 3);
    eventually("all are closed", || origin.open_connections() == 0);
}

#[test]
fn a_connection_is_not_used_past_its_age_however_busy_it_is() {
    let origin = Origin::naming_targets();
    let gateway = gateway(&origin, json!({ "keepalive": { "max_age": "300ms" } }));
    let mut client = gateway.client();

    for _ in 0..20 {
        assert_eq!(client.get("/").response().text(), "/");
        pause(50);
    }

    let connections = origin.connections();
    assert!((2..=5).contains(&connections), "{connections} connections in a second");
}

/// The most connections that are ever open at the origin while 24 clients ask at once.
fn most_open_connections(shards: usize, max_connections: usize) -> usize {
    let open = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (counted, highest) = (Arc::clone(&open), Arc::clone(&most));
    let origin = Origin::scripted(move |peer| {
        let now = counted.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(now, Ordering::SeqCst);
        while peer.request().is_some() {
            peer.pause(5);
            peer.send(ok("fine"));
        }
        counted.fetch_sub(1, Ordering::SeqCst);
    });
    let mut config = proxy_to(&origin);
    config["shards"] = json!(shards);
    config["upstreams"]["origin"]["limits"] = json!({ "max_connections": max_connections, "pending_timeout": "30s" });
    let gateway = Gateway::start(config);
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(gateway.get("/").status(), 200);
                }
            });
        }
    });
    most.load(Ordering::SeqCst)
}

#[test]
fn the_bound_on_connections_holds_for_the_whole_process() {
    for (shards, max_connections) in [(1, 1), (1, 4), (2, 2), (2, 3), (2, 8)] {
        let most = most_open_connections(shards, max_connections);
        assert!(most <= max_connections, "{most} connections on {shards} shards, {max_connections} allowed");
    }
}
