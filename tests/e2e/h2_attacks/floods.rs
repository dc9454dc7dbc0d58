//! Frames that ask for work and carry no request (RFC 9113 section 10.5).

use super::Scene;
use crate::harness::h2::H2Client;
use crate::harness::h2::frame::{self, END_STREAM, code, kind, setting};

/// Far more than any budget, and enough for tens of megabytes of what each would cost.
const MANY: u32 = 100_000;

/// A kind of flood: what the gateway calls it, what goes before, and the frame that comes again and again.
type Case = (&'static str, fn(&mut H2Client), fn(u32) -> Vec<u8>);

const NOTHING: fn(&mut H2Client) = |_| {};

const CASES: [Case; 9] = [
    ("pings", NOTHING, |count| frame::ping(u64::from(count).to_be_bytes())),
    ("settings", NOTHING, |count| frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535 + count)])),
    ("settings", NOTHING, |_| frame::settings(&[])),
    ("priorities", NOTHING, |count| frame::priority(1 + 2 * count, 0)),
    ("window_updates", NOTHING, |_| frame::window_update(0, 1)),
    ("window_updates", open_upload, |_| frame::window_update(1, 1)),
    ("empty_data", open_upload, |_| frame::data(1, 0, "")),
    // Nothing but padding; which the codec knows.
    ("codec", open_upload, |_| frame::frame(kind::DATA, frame::PADDED, 1, [1, 0])),
    ("unknown", NOTHING, |_| frame::frame(0xbe, 0, 0, "content of a kind that nobody knows")),
];

fn open_upload(client: &mut H2Client) {
    client.send(frame::headers(1, 0, &frame::post("/wait")));
}

#[test]
fn a_flood_of_frames_ends_its_connection() {
    for (kind, prepare, unit) in CASES {
        let mut scene = Scene::new();
        let mut attacker = scene.attacker();
        prepare(&mut attacker);

        let sent = attacker.flood(MANY, unit);

        scene.serve_other();
        assert_eq!(attacker.goodbye(), code::ENHANCE_YOUR_CALM, "{kind} after {sent} frames");
        assert!(sent < 1000, "{kind}: {sent} frames were borne with");
        assert_eq!(scene.floods(kind), 1.0, "{kind}");
        scene.assert_unharmed();
    }
}

#[test]
fn a_flood_whose_answers_nobody_reads_ends_its_connection() {
    for (kind, unit) in [("pings", frame::ping(*b"whatever")), ("settings", frame::settings(&[]))] {
        let mut scene = Scene::new();
        let mut attacker = scene.attacker();
        let piece = unit.repeat(1000);

        while attacker.try_send(&piece) && scene.floods(kind) == 0.0 {
            scene.serve_other();
        }

        assert_eq!(scene.floods(kind), 1.0, "{kind}");
        assert_eq!(attacker.goodbye(), code::ENHANCE_YOUR_CALM, "{kind}");
        assert!(attacker.pings_acknowledged + attacker.settings_acknowledged < 1000, "{kind}");
        scene.assert_unharmed();
    }
}

/// What honest peers do must not be taken for a flood.
#[test]
fn a_download_in_small_steps_is_no_flood() {
    let mut scene = Scene::new();
    let mut client = H2Client::connect_with(&scene.gateway.address(), &[(setting::INITIAL_WINDOW_SIZE, 16_384)]);
    for stream in (1..20).step_by(2) {
        // The client makes room frame by frame, on the stream and on the connection.
        assert_eq!(client.get(stream, "/large").body.len(), super::LARGE);
        client.send(frame::ping(*b"measured")).send(frame::priority(stream, 0));
    }
    assert!(client.goaway.is_none());
    scene.assert_unharmed();
}

#[test]
fn acknowledgements_of_nothing_are_no_matter() {
    let mut scene = Scene::new();
    let mut client = scene.attacker();
    for _ in 0..1000 {
        client.send(frame::frame(kind::PING, frame::ACK, 0, b"whatever"));
    }
    assert_eq!(client.send(frame::headers(1, END_STREAM, &frame::get("/"))).response(1).text(), "/");
    scene.assert_unharmed();
}

/// The window of the connection is small for so many, so content comes in small frames, and an honest client makes room for each.
#[test]
fn downloads_at_once_in_small_steps_are_no_flood() {
    let mut scene = Scene::new();
    let mut client = scene.attacker();
    for stream in (1..180).step_by(2) {
        client.send(frame::headers(stream, END_STREAM, &frame::get("/medium")));
    }
    for stream in (1..180).step_by(2) {
        assert_eq!(client.response(stream).body.len(), super::MEDIUM);
    }
    scene.assert_unharmed();
}
