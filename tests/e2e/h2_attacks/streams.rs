//! More requests at once than a connection may have, and content that is not what was said.

use serde_json::json;

use super::Scene;
use crate::harness::eventually;
use crate::harness::h2::frame::{self, END_STREAM, code};
use crate::harness::latin1;

#[test]
fn requests_beyond_the_bound_are_refused_and_can_be_sent_again() {
    let mut scene = Scene::with(json!({ "limits": { "max_concurrent_streams": 10 } }));
    let mut attacker = scene.attacker();
    let asked = |stream| frame::headers(stream, END_STREAM, &frame::get("/wait"));
    assert!(attacker.settings.as_ref().is_some_and(|settings| settings.contains(&(3, 10))), "{:?}", attacker.settings);

    attacker.send((1..40).step_by(2).flat_map(asked).collect::<Vec<_>>());

    for stream in (21..40).step_by(2) {
        assert_eq!(attacker.reset_of(stream), code::REFUSED_STREAM);
    }
    scene.serve_other();
    eventually("the others are served", || scene.working() == 10);
    // Room that one leaves is another's.
    attacker.send(frame::rst_stream(1, code::CANCEL));
    eventually("its work has stopped", || scene.working() == 9);
    assert_eq!(attacker.get(41, "/now").text(), "/now");
    assert!(attacker.streams().filter(|it| it.reset.is_some()).all(|it| it.reset == Some(code::REFUSED_STREAM)));
    assert!(attacker.goaway.is_none());
    scene.assert_unharmed();
}

#[test]
fn refused_requests_by_the_thousand_end_their_connection() {
    let mut scene = Scene::with(json!({ "limits": { "max_concurrent_streams": 10 } }));
    let mut attacker = scene.attacker();

    let sent = attacker.flood(20_000, |count| frame::headers(2 * count + 1, END_STREAM, &frame::get("/wait")));

    scene.serve_other();
    assert_eq!(attacker.goodbye(), code::ENHANCE_YOUR_CALM, "after {sent} requests");
    assert_eq!(scene.floods("codec"), 1.0);
    scene.assert_at_rest();
    scene.assert_unharmed();
}

/// What HTTP/1.1 behind would take for the next request, or for the end of this one.
#[test]
fn content_of_another_length_than_was_said_spoils_no_connection_to_the_backend() {
    let second = "POST /second HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n";
    for (length, content, is_ended) in [
        ("0", second, true),
        ("1", second, true),
        ("3", "ab", true),
        ("3", "", true),
        ("3", "abcd", true),
        ("3", "abcd", false),
        ("1000000", second, true),
    ] {
        let mut scene = Scene::new();
        let mut attacker = scene.attacker();
        let fields = [&frame::post("/first")[..], &[("content-length", length)]].concat();
        attacker.send(frame::headers(1, 0, &fields));
        attacker.send(frame::data(1, if is_ended { END_STREAM } else { 0 }, content));

        assert_eq!(attacker.reset_of(1), code::PROTOCOL_ERROR, "{length} for {content:?}");
        scene.assert_at_rest();
        scene.serve_other();
        assert_eq!(attacker.get(3, "/own").text(), "/own");
        for received in scene.origin.received().iter().map(|bytes| latin1(bytes)) {
            assert!(!received.contains("/second HTTP/1.1\r\n") || received.contains("/first"), "{received}");
            let first = received.find("/first");
            assert!(
                first.is_none_or(|at| !received[at..].contains("/other/") && !received[at..].contains("/own")),
                "{received}"
            );
        }
        assert!(!scene.attacks_received().iter().any(|line| line.contains("/second")));
        scene.assert_unharmed();
    }
}

#[test]
fn an_empty_end_is_an_end_and_content_of_the_right_length_arrives() {
    let mut scene = Scene::new();
    let mut client = scene.attacker();
    let fields = |length| [&frame::post("/p")[..], &[("content-length", length)]].concat();
    client.send(frame::headers(1, 0, &fields("3"))).send(frame::data(1, 0, "a")).send(frame::data(1, 0, "bc"));
    client.send(frame::data(1, END_STREAM, ""));
    assert_eq!(client.response(1).text(), "/p");
    client.send(frame::headers(3, END_STREAM, &fields("0")));
    assert_eq!(client.response(3).text(), "/p");
    // Trailers end it as well.
    client.send(frame::headers(5, 0, &fields("2"))).send(frame::data(5, 0, "ab"));
    client.send(frame::headers(5, END_STREAM, &[("x-sum", "1")]));
    assert_eq!(client.response(5).text(), "/p");
    let bodies: Vec<_> = scene.origin.requests().iter().filter(|it| it.target() == "/p").map(|it| it.text()).collect();
    assert_eq!(bodies, ["abc", "", "ab"]);
    scene.assert_unharmed();
}

#[test]
fn an_upload_that_stands_still_is_given_up() {
    let mut scene = Scene::with(json!({ "timeouts": { "body": "300ms" } }));
    let mut attacker = scene.attacker();
    for stream in (1..100).step_by(2) {
        attacker.send(frame::headers(stream, 0, &frame::post("/upload"))).send(frame::data(stream, 0, "begun"));
    }

    for stream in (1..100).step_by(2) {
        assert_eq!(attacker.response(stream).status(), 408);
        assert_eq!(attacker.reset_of(stream), code::NO_ERROR);
    }
    scene.assert_at_rest();
    assert!(scene.attacks_received().is_empty());
    scene.assert_unharmed();
}
