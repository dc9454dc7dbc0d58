//! What a backend is told about the client, and what neither side hears of the other's connection.

use serde_json::{Value, json};

use crate::harness::config::proxy_to;
use crate::harness::{Gateway, Message, Origin, Received};

/// One request through a gateway whose listener has this `forwarded` section, as the backend received it, and its response.
fn forward(forwarded: Value, fields: &str) -> (Received, Message) {
    let origin = Origin::saying("x");
    let mut config = proxy_to(&origin);
    config["listeners"][0]["forwarded"] = forwarded;
    let gateway = Gateway::start(config);
    let response =
        gateway.client().send(format!("GET / HTTP/1.1\r\nHost: shop.example:8080\r\n{fields}\r\n")).response();
    (origin.only_request(), response)
}

const LIES: &str = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: https\r\nX-FORWARDED-HOST: evil.example\r\nX-Forwarded-Port: 666\r\n\
                    X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Prefix: /evil\r\nx-forwarded-ssl: 666\r\n\
                    X-Forwarded-User: evil\r\nX-FORWARDED-CLIENT-CERT: 666\r\nX-Forwarded-: evil\r\n";

#[test]
fn the_backend_is_told_who_asks_for_what() {
    let (request, _) = forward(json!({}), "");

    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("shop.example:8080"));
    assert_eq!(request.field("host"), Some("shop.example:8080"));
    assert!(!request.has("forwarded"));
}

#[test]
fn a_clients_own_word_about_itself_is_not_passed_on() {
    let (request, _) = forward(json!({}), LIES);

    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("shop.example:8080"));
    let raw = String::from_utf8_lossy(&request.raw).into_owned();
    assert!(!raw.contains("6.6.6.6") && !raw.contains("evil") && !raw.contains("666"), "{raw}");
}

#[test]
fn a_trusted_peers_word_is_extended() {
    let trust = json!({ "trust": ["127.0.0.0/8"] });
    let told = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer.example\r\n\
                X-Forwarded-Prefix: /shop\r\n";
    let (request, _) = forward(trust, told);

    assert_eq!(request.values("x-forwarded-for").join(", "), "192.0.2.1, 192.0.2.2, 127.0.0.1");
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert_eq!(request.field("x-forwarded-host"), Some("outer.example"));
    assert_eq!(request.field("x-forwarded-prefix"), Some("/shop"));
}

#[test]
fn a_peer_outside_the_trusted_networks_is_not_trusted() {
    let (request, _) = forward(json!({ "trust": ["10.0.0.0/8", "::1"] }), LIES);

    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn forwarded_is_sent_when_asked_for_and_x_forwarded_is_not_when_not() {
    let (request, _) = forward(json!({ "forwarded": true, "x_forwarded": false }), LIES);

    let forwarded = request.field("forwarded").expect("it was asked for").to_ascii_lowercase();
    let mut pairs: Vec<&str> = forwarded.split(';').map(str::trim).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, ["for=127.0.0.1", "host=\"shop.example:8080\"", "proto=http"]);
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"] {
        assert!(!request.has(name), "{name}");
    }
}

#[test]
fn a_trusted_peers_forwarded_is_extended() {
    let trust = json!({ "forwarded": true, "trust": ["127.0.0.1"] });
    let (request, _) = forward(trust, "Forwarded: for=192.0.2.1;proto=https\r\n");

    let forwarded = request.values("forwarded").join(", ");
    assert!(forwarded.starts_with("for=192.0.2.1;proto=https, for=127.0.0.1"), "{forwarded}");
}

#[test]
fn via_names_the_protocol_of_the_request_and_extends_what_is_there() {
    let (request, _) = forward(json!({}), "Via: 1.0 fred\r\n");
    let via = request.values("via").join(", ");
    assert!(via.starts_with("1.0 fred, 1.1 "), "{via}");

    let origin = Origin::saying("x");
    let gateway = Gateway::before(&origin);
    gateway.client().send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").response();
    let via = origin.only_request().values("via").join(", ");
    assert!(via.starts_with("1.0 ") && !via.contains(','), "{via}");
}

