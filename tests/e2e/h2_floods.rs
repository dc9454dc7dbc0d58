//! Clients that send what costs and asks for nothing: their connection ends with ENHANCE_YOUR_CALM, and nobody else's.

use serde_json::json;

use crate::harness::config::proxy_to;
use crate::harness::h2::frame::{PREFACE, frame};
use crate::harness::{Client, Gateway, Origin, eventually};

const ENHANCE_YOUR_CALM: u32 = 11;

/// `GET http://a/`, or a POST that goes on.
fn headers(stream: u32, ended: bool) -> Vec<u8> {
    let method = if ended { 0x82 } else { 0x83 };
    frame(1, if ended { 5 } else { 4 }, stream, [method, 0x86, 0x84, 0x01, 1, b'a'])
}

/// The error code of the GOAWAY among what a gateway has said.
fn goaway(mut said: &[u8]) -> Option<u32> {
    while said.len() >= 9 {
        let payload = u32::from_be_bytes([0, said[0], said[1], said[2]]) as usize;
        let (frame, rest) = said.split_at_checked(9 + payload)?;
        if frame[3] == 7 {
            return Some(u32::from_be_bytes(frame[13..17].try_into().expect("four bytes")));
        }
        said = rest;
    }
    None
}

fn before(origin: &Origin) -> Gateway {
    let mut config = proxy_to(origin);
    config["listeners"][0]["http2"] = json!(true);
    Gateway::start(config)
}

/// Sends these frames until the gateway closes. Returns the error code with which it does.
fn flood(gateway: &Gateway, first: &[u8], next: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let mut client: Client = gateway.client();
    client.send(PREFACE).send(frame(4, 0, 0, [])).send(first);
    for number in 0..20_000 {
        if client.try_send(next(number)).is_err() {
            break;
        }
    }
    let _ = client.try_send(frame(6, 0, 0, [0; 8]));
    goaway(&client.read_to_end())
}

#[test]
fn frames_that_cost_and_ask_for_nothing_end_their_connection_only() {
    let origin = Origin::scripted(|peer| {
        peer.request();
        peer.wait_for_close();
    });
    type Next = fn(u32) -> Vec<u8>;
    let open = [headers(1, false)].concat();
    let cases: [(&[&str], &[u8], Next); 10] = [
        (&["pings"], b"", |_| frame(6, 0, 0, [0; 8])),
        (&["settings"], b"", |_| frame(4, 0, 0, [])),
        (&["priorities"], b"", |_| frame(2, 0, 1, [0, 0, 0, 3, 9])),
        (&["empty_data"], &open, |_| frame(0, 0, 1, b"")),
        (&["window_updates"], b"", |_| frame(8, 0, 0, [0, 0, 0, 1])),
        (&["window_updates"], &open, |_| frame(8, 0, 1, [0, 0, 0, 1])),
        (&["unknown"], b"", |_| frame(0x42, 0, 0, b"x")),
        (&["resets"], &open, |_| frame(3, 0, 1, [0, 0, 0, 8])),
        // Of requests that nobody has looked at yet, or only just has.
        (&["codec", "resets"], b"", |number| {
            let stream = number * 2 + 1;
            [headers(stream, true), frame(3, 0, stream, [0, 0, 0, 8])].concat()
        }),
        // What we have to reset counts as well: here, content that is longer than was said.
        (&["codec"], b"", |number| {
            let stream = number * 2 + 1;
            let length = [0x83, 0x86, 0x84, 0x01, 1, b'a', 0x0f, 0x0d, 1, b'0'];
            [frame(1, 4, stream, length), frame(0, 0, stream, b"longer")].concat()
        }),
    ];
    for (kinds, first, next) in cases {
        let gateway = before(&origin);
        let mut other = gateway.client();
        other.get("/");
        assert_eq!(flood(&gateway, first, next), Some(ENHANCE_YOUR_CALM), "{kinds:?}");
        let metrics = gateway.metrics();
        let counted = |kind: &&str| metrics.sum("postern_http2_floods_total", &[("kind", kind)]);
        assert_eq!(kinds.iter().map(counted).sum::<f64>(), 1.0, "{kinds:?}");
        let open = || gateway.metrics().sum("postern_connections_open", &[("listener", "public")]);
        eventually("the connection is closed, and the other is open", || open() == 1.0);
    }
}

#[test]
fn requests_beyond_the_bound_are_refused_and_their_neighbours_are_served() {
    let origin = Origin::saying("hello");
    let mut config = proxy_to(&origin);
    config["listeners"][0]["http2"] = json!(true);
    config["listeners"][0]["limits"] = json!({ "max_concurrent_streams": 3 });
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    client.send(PREFACE).send(frame(4, 0, 0, []));
    for number in 0..4 {
        client.send(headers(number * 2 + 1, false));
    }
    client.send(frame(7, 0, 0, [0; 8])).finish();
    let said = client.read_to_end();
    let refused = frame(3, 0, 7, [0, 0, 0, 7]);
    assert!(said.windows(refused.len()).any(|bytes| bytes == refused), "{said:?}");
}

#[test]
fn a_head_that_does_not_end_is_not_waited_for() {
    let origin = Origin::saying("hello");
    let mut config = proxy_to(&origin);
    config["listeners"][0]["http2"] = json!(true);
    config["listeners"][0]["timeouts"] = json!({ "header": "300ms" });
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    client.send(PREFACE).send(frame(4, 0, 0, [])).send(frame(1, 0, 1, [0x82]));
    assert_eq!(goaway(&client.read_to_end()), Some(ENHANCE_YOUR_CALM));
}

#[test]
fn a_head_without_end_is_cut_off_whatever_it_is_made_of() {
    let origin = Origin::saying("hello");
    let gateway = before(&origin);
    // An empty CONTINUATION costs no memory, and still is one too many at some point.
    for piece in [&b""[..], &[b'x'; 1000]] {
        let end = flood(&gateway, &frame(1, 0, 1, [0x82, 0x86, 0x84]), |_| frame(9, 0, 1, piece));
        assert_eq!(end, Some(ENHANCE_YOUR_CALM), "{} bytes each", piece.len());
    }
}
