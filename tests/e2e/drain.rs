//! `SIGTERM` loses no response that was begun, and ends the process within its time.

use std::sync::{Mutex, mpsc};

use serde_json::json;

use crate::harness::config::proxy_to;
use crate::harness::{Client, Gateway, Origin, TempDir, eventually, ok, pause};

/// An origin that answers `/slow` in two parts: the head when it is told to go on, the rest when it is told so again.
fn in_parts() -> (Origin, mpsc::Sender<()>) {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let origin = Origin::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if request.target() != "/slow" {
                peer.send(ok("quick"));
                continue;
            }
            for part in ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst", "-last"] {
                if may_go_on.lock().expect("no script panics").recv().is_err() {
                    return;
                }
                peer.send(part);
            }
        }
    });
    (origin, go_on)
}

fn refuses_connections(address: &str) {
    eventually("new connections are refused", || Client::try_connect(address).is_err());
}

#[test]
fn what_is_in_flight_is_finished_with_close_and_then_the_process_ends() {
    for shards in [1, 2] {
        let (origin, go_on) = in_parts();
        let mut config = proxy_to(&origin);
        config["shards"] = json!(shards);
        let mut gateway = Gateway::start(config);
        let address = gateway.address();
        let mut idle = gateway.client();
        assert_eq!(idle.get("/").response().text(), "quick");
        let mut silent = gateway.client();
        let mut client = gateway.client();
        client.get("/slow");
        eventually("the origin has it", || origin.has_received("/slow"));

        gateway.ask_to_terminate();
        refuses_connections(&address);
        idle.assert_closed();
        silent.assert_closed();
        assert!(gateway.is_running());
        go_on.send(()).expect("the origin waits");
        go_on.send(()).expect("the origin waits");

        let response = client.response();
        assert_eq!((response.status(), response.text().as_str()), (200, "first-last"));
        assert!(response.connection_has("close"), "{response}");
        client.assert_closed();
        assert_eq!(gateway.wait().code(), Some(0));
    }
}

#[test]
fn a_response_whose_head_was_sent_before_is_finished_too() {
    let (origin, go_on) = in_parts();
    let mut gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    client.get("/slow");
    go_on.send(()).expect("the origin waits");
    let mut head = Vec::new();
    while !head.ends_with(b"first") {
        head.extend(client.read(1));
    }

    gateway.ask_to_terminate();
    refuses_connections(&gateway.address());
    go_on.send(()).expect("the origin waits");

    assert_eq!(client.read(5), b"-last");
    client.assert_closed();
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn an_upload_that_was_begun_is_finished() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst");
    eventually("the first part arrives", || origin.has_received("first"));

    gateway.ask_to_terminate();
    refuses_connections(&gateway.address());
    client.send("-last");

    assert_eq!(client.response().text(), "first-last");
    client.assert_closed();
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_gateway_with_nothing_in_flight_ends_at_once() {
    let origin = Origin::saying("fine");
    for shards in [1, 2] {
        let mut config = proxy_to(&origin);
        config["shards"] = json!(shards);
        let mut gateway = Gateway::start(config);
        assert_eq!(gateway.get("/").text(), "fine");

        assert_eq!(gateway.terminate().code(), Some(0));
    }
    eventually("its upstream connections are closed", || origin.open_connections() == 0);
}

#[test]
fn what_is_not_finished_in_time_is_given_up_and_the_exit_code_says_so() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.stall();
        }
    });
    let mut config = proxy_to(&origin);
    config["drain_timeout"] = json!("300ms");
    let mut gateway = Gateway::start(config);
    let mut client = gateway.client();
    client.get("/");
    origin.wait_for_requests(1);

    assert_eq!(gateway.terminate().code(), Some(1));

    client.read_to_end();
}

#[test]
fn a_pipelined_request_that_was_not_begun_is_not_served_any_more() {
    let (origin, go_on) = in_parts();
    let mut gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the origin has the first", || origin.has_received("/slow"));

    gateway.ask_to_terminate();
    refuses_connections(&gateway.address());
    pause(50);
    go_on.send(()).expect("the origin waits");
    go_on.send(()).expect("the origin waits");

    assert!(client.response().connection_has("close"));
    client.assert_closed();
    assert!(!origin.has_received("/never"));
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_gateway_that_drains_leaves_the_socket_of_its_successor_alone() {
    let directory = TempDir::new();
    let path = directory.join("public.sock");
    let (origin, go_on) = in_parts();
    let mut config = proxy_to(&origin);
    config["listeners"][0]["address"] = json!(format!("unix:{}", path.display()));
    let mut first = Gateway::start(config.clone());
    let mut client = first.client();
    client.get("/slow");
    eventually("the origin has it", || origin.has_received("/slow"));
    first.ask_to_terminate();
    refuses_connections(&first.address());

    let mut second = Gateway::start(config);
    go_on.send(()).expect("the origin waits");
    go_on.send(()).expect("the origin waits");
    assert_eq!(client.response().text(), "first-last");
    assert_eq!(first.wait().code(), Some(0));

    assert_eq!(second.get("/").text(), "quick");
    assert_eq!(second.terminate().code(), Some(0));
    assert!(!path.exists(), "the last one leaves the file behind");
}

#[test]
fn requests_that_came_before_the_drain_was_noticed_are_answered() {
    let origin = Origin::saying("fine");
    let mut gateway = Gateway::before(&origin);
    let mut clients: Vec<_> = (0..32).map(|_| gateway.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").response().text(), "fine");
    }

    // Stopped, so that it finds the requests and the signal in the same turn, or in two in either order.
    gateway.signal("STOP");
    for client in &mut clients {
        client.get("/");
    }
    gateway.ask_to_terminate();
    gateway.signal("CONT");

    for client in &mut clients {
        assert_eq!(client.response().text(), "fine");
        client.assert_closed();
    }
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn asking_for_metrics_does_not_hold_up_the_drain() {
    let origin = Origin::saying("fine");
    let mut config = proxy_to(&origin);
    config["shards"] = json!(2);
    let mut gateway = Gateway::start(config);
    let mut admin = Client::connect(&gateway.admin());
    admin.get("/healthz").response();
    admin.send("GET /metrics HTTP/1.1\r\n");
    pause(50);

    gateway.ask_to_terminate();
    refuses_connections(&gateway.address());
    pause(50);
    admin.send("Host: admin\r\n\r\n");

    assert_eq!(admin.response().status(), 503);
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_stalled_reader_of_the_access_log_does_not_hold_up_the_end() {
    let origin = Origin::saying("fine");
    let mut config = proxy_to(&origin);
    config["access_log"] = json!({});
    let mut gateway = Gateway::start_unread(config);
    let mut client = gateway.client();
    // More lines than a pipe holds.
    let path = format!("/{}", "x".repeat(4000));
    for _ in 0..64 {
        assert_eq!(client.get(&path).response().text(), "fine");
    }

    assert_eq!(gateway.terminate().code(), Some(0));
}
