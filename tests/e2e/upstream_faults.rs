//! Backends that misbehave: the client is told, or sees that the response broke off, and nobody else is the worse for it.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::harness::config::{proxy, proxy_to};
use crate::harness::{Gateway, Message, Origin, free_port, ok, pause};

/// Responses of which nothing may be passed on. The connection is closed behind each.
const MALFORMED: &[&str] = &[
    // Status lines.
    "garbage\r\n\r\n",
    "<html>HTTP/0.9 looked like this</html>",
    "HTTP/1.1 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1 20 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1 099 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1 +20 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1  200 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "http/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1\t200 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1 200 O\u{0}K\r\nContent-Length: 3\r\n\r\nxyz",
    "\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz",
    " HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "xHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    // Framing.
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nxyz\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n3\r\nxyz\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n",
    // Lines.
    "HTTP/1.1 200 OK\nContent-Length: 3\n\nxyz",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nX: a\rContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nX: a\u{0}b\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 3\r\n\r\nxyz",
    "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 3\r\n\r\nxyz",
    // Interim responses that are none.
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: xyz\r\n\r\nxyz",
    // Heads that end too early.
    "",
    "H",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
];

/// Sends the response of this number, as the target says, and closes the connection.
fn by_number(responses: &'static [&'static str]) -> Origin {
    Origin::scripted(move |peer| {
        if let Some(request) = peer.request() {
            match request.target()[1..].parse::<usize>() {
                Ok(number) => peer.send(responses[number]),
                Err(_) => peer.send(ok("fine")),
            }
        }
    })
}

fn assert_bad_gateway(response: &Message, what: &str) {
    assert_eq!(response.status(), 502, "{what}: {response}");
    assert_eq!(response.field("content-type"), Some("application/problem+json"), "{what}: {response}");
    assert!(!response.text().contains("xyz"), "{what}: {response}");
}

#[test]
fn a_malformed_response_is_a_502_and_nothing_of_it_is_passed_on() {
    let origin = by_number(MALFORMED);
    let gateway = Gateway::before(&origin);
    for (number, response) in MALFORMED.iter().enumerate() {
        let what = format!("{response:?}");
        assert_bad_gateway(&gateway.get(&format!("/{number}")), &what);
        assert_eq!(gateway.get("/fine").text(), "fine", "after {what}");
    }
}

#[test]
fn a_response_head_past_its_bounds_is_a_502() {
    let many = "X: a\r\n".repeat(20);
    let long = format!("X: {}\r\n", "a".repeat(5000));
    for fields in [many, long] {
        let origin = Origin::answering(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"));
        let mut config = proxy_to(&origin);
        config["upstreams"]["origin"]["limits"] = json!({ "max_head": "4KiB", "max_fields": 20 });
        let gateway = Gateway::start(config);
        assert_bad_gateway(&gateway.get("/"), &fields[..20]);
    }
}

#[test]
fn interim_responses_without_end_are_a_502() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            while peer.try_send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)) {}
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.get("/");
    let mut interims = 0;
    let last = loop {
        let response = client.response();
        if response.status() != 103 {
            break response;
        }
        interims += 1;
        assert!(interims < 1000);
    };

    assert_bad_gateway(&last, "a flood");
}

#[test]
fn a_reset_before_the_response_is_a_502() {
    let origin = Origin::scripted(|peer| {
        peer.request();
        peer.reset_on_close();
    });
    let gateway = Gateway::before(&origin);

    assert_bad_gateway(&gateway.get("/"), "a reset");
    assert_bad_gateway(&gateway.client().post("/", b"x").response(), "a reset");
}

/// Responses whose fault is in their content.
const BROKEN_OFF: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsho",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshorter\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nshort\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\nX : a\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nshort\r\n0\r\n\r\n",
];

