//! Disagreement about where a request's content ends.

use super::{SMUGGLED, Scene, post};

/// Fields of which no two parties may make different things. All are refused as 400.
const AMBIGUOUS: &[&str] = &[
    // Content-Length beside Transfer-Encoding (RFC 9112 section 6.1).
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    // Several lengths (section 6.3), also when they agree: somebody may take the list for a number.
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\ncontent-length: 0\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: 5,6\r\n",
    "Content-Length: 0, 5\r\n",
    // Lengths that are not digits.
    "Content-Length: +5\r\n",
    "Content-Length: -5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length: 5.0\r\n",
    "Content-Length: 5e0\r\n",
    "Content-Length: five\r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length: 5;\r\n",
    "Content-Length: \"5\"\r\n",
    "Content-Length: 1_0\r\n",
    "Content-Length:\r\n",
    "Content-Length: \r\n",
    "Content-Length: \u{665}\r\n",
    // Lengths that are no number of this world: 2^64 and more.
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: 18446744073709551621\r\n",
    "Content-Length: 99999999999999999999999999\r\n",
    // Transfer-Encoding that is not exactly `chunked`.
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunkedx\r\n",
    "Transfer-Encoding: chunk\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding: chunked ; q=1\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: 'chunked'\r\n",
    "Transfer-Encoding: chunked,\r\n",
    "Transfer-Encoding: ,chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding:\r\n",
    "Transfer-Encoding: \u{b}chunked\r\n",
    "Transfer-Encoding: chunked\u{b}\r\n",
    "Transfer-Encoding: \u{c}chunked\r\n",
    "Transfer-Encoding: chunked\u{0}\r\n",
    "Transfer-Encoding: chunked\u{7f}\r\n",
    "Transfer-Encoding: chunked\u{a0}\r\n",
    "Transfer-Encoding:\u{a0}chunked\r\n",
    "Transfer-Encoding: chun ked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: x\r\nTransfer-encoding: chunked\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding\t: chunked\r\n",
    "Content-Length : 5\r\n",
    " Transfer-Encoding: chunked\r\n",
    "X: y\r\n\tTransfer-Encoding: chunked\r\n",
    "X: y\nTransfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    "Foo\r\nTransfer-Encoding: chunked\r\n",
];

/// Content that ends in one place by length, in another by chunks, and in a third by neither.
const CONTENT: &str = "0\r\n\r\n";

#[test]
fn ambiguous_framing_is_refused_and_reaches_no_backend() {
    let scene = Scene::new();
    for lines in AMBIGUOUS {
        // `gzip, chunked` and the like are well-formed: 501 is as right for a coding that is not known.
        let status = if lines.contains("identity\r\nTransfer-Encoding: chunked") || lines.contains("x\r\nTransfer-enc")
        {
            400..=501
        } else {
            400..=400
        };
        scene.refuse_with_one_of(lines, &post(lines, CONTENT), status);
    }
}

#[test]
fn a_coding_that_is_not_known_is_refused_with_501() {
    let scene = Scene::new();
    for lines in ["Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: deflate,chunked\r\n"] {
        scene.refuse(lines, &post(lines, CONTENT), 501);
    }
}

#[test]
fn http_1_0_has_no_transfer_encoding() {
    let scene = Scene::new();
    for lines in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.0\r\nHost: a\r\n{lines}\r\n{CONTENT}{SMUGGLED}");
        scene.refuse(lines, bytes.as_bytes(), 400);
    }
}

#[test]
fn a_refusal_does_not_depend_on_where_the_bytes_are_cut() {
    let scene = Scene::new();
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\u{b}\r\n",
        "Content-Length: 5, 5\r\n",
    ] {
        let bytes = post(lines, CONTENT);
        for cut in 1..bytes.len() - SMUGGLED.len() {
            let mut client = scene.gateway.client();
            client.send_split(&bytes, &[cut]);
            let what = format!("{lines:?} cut at {cut}");
            assert_eq!(super::refusal(&mut client, &what).status(), 400, "{what}");
        }
        scene.assert_untouched(lines);
    }
}

#[test]
fn a_refusal_ends_the_connection_also_for_requests_before_it() {
    let scene = Scene::new();
    let mut client = scene.gateway.client();
    let bad = post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", CONTENT);

    client.send([b"GET /innocent HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(), &bad].concat());

    assert_eq!(client.response().text(), "/innocent");
    assert_eq!(super::refusal(&mut client, "the second of two").status(), 400);
    scene.assert_untouched("a refused request behind a good one");
}

#[test]
fn connection_cannot_take_framing_or_routing_away() {
    let scene = Scene::new();
    for name in ["Host", "Content-Length", "Transfer-Encoding", "host", "content-LENGTH"] {
        let lines = format!("Connection: close, {name}\r\nContent-Length: 5\r\n");
        scene.refuse(&lines, &post(&lines, CONTENT), 400);
    }
}

#[test]
fn a_get_with_content_takes_its_content_along() {
    let scene = Scene::new();
    let mut client = scene.gateway.client();
    let inner = SMUGGLED.replace("muggled", "ubmitted");

    client.send(format!("GET /innocent HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()));
    assert_eq!(client.response().text(), "/innocent");

    assert_eq!(scene.origin.only_request().text(), inner);
    client.assert_silent();
}
