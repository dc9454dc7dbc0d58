//! Heads that are larger than they look, have more fields, or do not end (CVE-2024-27316, CVE-2026-49975).

use serde_json::json;

use super::Scene;
use crate::harness::h2::frame::{self, END_HEADERS, END_STREAM, code, kind};
use crate::harness::h2::hpack;

/// HEADERS and as many CONTINUATION frames as it takes.
fn head(stream: u32, block: &[u8]) -> Vec<u8> {
    let pieces: Vec<&[u8]> = block.chunks(16_384).collect();
    let last = pieces.len() - 1;
    let frames = pieces.iter().enumerate().flat_map(|(index, piece)| {
        let (kind, flags) = if index == 0 { (kind::HEADERS, END_STREAM) } else { (kind::CONTINUATION, 0) };
        frame::frame(kind, flags | if index == last { END_HEADERS } else { 0 }, stream, piece)
    });
    frames.collect()
}

/// The fields of a request, and these behind them.
fn request(more: &[u8]) -> Vec<u8> {
    [&hpack::block(&frame::get("/head")), more].concat()
}

fn numbered(count: usize) -> Vec<u8> {
    (0..count).flat_map(|index| hpack::literal(format!("x-{index}"), "v")).collect()
}

#[test]
fn a_head_has_a_bound_for_its_fields_and_one_for_its_crumbs_of_cookies() {
    let crumbs = |count: usize| hpack::literal("cookie", "a=b").repeat(count);
    let mut scene = Scene::new();
    let mut client = scene.attacker();
    let mut streams = (1..).step_by(2);
    for (more, status) in [
        (numbered(99), 200),
        (numbered(101), 431),
        (hpack::literal("x-same", "v").repeat(101), 431),
        (crumbs(128), 200),
        (crumbs(129), 431),
        // Host and the cookie that the crumbs become are fields, too.
        ([numbered(98), crumbs(128)].concat(), 200),
        (hpack::literal("x-large", "v".repeat(16_000)), 200),
        (hpack::literal("x-large", "v".repeat(16_400)), 431),
        (hpack::literal("v".repeat(16_400), "x-large"), 431),
        (hpack::literal("cookie", "v".repeat(16_400)), 431),
    ] {
        let stream = streams.next().expect("endless");
        let asked = scene.origin.requests().len();

        let answer = client.send(head(stream, &request(&more))).response(stream);

        let start = &more[..more.len().min(20)];
        assert_eq!(answer.status(), status, "{} bytes from {:?} on", more.len(), String::from_utf8_lossy(start));
        assert_eq!(scene.origin.requests().len() - asked, usize::from(status == 200));
    }
    let metrics = scene.gateway.metrics();
    for kind in ["too-many-fields", "head-too-long"] {
        assert_eq!(metrics.sum("postern_problems_total", &[("kind", kind)]), 3.0, "{kind}");
    }
    scene.assert_unharmed();
}

#[test]
fn an_entry_of_the_table_that_is_named_thousands_of_times_is_no_larger_than_it_is() {
    let bombs = [
        // 4,000 bytes by one: 64 MB in one frame.
        [hpack::remembered("x-bomb", &"v".repeat(4000)), hpack::indexed(62).repeat(16_000)].concat(),
        [hpack::remembered("cookie", &"v".repeat(4000)), hpack::indexed(62).repeat(16_000)].concat(),
        // Nothing by one, but a field all the same.
        [hpack::remembered("x", ""), hpack::indexed(62).repeat(16_000)].concat(),
        [hpack::remembered("cookie", ""), hpack::indexed(62).repeat(16_000)].concat(),
        // Over several frames.
        [hpack::remembered("x-bomb", &"v".repeat(4000)), hpack::indexed(62).repeat(80_000)].concat(),
    ];
    for bomb in bombs {
        let mut scene = Scene::new();
        let mut attackers: Vec<_> = (0..8).map(|_| scene.attacker()).collect();
        for attacker in &mut attackers {
            attacker.try_send(head(1, &request(&bomb)));
        }
        scene.serve_other();
        for attacker in &mut attackers {
            attacker.until("the bomb is refused", |it| it.goaway.is_some() || it.stream(1).is_ended);
            match &attacker.goaway {
                Some(goaway) => assert_eq!(goaway.code, code::ENHANCE_YOUR_CALM),
                None => assert_eq!(attacker.stream(1).status(), 431),
            }
        }
        assert!(scene.attacks_received().is_empty());
        scene.assert_unharmed();
    }
}

#[test]
fn a_small_bomb_again_and_again_is_answered_and_costs_nothing_that_stays() {
    let mut scene = Scene::new();
    let mut attacker = scene.attacker();
    attacker.send(head(1, &request(&hpack::remembered("x-bomb", &"v".repeat(4000)))));
    assert_eq!(attacker.response(1).status(), 200);
    for stream in (3..1000).step_by(2) {
        let answer = attacker.send(head(stream, &request(&hpack::indexed(62).repeat(6)))).response(stream);
        assert_eq!(answer.status(), 431);
    }
    assert_eq!(scene.attacks_received().len(), 1);
    scene.assert_unharmed();
}

#[test]
fn continuations_without_end_are_cut_off() {
    let empty = frame::frame(kind::CONTINUATION, 0, 1, []);
    let piece = frame::frame(kind::CONTINUATION, 0, 1, hpack::literal("x-own", "v".repeat(1000)).repeat(16));
    let crumbs = frame::frame(kind::CONTINUATION, 0, 1, hpack::literal("cookie", ""));
    // A string that is said to have 200 MB, so that nothing can be decoded before it is there.
    let endless = frame::frame(kind::CONTINUATION, 0, 1, "v".repeat(16_384));
    let long = [0x00, 0x01, b'x', 0x7f, 0x80, 0xc2, 0xd7, 0x5f];
    for (begin, unit) in [(&[][..], empty), (&[], piece), (&[], crumbs), (&long, endless)] {
        let mut scene = Scene::new();
        let mut attacker = scene.attacker();
        attacker.send(frame::frame(kind::HEADERS, END_STREAM, 1, request(begin)));

        let sent = attacker.flood(5000, |_| unit.clone());

        scene.serve_other();
        let code = attacker.goodbye();
        assert!([code::ENHANCE_YOUR_CALM, code::COMPRESSION_ERROR].contains(&code), "{code} after {sent} frames");
        assert!(sent < 100, "{sent} frames were borne with");
        assert!(scene.attacks_received().is_empty());
        scene.assert_unharmed();
    }
}

#[test]
fn a_head_that_does_not_end_in_time_ends_its_connection() {
    let mut scene = Scene::with(json!({ "timeouts": { "header": "400ms" } }));
    let mut attacker = scene.attacker();
    attacker.send(frame::headers(1, END_STREAM, &frame::get("/wait")));
    let mut slow = scene.attacker();
    slow.get(1, "/");
    slow.send(frame::frame(kind::HEADERS, END_STREAM, 3, request(&[])));

    // What comes bit by bit is not in time either.
    let end = attacker.send(frame::frame(kind::HEADERS, 0, 3, request(&[])));
    for _ in 0..4 {
        end.read_for(120);
        end.try_send(frame::frame(kind::CONTINUATION, 0, 3, hpack::literal("x", "y")));
    }

    assert_eq!(attacker.goodbye(), code::ENHANCE_YOUR_CALM, "{attacker:?}");
    assert_eq!(slow.goodbye(), code::ENHANCE_YOUR_CALM);
    assert_eq!(scene.attacks_received(), ["GET / HTTP/1.1"]);
    scene.assert_unharmed();
}