#[test]
fn a_response_that_breaks_off_is_never_mistaken_for_a_complete_one() {
    let origin = by_number(BROKEN_OFF);
    let gateway = Gateway::before(&origin);
    for version in ["1.1", "1.0"] {
        for (number, response) in BROKEN_OFF.iter().enumerate() {
            let mut client = gateway.client();
            client.send(format!("GET /{number} HTTP/{version}\r\nHost: a\r\n\r\n"));
            // Where no byte has gone downstream yet, the client can be told.
            if let Ok(whole) = client.try_response("GET") {
                assert_bad_gateway(&whole, &format!("HTTP/{version}: {response:?}"));
            }
            assert_eq!(gateway.get("/fine").text(), "fine", "after {response:?}");
        }
    }
}

#[test]
fn a_response_that_breaks_off_after_a_part_ends_the_connection() {
    for close_by_reset in [false, true] {
        for framing in ["Content-Length: 10\r\n\r\nshort", "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"] {
            let origin = Origin::scripted(move |peer| {
                if peer.request().is_some() {
                    peer.send(format!("HTTP/1.1 200 OK\r\n{framing}"));
                    peer.pause(100);
                    if close_by_reset {
                        peer.reset_on_close();
                    }
                }
            });
            let gateway = Gateway::before(&origin);
            for version in ["1.1", "1.0"] {
                let mut client = gateway.client();
                client.send(format!(
                    "GET / HTTP/{version}\r\nHost: a\r\n\r\nGET /next HTTP/{version}\r\nHost: a\r\n\r\n"
                ));
                let part = client.broken_off_response("GET");
                assert!(part.contains("short") && !part.contains("\r\n0\r\n"), "{part:?}");
            }
            assert!(!origin.has_received("/next"));
        }
    }
}

#[test]
fn bytes_behind_a_response_reach_nobody_and_their_connection_is_not_used_again() {
    const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for (method, response) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n"),
    ] {
        for late in [false, true] {
            let origin = Origin::scripted(move |peer| {
                while peer.request().is_some() {
                    match late {
                        false => peer.send([response, POISON].concat()),
                        true => {
                            peer.send(response);
                            peer.pause(50);
                            peer.send(POISON);
                        }
                    }
                }
            });
            let gateway = Gateway::before(&origin);
            for round in 1..=3 {
                let mut client = gateway.client();
                client.send(format!("{method} /{round} HTTP/1.1\r\nHost: a\r\n\r\n"));
                let answer = client.response_to(method);
                assert!(!answer.text().contains("poison"), "{answer}");
                client.assert_silent();
                assert_eq!(origin.connections(), round, "{method} {response:?}, late: {late}");
            }
        }
    }
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_costs_no_request() {
    // Closes behind each response without having said so.
    let origin = Origin::answering_once(ok("fine"));
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    for _ in 0..5 {
        assert_eq!(client.post("/", b"body").response().text(), "fine");
        pause(30);
    }
    assert_eq!(origin.requests().len(), 5);
}

/// Answers the first request of each connection below `good`, and closes at every other without a word.
fn closing_at_the_second_request(good: usize, parting_word: &'static str) -> Origin {
    Origin::scripted(move |peer| {
        if peer.connection < good && peer.request().is_some() {
            peer.send(ok("fine"));
        }
        if peer.request().is_some() {
            peer.send(parting_word);
        }
    })
}

/// Requests sent, those of them that were sent again, and those that got no response, as the counters have it.
fn counted(gateway: &Gateway) -> [f64; 3] {
    let metrics = gateway.metrics();
    ["requests", "repeats", "failures"]
        .map(|what| metrics.sum(&format!("postern_upstream_{what}_total"), &[("upstream", "origin")]))
}

#[test]
fn a_request_that_raced_with_a_close_is_sent_again_once_if_it_may_be() {
    for request in [
        "GET /again HTTP/1.1\r\nHost: a\r\n\r\n",
        "DELETE /again HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /again HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    ] {
        let origin = closing_at_the_second_request(2, "");
        let gateway = Gateway::before(&origin);
        assert_eq!(gateway.get("/first").text(), "fine");

        assert_eq!(gateway.client().send(request).response().text(), "fine", "{request:?}");

        let sent: Vec<(usize, Vec<u8>)> =
            origin.requests().iter().skip(1).map(|request| (request.connection, request.body.clone())).collect();
        let body = request.split("\r\n\r\n").nth(1).unwrap_or_default().as_bytes().to_vec();
        assert_eq!(sent, [(0, body.clone()), (1, body)], "{request:?}");
        assert_eq!(counted(&gateway), [3.0, 1.0, 1.0], "{request:?}");
    }
}

