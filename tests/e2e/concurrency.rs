//! Many at once: everybody gets their own, whoever leaves in between, and nothing is left behind.

use std::sync::{Mutex, mpsc};
use std::thread;

use serde_json::json;

use crate::harness::config::{proxy, proxy_to};
use crate::harness::{Client, Gateway, Origin, eventually, free_port, pause};

const CLIENTS: usize = 50;
const REQUESTS: usize = 200;
const ABORTERS: usize = 4;

/// Content that no other request has, of a length that varies from nothing to more than a buffer.
fn content(client: usize, request: usize) -> Vec<u8> {
    let length = match (client + request) % 16 {
        0 => 20_000,
        kind => kind * 37,
    };
    format!("<{client}.{request}>").into_bytes().into_iter().cycle().take(length).collect()
}

fn ask_and_compare(gateway: &Gateway, client: usize) {
    let mut connection = gateway.client();
    for request in 0..REQUESTS {
        let content = content(client, request);
        let response = connection.post(&format!("/{client}/{request}"), &content).response();
        assert!(response.body == content, "client {client}, request {request}: {response}");
        // Some connections are left for new ones, as are those that the gateway will close.
        if (client + request) % 40 == 39 || response.connection_has("close") {
            connection = gateway.client();
        }
    }
}

/// Leaves in the middle of requests and of responses, in ways that follow from the number.
fn abort(gateway: &Gateway, aborter: usize) {
    for round in 0..60 {
        let request = format!("POST /abort HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n{}", "z".repeat(9000));
        let cut = (aborter * 7919 + round * 104_729) % (request.len() + 1);
        let mut connection = gateway.client();
        let _ = connection.try_send(&request[..cut]);
        if round % 3 == 0 && cut == request.len() {
            connection.read(40);
        }
        match round % 2 {
            0 => connection.reset(),
            _ => drop(connection),
        }
    }
}

#[test]
fn every_client_gets_its_own_bytes_while_others_abort_and_nothing_leaks() {
    let origin = Origin::echo();
    let mut config = proxy_to(&origin);
    config["shards"] = json!(2);
    config["upstreams"]["origin"]["keepalive"] = json!({ "idle": "300ms" });
    let gateway = Gateway::start(config);
    assert_eq!(gateway.get("/").status(), 200);
    eventually("the first connection is closed", || origin.open_connections() == 0);
    let before = gateway.descriptors();

    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let gateway = &gateway;
            scope.spawn(move || ask_and_compare(gateway, client));
        }
        for aborter in 0..ABORTERS {
            let gateway = &gateway;
            scope.spawn(move || abort(gateway, aborter));
        }
    });

    for request in origin.requests() {
        let own = request.target() == "/abort" && request.body.iter().all(|byte| *byte == b'z');
        let path: Vec<usize> = request.target().split('/').filter_map(|part| part.parse().ok()).collect();
        let right = matches!(path.as_slice(), [client, number] if request.body == content(*client, *number));
        assert!(own || right || request.target() == "/", "{request:#?}");
    }
    eventually("every upstream connection is closed", || origin.open_connections() == 0);
    // The scrape that may just be under way has one of its own.
    eventually("every descriptor is closed", || gateway.descriptors() <= before + 1);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("postern_task_panics_total", &[]), 0.0);
    assert_eq!(metrics.sum("postern_connections_open", &[("listener", "public")]), 0.0);
    assert_eq!(metrics.sum("postern_requests_open", &[("listener", "public")]), 0.0);
    assert_eq!(metrics.sum("postern_upstream_connections_open", &[]), 0.0);
}

#[test]
fn a_thousand_idle_connections_disturb_nobody() {
    let origin = Origin::naming_targets();
    let gateway = Gateway::before(&origin);
    let mut idle: Vec<Client> = (0..1000).map(|_| gateway.client()).collect();

    assert_eq!(gateway.get("/active").text(), "/active");
    for (number, client) in idle.iter_mut().enumerate().step_by(50) {
        let path = format!("/{number}");
        assert_eq!(client.get(&path).response().text(), path);
    }

    assert_eq!(origin.connections(), 1);
    drop(idle);
    eventually("all are gone", || gateway.metrics().sum("postern_connections_open", &[("listener", "public")]) == 0.0);
}

#[test]
fn a_stalled_reader_of_the_log_holds_up_nobody() {
    let mut config = proxy(&[&format!("http://127.0.0.1:{}", free_port())]);
    config["log"] = json!({ "level": "debug" });
    let mut gateway = Gateway::start_unread(config);
    let mut client = gateway.client();

    // A line each, more than a pipe and the lines on their way hold together.
    for _ in 0..3000 {
        let status = client.get("/").response().status();
        assert!(status == 502 || status == 503, "{status}");
    }

    assert_eq!(gateway.terminate().code(), Some(0));
}

#[test]
fn a_warning_per_request_is_written_once_per_second_at_most() {
    let origin = Origin::answering("HTTP/9.9 nonsense\r\n\r\n");
    let mut gateway = Gateway::before(&origin);

    for _ in 0..40 {
        assert_eq!(gateway.get("/").status(), 502);
    }

    assert_eq!(gateway.terminate().code(), Some(0));
    let lines = gateway.stderr().matches("malformed response").count();
    assert!((1..40).contains(&lines), "{lines} lines");
}

/// The gateway finds both at once, and can finish neither the response nor the request.
#[test]
fn a_client_that_leaves_in_the_moment_in_which_its_response_begins_costs_only_itself() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::scripted(move |peer| {
        peer.request();
        wait.lock().expect("one peer at a time").recv().expect("the test goes on");
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe beginning");
        peer.stall();
    });
    let gateway = Gateway::before(&origin);
    let mut asked = 0;
    for leave in [Client::reset, drop] {
        let mut client = gateway.client();
        client.get("/");
        asked += 1;
        origin.wait_for_requests(asked);
        gateway.signal("STOP");
        go.send(()).expect("the origin waits");
        pause(50);
        leave(client);
        pause(50);
        gateway.signal("CONT");
        eventually("it is over", || gateway.metrics().sum("postern_requests_open", &[("listener", "public")]) == 0.0);
    }
    assert_eq!(gateway.metrics().sum("postern_task_panics_total", &[]), 0.0);
}
