//! Flow control as a weapon: windows that hold responses for ever, that overflow, or that the client does not keep to (RFC 9113 section 5.2).

use serde_json::json;

use super::{LARGE, MIB, Scene};
use crate::harness::eventually;
use crate::harness::h2::H2Client;
use crate::harness::h2::frame::{self, END_STREAM, code, setting};

const STREAMS: u32 = 90;

/// Asks on many streams for what does not fit into the window.
fn stalled(scene: &Scene, streams: u32, window: u32) -> H2Client {
    let mut attacker = H2Client::connect_with(&scene.gateway.address(), &[(setting::INITIAL_WINDOW_SIZE, window)]);
    attacker.is_polite = false;
    for count in 0..streams {
        attacker.send(frame::headers(2 * count + 1, END_STREAM, &frame::get("/large")));
    }
    attacker
}

/// How many streams the server has reset.
fn resets(client: &H2Client) -> usize {
    client.streams().filter(|stream| stream.reset.is_some()).count()
}

fn assert_given_up(scene: &mut Scene, attacker: &mut H2Client, most: usize) {
    attacker.until("every response is given up", |it| resets(it) == STREAMS as usize);
    assert!(attacker.streams().all(|stream| stream.body.len() <= most));
    scene.assert_at_rest();
    let cut = scene.gateway.metrics().sum("postern_responses_incomplete_total", &[("by", "client")]);
    assert_eq!(cut, f64::from(STREAMS));
    scene.assert_unharmed();
}

#[test]
fn a_window_that_stays_closed_holds_no_response_for_ever() {
    for window in [0, 1, 1000] {
        let mut scene = Scene::with(json!({ "timeouts": { "write": "600ms" } }));
        let mut attacker = stalled(&scene, STREAMS, window);
        scene.serve_other();
        assert_given_up(&mut scene, &mut attacker, window as usize);
    }
}

#[test]
fn a_window_that_opens_byte_by_byte_holds_no_response_for_ever() {
    let mut scene = Scene::with(json!({ "timeouts": { "write": "600ms" } }));
    // So few of them that the updates are no flood.
    let mut attacker = stalled(&scene, 3, 0);
    let updates: Vec<u8> = (0..3).flat_map(|count| frame::window_update(2 * count + 1, 1)).collect();
    let mut rounds = 0;
    while resets(&attacker) < 3 {
        assert!(rounds < 60, "it goes on as long as the client likes: {attacker:?}");
        attacker.send(&updates).read_for(100);
        rounds += 1;
    }
    assert!(rounds > 2 && attacker.goaway.is_none() && attacker.streams().all(|stream| stream.body.len() <= rounds));
    scene.assert_at_rest();
    scene.assert_unharmed();
}

#[test]
fn a_window_of_the_connection_that_stays_closed_holds_no_response_for_ever() {
    let mut scene = Scene::with(json!({ "timeouts": { "write": "600ms" } }));
    let mut attacker = stalled(&scene, STREAMS, 0x7fff_ffff);
    scene.serve_other();
    assert_given_up(&mut scene, &mut attacker, 65_535);
    assert!(attacker.streams().map(|stream| stream.body.len()).sum::<usize>() <= 65_535);
}

/// Large windows, and a client that does not read: what is said to have room has none.
#[test]
fn a_client_that_reads_nothing_is_closed() {
    let mut scene = Scene::with(json!({ "timeouts": { "write": "600ms" } }));
    let mut attacker = stalled(&scene, STREAMS, 0x7fff_ffff);
    attacker.send(frame::window_update(0, 0x7fff_0000));
    scene.serve_other();
    eventually("the connection is closed", || {
        scene.gateway.metrics().sum("postern_connections_open", &[("listener", "public")]) == 0.0
    });
    scene.assert_at_rest();
    scene.assert_unharmed();
}