#[test]
fn a_post_that_raced_with_a_close_is_not_sent_again() {
    let origin = closing_at_the_second_request(2, "");
    let gateway = Gateway::before(&origin);
    assert_eq!(gateway.get("/first").text(), "fine");

    let response = gateway.client().post("/pay", b"100").response();

    assert_bad_gateway(&response, "a closed connection");
    assert_eq!(origin.requests().iter().filter(|request| request.method() == "POST").count(), 1);
    assert_eq!(counted(&gateway), [2.0, 0.0, 1.0]);
}

#[test]
fn a_request_is_sent_again_at_most_once() {
    let origin = closing_at_the_second_request(1, "");
    let gateway = Gateway::before(&origin);
    assert_eq!(gateway.get("/first").text(), "fine");

    assert_bad_gateway(&gateway.get("/again"), "closed twice");

    assert_eq!(origin.requests().iter().filter(|request| request.target() == "/again").count(), 2);
    assert_eq!(counted(&gateway), [3.0, 1.0, 2.0]);
}

#[test]
fn a_request_on_a_fresh_connection_is_not_sent_again() {
    let origin = closing_at_the_second_request(0, "");
    let gateway = Gateway::before(&origin);

    assert_bad_gateway(&gateway.get("/"), "closed at once");

    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_request_that_was_answered_in_part_is_not_sent_again() {
    let origin = closing_at_the_second_request(2, "HTTP/1.1 2");
    let gateway = Gateway::before(&origin);
    assert_eq!(gateway.get("/first").text(), "fine");

    assert_bad_gateway(&gateway.get("/again"), "answered in part");

    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_response_to_an_unfinished_upload_is_passed_on_and_ends_both_connections() {
    let origin = Origin::scripted(|peer| {
        while let Some(head) = peer.head() {
            match head.starts_with("POST") {
                true => peer.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nfull"),
                false => peer.send(ok("fine")),
            }
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    // What is left of the content looks like a request.
    let rest = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\nstart", 5 + rest.len()));
    let refusal = client.response();
    assert_eq!((refusal.status(), refusal.text().as_str()), (413, "full"));
    assert!(refusal.connection_has("close"), "{refusal}");
    let _ = client.try_send(rest);
    client.assert_closed();

    assert_eq!(gateway.get("/innocent").text(), "fine");
    assert_eq!(origin.connections(), 2);
    assert!(origin.received()[1].starts_with(b"GET /innocent"));
}

#[test]
fn an_origin_that_answers_and_closes_in_the_middle_of_an_upload_is_heard() {
    let origin = Origin::scripted(|peer| {
        if peer.head().is_some() {
            peer.send("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
            peer.pause(300);
        }
    });
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n");
    while client.try_send([b'x'; 65_536]).is_ok() && !client.has_bytes() {}

    assert_eq!(client.response().status(), 403);
}

// === Connecting ===

#[test]
fn an_endpoint_that_refuses_connections_is_a_502() {
    let gateway = Gateway::start(proxy(&[&format!("http://127.0.0.1:{}", free_port())]));

    assert_bad_gateway(&gateway.get("/"), "refused");
    assert_bad_gateway(&gateway.client().post("/", b"x").response(), "refused");
}

/// A listener whose queue is full, so that a further connection is neither accepted nor refused; and what fills it.
fn full_listener() -> (Socket, Vec<Socket>, String) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    listener.listen(0).expect("a bound socket can listen");
    let address = listener.local_addr().expect("a bound socket has an address");
    let mut filling = Vec::new();
    for _ in 0..16 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let connected = socket.connect_timeout(&address, Duration::from_millis(100));
        filling.push(socket);
        if connected.is_err() {
            let address = address.as_socket().expect("an IPv4 address").to_string();
            return (listener, filling, address);
        }
    }
    panic!("the queue of a listener is never full");
}

#[test]
fn an_endpoint_that_does_not_answer_a_connect_is_a_504() {
    let (_listener, _filling, address) = full_listener();
    let mut config = proxy(&[&format!("http://{address}")]);
    config["upstreams"]["origin"]["timeouts"] = json!({ "connect": "200ms" });
    let gateway = Gateway::start(config);

    assert_eq!(gateway.get("/").status(), 504);
}

#[test]
fn each_upstream_has_its_own_patience_with_a_connect() {
    let (_listener, _filling, address) = full_listener();
    let mut config = proxy(&[&format!("http://{address}")]);
    config["upstreams"]["other"] = config["upstreams"]["origin"].clone();
    config["upstreams"]["origin"]["timeouts"] = json!({ "connect": "5m" });
    config["upstreams"]["other"]["timeouts"] = json!({ "connect": "200ms" });
    config["routes"] = json!([
        { "upstream": "origin", "timeout": "10m" },
        { "match": { "path": "/other" }, "upstream": "other" },
    ]);
    let gateway = Gateway::start(config);

    // Who may take longer comes first, so that one patience for both would end it first.
    let mut patient = gateway.client();
    patient.get("/patient");
    crate::harness::eventually("it is being connected", || {
        gateway.metrics().sum("postern_upstream_connections_open", &[("upstream", "origin")]) == 1.0
    });
    assert_eq!(gateway.get("/other").status(), 504);

    patient.assert_silent();
    let failures =
        |upstream| gateway.metrics().sum("postern_upstream_connect_failures_total", &[("upstream", upstream)]);
    assert_eq!((failures("origin"), failures("other")), (0.0, 1.0));
}

#[test]
fn an_endpoint_that_comes_back_is_used_again() {
    let port = free_port();
    let gateway = Gateway::start(proxy(&[&format!("http://127.0.0.1:{port}")]));
    assert_bad_gateway(&gateway.get("/"), "refused");

    let listener = TcpListener::bind(("127.0.0.1", port));
    drop(listener.expect("nobody has taken the port"));
    let _origin = Origin::scripted_at(([127, 0, 0, 1], port).into(), |peer| {
        while peer.request().is_some() {
            peer.send(ok("back"));
        }
    });

    assert_eq!(gateway.get("/").text(), "back");
}

// === Time ===

#[test]
fn no_first_byte_in_time_is_a_504_and_the_connection_is_not_used_again() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/stall" {
                peer.pause(600);
                peer.send(ok("late"));
            } else {
                peer.send(ok("fine"));
            }
        }
    });
    let mut config = proxy_to(&origin);
    config["upstreams"]["origin"]["timeouts"] = json!({ "first_byte": "200ms" });
    let gateway = Gateway::start(config);

    assert_eq!(gateway.get("/stall").status(), 504);
    for _ in 0..3 {
        assert_eq!(gateway.get("/fine").text(), "fine");
        pause(200);
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_response_that_stalls_half_way_is_broken_off() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            peer.stall();
        }
    });
    let mut config = proxy_to(&origin);
    config["upstreams"]["origin"]["timeouts"] = json!({ "idle": "200ms" });
    let gateway = Gateway::start(config);

    let part = gateway.client().get("/").broken_off_response("GET");

    assert!(part.contains("first") && !part.contains("\r\n0\r\n"), "{part}");
    crate::harness::eventually("the stalled connection is closed", || origin.open_connections() == 0);
}

#[test]
fn a_request_past_its_time_is_a_504_whatever_it_waits_for() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.stall();
        }
    });
    let mut config = proxy_to(&origin);
    config["routes"][0]["timeout"] = json!("200ms");
    let gateway = Gateway::start(config);

    let response = gateway.get("/");

    assert_eq!(response.status(), 504, "{response}");
    crate::harness::eventually("the stalled connection is closed", || origin.open_connections() == 0);
}

#[test]
fn a_response_that_drips_past_the_requests_time_is_broken_off() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while peer.try_send("1\r\nx\r\n") {
                peer.pause(50);
            }
        }
    });
    let mut config = proxy_to(&origin);
    config["routes"][0]["timeout"] = json!("400ms");
    let gateway = Gateway::start(config);

    let part = gateway.client().get("/").broken_off_response("GET");

    assert!(part.contains("1\r\nx\r\n"), "{part}");
}
