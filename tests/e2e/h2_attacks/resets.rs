//! Streams that end as soon as they have begun, so that no bound on open ones holds them: reset by the client (CVE-2023-44487) or, for what it
//! sends, by the gateway (CVE-2025-8671).

use super::Scene;
use crate::harness::h2::frame::{self, END_HEADERS, END_STREAM, code, kind};
use crate::harness::h2::hpack;

const MANY: u32 = 20_000;

fn stream(count: u32) -> u32 {
    2 * count + 1
}

#[test]
fn requests_that_are_reset_at_once_end_their_connection() {
    let mut scene = Scene::new();
    let mut attacker = scene.attacker();

    let sent = attacker.flood(MANY, |count| {
        let stream = stream(count);
        [frame::headers(stream, END_STREAM, &frame::get("/wait")), frame::rst_stream(stream, code::CANCEL)].concat()
    });

    scene.serve_other();
    assert_eq!(attacker.goodbye(), code::ENHANCE_YOUR_CALM, "after {sent} resets");
    assert!(sent < 500, "{sent} resets were borne with");
    assert_eq!(scene.floods("codec") + scene.floods("resets"), 1.0);
    assert!(scene.attacks_received().len() < 300);
    scene.assert_at_rest();
    scene.assert_unharmed();
}

#[test]
fn requests_that_are_reset_once_they_are_served_end_their_connection() {
    let mut scene = Scene::new();
    let mut attacker = scene.attacker();

    let mut sent = 0;
    while sent < MANY && attacker.goaway.is_none() && !attacker.is_closed {
        let stream = stream(sent);
        attacker.try_send(frame::headers(stream, END_STREAM, &frame::get("/wait")));
        // By the time that this is answered the request is under way.
        attacker.try_send(frame::ping(*b"whatever"));
        let pings = attacker.pings_acknowledged;
        attacker
            .until("the request is seen", |it| it.pings_acknowledged > pings || it.goaway.is_some() || it.is_closed);
        attacker.try_send(frame::rst_stream(stream, code::CANCEL));
        sent += 1;
        assert!(scene.working() <= 100, "work for more requests than may be open");
    }

    scene.serve_other();
    assert_eq!(attacker.goodbye(), code::ENHANCE_YOUR_CALM, "after {sent} resets");
    assert!(sent < 500, "{sent} resets were borne with");
    assert_eq!(scene.floods("resets"), 1.0);
    scene.assert_at_rest();
    scene.assert_unharmed();
}

/// Frames for which the gateway has to reset a stream that it has just been asked to serve.
#[test]
fn requests_that_have_to_be_reset_end_their_connection() {
    const POST: fn(u32, u8) -> Vec<u8> = |stream, flags| frame::headers(stream, flags, &frame::post("/wait"));
    const CALM: u32 = code::ENHANCE_YOUR_CALM;
    // The codec takes some of it for more than a stream's fault, and ends the connection the first time.
    const AT_ONCE: u32 = code::PROTOCOL_ERROR;
    type Unit = fn(u32) -> Vec<u8>;
    let cases: [(u32, &str, Unit); 9] = [
        (AT_ONCE, "an update of the window by nothing", |it| [POST(it, 0), frame::window_update(it, 0)].concat()),
        (CALM, "an update beyond the largest window", |it| {
            [POST(it, 0), frame::window_update(it, 0x7fff_ffff)].concat()
        }),
        (CALM, "a dependency on itself", |it| [POST(it, 0), frame::priority(it, it)].concat()),
        (AT_ONCE, "content behind the end", |it| [POST(it, END_STREAM), frame::data(it, 0, "late")].concat()),
        (AT_ONCE, "a head behind the end", |it| [POST(it, END_STREAM), POST(it, END_STREAM)].concat()),
        (CALM, "a second head", |it| [POST(it, 0), POST(it, 0)].concat()),
        (CALM, "more content than was said", |it| {
            let fields = [&frame::post("/wait")[..], &[("content-length", "1")]].concat();
            [frame::headers(it, 0, &fields), frame::data(it, 0, "too much")].concat()
        }),
        (AT_ONCE, "a name in capitals", |it| {
            let block = [hpack::block(&frame::get("/wait")), hpack::literal("X-Own", "1")].concat();
            frame::frame(kind::HEADERS, END_HEADERS | END_STREAM, it, block)
        }),
        (CALM, "no method", |it| frame::headers(it, END_STREAM, &frame::get("/wait")[1..])),
    ];
    for (code, what, unit) in cases {
        let mut scene = Scene::new();
        let mut attacker = scene.attacker();

        let sent = attacker.flood(MANY, |count| unit(stream(count)));

        scene.serve_other();
        assert_eq!(attacker.goodbye(), code, "{what}, after {sent}");
        assert!(sent < 500, "{what}: {sent} were borne with");
        assert_eq!(scene.floods("codec"), f64::from(code == CALM), "{what}");
        scene.assert_at_rest();
        scene.assert_unharmed();
    }
}

/// A reset may be on its way to whoever sends this, so some of it is passed over.
#[test]
fn content_for_streams_that_are_closed_ends_its_connection() {
    for (content, was_reset) in [("", false), ("x", false), ("", true), ("x", true)] {
        let mut scene = Scene::new();
        let mut attacker = scene.attacker();
        if was_reset {
            attacker.send(frame::headers(1, 0, &frame::post("/wait"))).send(frame::window_update(1, 0x7fff_ffff));
            attacker.reset_of(1);
        } else {
            attacker.get(1, "/");
        }

        let sent = attacker.flood(MANY, |_| frame::data(1, 0, content));

        scene.serve_other();
        assert_eq!(attacker.goodbye(), code::ENHANCE_YOUR_CALM, "{content:?} after {sent}");
        assert!(sent < 10_000 && attacker.resets < 200, "{content:?} after {sent}: {attacker:?}");
        assert_eq!(scene.floods("codec") + scene.floods("empty_data"), 1.0);
        scene.assert_unharmed();
    }
}