#[test]
fn a_slow_reader_that_makes_progress_gets_everything() {
    let mut scene = Scene::with(json!({ "timeouts": { "write": "1500ms" } }));
    let mut client = H2Client::connect_with(&scene.gateway.address(), &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    client.is_polite = false;
    client.send(frame::headers(1, END_STREAM, &frame::get("/large")));
    let step = LARGE.div_ceil(16);
    for _ in 0..16 {
        let update = u32::try_from(step).expect("small");
        client.send([frame::window_update(1, update), frame::window_update(0, update)].concat());
        client.read_for(200);
    }
    assert_eq!(client.response(1).body.len(), LARGE);
    scene.assert_unharmed();
}

#[test]
fn a_window_beyond_the_largest_is_an_error() {
    let mut scene = Scene::new();
    let mut attacker = scene.attacker();
    attacker.send(frame::headers(1, END_STREAM, &frame::get("/wait")));
    attacker.send(frame::window_update(1, 0x7fff_ffff));
    assert_eq!(attacker.reset_of(1), code::FLOW_CONTROL_ERROR);
    attacker.send(frame::window_update(0, 0x7fff_ffff));
    assert_eq!(attacker.goodbye(), code::FLOW_CONTROL_ERROR);

    let mut attacker = scene.attacker();
    attacker.send(frame::headers(1, END_STREAM, &frame::get("/wait"))).send(frame::window_update(1, 0x7fff_0000));
    attacker.send(frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0x7fff_ffff)]));
    assert_eq!(attacker.goodbye(), code::FLOW_CONTROL_ERROR);

    let mut attacker = scene.attacker();
    attacker.send(frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0x8000_0000)]));
    assert_ne!(attacker.goodbye(), code::NO_ERROR);
    scene.assert_at_rest();
    scene.assert_unharmed();
}

#[test]
fn content_beyond_the_window_of_its_stream_is_an_error() {
    let mut scene = Scene::new();
    let mut attacker = scene.attacker();
    attacker.send(frame::headers(1, 0, &frame::post("/wait")));
    // The backend takes some of it, so this is much more than the window.
    attacker.flood(500, |_| frame::data(1, 0, [b'x'; 16_384]));
    assert_eq!(attacker.reset_of(1), code::FLOW_CONTROL_ERROR);
    scene.assert_unharmed();
}

/// Requests wait for a connection to the backend, with their content.
#[test]
fn content_beyond_the_window_of_its_connection_is_an_error() {
    let mut scene = Scene::before(
        json!({ "max_connections": 1, "pending_timeout": "60s", "max_pending": 10_000 }),
        json!({ "limits": { "max_concurrent_streams": 1000 } }),
    );
    let mut attackers: Vec<_> = (0..4).map(|_| scene.attacker()).collect();
    attackers[0].send(frame::headers(1, END_STREAM, &frame::get("/wait")));
    eventually("the only connection is in use", || scene.origin.has_received("/wait"));

    for attacker in &mut attackers {
        // Within the windows of the streams, and 64 MB in all.
        attacker.flood(1000, |count| {
            let content: Vec<u8> = (0..4).flat_map(|_| frame::data(2 * count + 3, 0, [b'x'; 16_000])).collect();
            [frame::headers(2 * count + 3, 0, &frame::post("/upload")), content].concat()
        });
        assert_eq!(attacker.goodbye(), code::FLOW_CONTROL_ERROR);
    }
    assert!(!scene.attacks_received().iter().any(|line| line.contains("/upload")));
    scene.assert_unharmed();
}

#[test]
fn content_that_has_gone_on_leaves_nothing_behind() {
    let mut scene = Scene::new();
    let mut attackers: Vec<_> = (0..4).map(|_| scene.attacker()).collect();
    // 90 streams with 60 KB each, over 4 connections: 21 MB. What holds the content of one must not be held for the next.
    for attacker in &mut attackers {
        for count in 0..STREAMS {
            let stream = 2 * count + 1;
            attacker.send(frame::headers(stream, 0, &frame::post("/wait")));
            for _ in 0..4 {
                attacker.send(frame::data(stream, 0, [b'x'; 15_000]));
            }
        }
    }
    scene.serve_other();
    let content = usize::try_from(4 * STREAMS).expect("small") * 60_000;
    eventually("the backend has it", || scene.origin.received().iter().map(Vec::len).sum::<usize>() > content);
    // A megabyte under way for each connection, and 16 KiB for each stream.
    scene.assert_unharmed_at(14 * MIB);
}

#[test]
fn responses_that_wait_take_nothing_from_others() {
    let mut scene = Scene::before(json!({ "max_connections": 10_000, "max_pending": 10_000 }), json!({}));
    let mut attackers: Vec<_> = (0..12).map(|_| stalled(&scene, STREAMS, 0)).collect();
    for attacker in &mut attackers {
        attacker.until("every response waits", |it| it.streams().count() == STREAMS as usize);
    }
    for _ in 0..5 {
        let stream = scene.others_stream;
        scene.others_stream += 2;
        assert_eq!(scene.other.get(stream, "/large").body.len(), LARGE);
    }
    // 16 KiB for each stream, where a receive buffer and one that is being filled would be 128.
    scene.assert_unharmed_at(28 * MIB);
}