#[test]
fn a_request_id_goes_to_both_sides_and_is_another_each_time() {
    let (first, response) = forward(json!({}), "");
    let id = first.field("x-request-id").expect("a request id");
    assert!(id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{id}");
    assert_eq!(response.field("x-request-id"), Some(id));

    let origin = Origin::saying("x");
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();
    for _ in 0..50 {
        client.get("/").response();
    }
    let mut ids: Vec<String> =
        origin.requests().iter().filter_map(|request| request.field("x-request-id").map(str::to_owned)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 50);
}

#[test]
fn a_request_id_is_taken_from_trusted_peers_only() {
    let (request, response) = forward(json!({}), "X-Request-Id: forged-by-client\r\n");
    assert_ne!(request.field("x-request-id"), Some("forged-by-client"));
    assert_eq!(request.field("x-request-id"), response.field("x-request-id"));

    let (request, response) = forward(json!({ "trust": ["127.0.0.1"] }), "X-Request-Id: from-the-edge.1\r\n");
    assert_eq!(request.field("x-request-id"), Some("from-the-edge.1"));
    assert_eq!(response.field("x-request-id"), Some("from-the-edge.1"));

    let (request, _) = forward(json!({ "trust": ["127.0.0.1"] }), "X-Request-Id: \"; forged=log line\r\n");
    assert_ne!(request.field("x-request-id"), Some("\"; forged=log line"));
}

#[test]
fn a_response_cannot_choose_the_request_id() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nX-Request-Id: from-the-origin\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::before(&origin);

    let response = gateway.get("/");

    assert_eq!(response.field("x-request-id"), origin.only_request().field("x-request-id"));
}

#[test]
fn fields_of_one_connection_stay_on_it_in_requests() {
    let (request, _) = forward(
        json!({}),
        "Connection: keep-alive, X-Private , TE\r\nConnection: x-other\r\nX-Private: 1\r\nX-Other: 2\r\nX-Public: 3\r\nKeep-Alive: timeout=9\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: trailers, deflate\r\n",
    );

    for name in ["x-private", "x-other", "keep-alive", "proxy-connection", "proxy-authorization"] {
        assert!(!request.has(name), "{name}");
    }
    assert!(!request.connection_has("x-private") && !request.connection_has("keep-alive"));
    assert!(request.values("te").iter().all(|te| *te == "trailers"), "{request:#?}");
    assert_eq!(request.field("x-public"), Some("3"));
}

#[test]
fn fields_of_one_connection_stay_on_it_in_responses() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Private\r\nX-Private: 1\r\nX-Public: 2\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
    );
    let gateway = Gateway::before(&origin);

    let response = gateway.get("/");

    for name in ["x-private", "keep-alive", "proxy-connection", "connection"] {
        assert!(!response.has(name), "{name}: {response}");
    }
    assert_eq!(response.field("x-public"), Some("2"));
}

#[test]
fn end_to_end_fields_keep_their_values_and_their_order() {
    let fields =
        "Cookie: a=1\r\nAccept:\t*/* \r\nX-Empty:\r\nX-Latin: \u{e9}\r\ncookie: b=2\r\nAuthorization: Bearer x\r\n";
    let (request, _) = forward(json!({}), fields);

    assert_eq!(request.values("cookie"), ["a=1", "b=2"]);
    assert_eq!(request.field("accept"), Some("*/*"));
    assert_eq!(request.field("x-empty"), Some(""));
    assert_eq!(request.field("x-latin"), Some("\u{c3}\u{a9}"));
    assert_eq!(request.field("authorization"), Some("Bearer x"));

    let origin = Origin::answering(
        "HTTP/1.1 418 I'm a teapot\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    );
    let response = Gateway::before(&origin).get("/");
    assert_eq!(response.values("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(response.status(), 418);
}

#[test]
fn a_name_that_some_backends_take_for_another_is_not_passed_on() {
    let (request, _) = forward(json!({}), "X_Forwarded_For: 6.6.6.6\r\nX_Real-IP: 6.6.6.6\r\nX-Real_IP: 6.6.6.6\r\n");

    let raw = String::from_utf8_lossy(&request.raw).into_owned();
    assert!(!raw.contains('_') && !raw.contains("6.6.6.6"), "{raw}");
}

#[test]
fn a_name_that_connection_takes_away_is_not_passed_on_with_an_underscore_or_as_a_trailer() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nConnection: x_hop, x-end\r\nX_Hop: 1\r\nX_Public: 2\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-End\r\n\r\n1\r\nx\r\n0\r\nX-End: 3\r\n\r\n",
    );
    let gateway = Gateway::before(&origin);
    let mut client = gateway.client();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: X-Hop\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Hop: 1\r\n\r\n");
    let response = client.response();

    assert!(!response.has("x_hop") && !response.has("trailer"), "{response}");
    assert_eq!((response.field("x_public"), response.text().as_str()), (Some("2"), "x"));
    assert!(response.trailers.is_empty(), "{response}");
    assert!(origin.only_request().trailers.is_empty(), "{:?}", origin.only_request());
    assert_eq!(client.get("/next").response().status(), 200);
}

#[test]
fn a_response_without_a_date_gets_one_and_keeps_its_own() {
    let dated = "HTTP/1.1 200 OK\r\nDATE: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::answering(dated);
    let response = Gateway::before(&origin).get("/");
    assert_eq!(response.values("date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);

    let origin = Origin::answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let response = Gateway::before(&origin).get("/");
    let date = response.field("date").expect("a date of the gateway's");
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
}
