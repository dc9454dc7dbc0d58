//! Chunks that end in two places. The head may be at the backend already when the fault is found, and the connection to it then ends:
//! what matters is that nothing behind the fault is ever taken for content or for a request.

use super::{SMUGGLED, Scene};

const HEAD: &str = "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Chunked content that is broken somewhere.
const BROKEN: &[&str] = &[
    // Sizes that are not 1 to 16 hexadecimal digits.
    "0x5\r\nabcde\r\n0\r\n\r\n",
    "+5\r\nabcde\r\n0\r\n\r\n",
    "-5\r\nabcde\r\n0\r\n\r\n",
    " 5\r\nabcde\r\n0\r\n\r\n",
    "\t5\r\nabcde\r\n0\r\n\r\n",
    "5_\r\nabcde\r\n0\r\n\r\n",
    "g\r\nabcde\r\n0\r\n\r\n",
    "\r\nabcde\r\n0\r\n\r\n",
    "5,5\r\nabcde\r\n0\r\n\r\n",
    "00000000000000005\r\nabcde\r\n0\r\n\r\n",
    "10000000000000000\r\nabcde\r\n0\r\n\r\n",
    "10000000000000005\r\nabcde\r\n0\r\n\r\n",
    "\u{665}\r\nabcde\r\n0\r\n\r\n",
    // Line ends that are none (TERM.EXT and EXT.TERM).
    "5\nabcde\r\n0\r\n\r\n",
    "5\rabcde\r\n0\r\n\r\n",
    "5\r\r\nabcde\r\n0\r\n\r\n",
    "5;\nabcde\r\n0\r\n\r\n",
    "5;a\nxx\r\nabcde\r\n0\r\n\r\n",
    "5;a=\"\nxx\"\r\nabcde\r\n0\r\n\r\n",
    "5;a\rxx\r\nabcde\r\n0\r\n\r\n",
    "5;a\u{0}\r\nabcde\r\n0\r\n\r\n",
    // Content that is longer or shorter than its size.
    "5\r\nabcdefg\r\n0\r\n\r\n",
    "5\r\nabcde0\r\n\r\n",
    "5\r\nabcde\n0\r\n\r\n",
    "5\r\nabcde\r0\r\n\r\n",
    "5\r\nabcde\r\r\n0\r\n\r\n",
    "5\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n\r\n0\r\n\r\n",
    // The last chunk and what is behind it.
    "0\n\r\n",
    "0\r\r\n",
    "0\r\n\n",
    "0\r\nX\r\n\r\n",
    "0\r\n X: a\r\n\r\n",
    "0\r\nX : a\r\n\r\n",
    "0\r\nX: a\n\r\n",
    "0\r\nX: a\u{0}\r\n\r\n",
    "0\r\nX: a\r\n b\r\n\r\n",
    "0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
];

#[test]
fn broken_chunks_are_refused_and_nothing_behind_the_fault_is_passed_on() {
    let scene = Scene::new();
    for content in BROKEN {
        let mut client = scene.gateway.client();
        client.send([HEAD, content, SMUGGLED].concat());
        let what = format!("{content:?}");
        assert_eq!(super::refusal(&mut client, &what).status(), 400, "{what}");
        assert_not_fooled(&scene, &what);
    }
}

#[test]
fn broken_chunks_are_refused_also_when_the_head_has_been_passed_on() {
    let scene = Scene::new();
    for content in BROKEN {
        let mut client = scene.gateway.client();
        let bytes = [HEAD, "3\r\nabc\r\n", content, SMUGGLED].concat();
        let what = format!("{content:?} after a good chunk");
        client.send_split(bytes.as_bytes(), &[HEAD.len(), HEAD.len() + 8]);
        assert_eq!(super::refusal(&mut client, &what).status(), 400, "{what}");
        assert_not_fooled(&scene, &what);
    }
}

#[test]
fn a_chunk_extension_is_cut_where_it_is_and_refused_where_it_is_long() {
    let scene = Scene::new();
    let long = "x".repeat(20_000);
    let mut client = scene.gateway.client();

    client.send(format!("{HEAD}5;{long}\r\nabcde\r\n0\r\n\r\n{SMUGGLED}"));

    assert_eq!(super::refusal(&mut client, "a long extension").status(), 400);
    assert_not_fooled(&scene, "a long extension");
    assert!(!scene.origin.has_received("xxxxx"));
}

#[test]
fn many_small_chunk_extensions_are_refused_too() {
    let scene = Scene::new();
    let mut client = scene.gateway.client();
    let chunk = format!("1;{}\r\na\r\n", "y".repeat(100));

    let _ = client.try_send(format!("{HEAD}{}0\r\n\r\n{SMUGGLED}", chunk.repeat(1000)));

    assert_eq!(super::refusal(&mut client, "many extensions").status(), 400);
    assert_not_fooled(&scene, "many extensions");
    assert!(!scene.origin.has_received("yyyyy"));
}

#[test]
fn trailers_without_end_are_refused() {
    let scene = Scene::new();
    for trailers in ["X-Trailer: a\r\n".repeat(5000), format!("X-Trailer: {}\r\n", "a".repeat(100_000))] {
        let mut client = scene.gateway.client();
        let _ = client.try_send(format!("{HEAD}3\r\nabc\r\n0\r\n{trailers}\r\n{SMUGGLED}"));
        let refusal = super::refusal(&mut client, "long trailers");
        assert!(matches!(refusal.status(), 400 | 431), "{refusal}");
        assert_not_fooled(&scene, "long trailers");
    }
}

#[test]
fn content_that_ends_too_early_is_never_completed() {
    let scene = Scene::new();
    for content in ["5\r\nabc", "5\r\nabcde\r\n", "5\r\nabcde\r\n0\r\n", "5", ""] {
        let mut client = scene.gateway.client();
        client.send([HEAD, content].concat()).finish();
        // There is nobody to answer any more, or there is a 400; a 200 there is not.
        if let Ok(response) = client.try_response("POST") {
            assert_eq!(response.status(), 400, "{content:?}");
        }
        assert_not_fooled(&scene, content);
    }
}

/// The backend has got no whole request but innocent ones, and nothing of what was smuggled.
fn assert_not_fooled(scene: &Scene, what: &str) {
    scene.assert_untouched(what);
}
