//! Heads whose lines can be told apart in two ways, and heads that say twice for whom they are.

use super::{SMUGGLED, Scene, get};

#[test]
fn lines_that_are_no_field_lines_are_refused() {
    let scene = Scene::new();
    for line in [
        // Folded lines (RFC 9112 section 5.2).
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X:\r\n Host: b",
        // White space before the colon (section 5.1), and no colon, no name, or no token for a name.
        "X : a",
        "X\t: a",
        "X a",
        ": a",
        "X Y: a",
        "X(Y): a",
        "X/Y: a",
        "X\"Y: a",
        "X@Y: a",
        "X\u{e9}: a",
        "X\u{0}: a",
        "X\u{b}: a",
        "X\u{7f}: a",
        // Control bytes in a value (RFC 9110 section 5.5).
        "X: a\u{0}b",
        "X: a\u{1}b",
        "X: a\u{b}b",
        "X: a\u{1b}b",
        "X: a\u{7f}b",
        // Line ends that are none (RFC 9112 section 2.2).
        "X: a\nY: b",
        "X: a\rY: b",
        "X: a\r\rY: b",
        "X: a\n\nGET /smuggled HTTP/1.1\r\nHost: a",
        "X: a\r\r\nY: b",
        "X\n: a",
        "X\r: a",
    ] {
        scene.refuse(&format!("{line:?}"), &get(line), 400);
    }
}

#[test]
fn white_space_before_the_first_field_is_refused() {
    let scene = Scene::new();
    for first in [" X: a", "\tX: a", " Host: b", "  "] {
        let bytes = format!("GET / HTTP/1.1\r\n{first}\r\nHost: a\r\n\r\n{SMUGGLED}");
        scene.refuse(&format!("{first:?}"), bytes.as_bytes(), 400);
    }
}

#[test]
fn bare_line_feeds_end_nothing() {
    let scene = Scene::new();
    for bytes in [
        format!("GET / HTTP/1.1\nHost: a\n\n{SMUGGLED}"),
        format!("GET / HTTP/1.1\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET / HTTP/1.1\r\nHost: a\n\r\n{SMUGGLED}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n\n{SMUGGLED}"),
        format!("GET / HTTP/1.1\r\nHost: a\n\n{SMUGGLED}"),
        format!("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET / HTTP/1.1\rHost: a\r\r{SMUGGLED}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n{SMUGGLED}"),
    ] {
        scene.refuse(&format!("{bytes:?}"), bytes.as_bytes(), 400);
    }
}

#[test]
fn a_request_line_is_three_words_with_one_space_between_each() {
    let scene = Scene::new();
    for (line, status) in [
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/3.0", 505),
        ("GET / HTTP/0.9", 505),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/1.", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/01.1", 400),
        ("GET / HTTPS/1.1", 400),
        ("GET / HTTP /1.1", 400),
        ("GET / HTTP/1,1", 400),
        ("GET /", 400),
        ("GET", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET /\tHTTP/1.1", 400),
        ("GET / a HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("G(T / HTTP/1.1", 400),
        ("G\u{0}T / HTTP/1.1", 400),
        ("G\u{e9}T / HTTP/1.1", 400),
        ("GET: / HTTP/1.1", 400),
        ("GET /\u{0} HTTP/1.1", 400),
        ("GET /\u{7f} HTTP/1.1", 400),
        ("GET /\u{e9} HTTP/1.1", 400),
        ("GET /a\rb HTTP/1.1", 400),
        ("GET ftp://a/ HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET a HTTP/1.1", 400),
        ("GET http:///x HTTP/1.1", 400),
    ] {
        scene.refuse(line, format!("{line}\r\nHost: a\r\n\r\n{SMUGGLED}").as_bytes(), status);
    }
}

#[test]
fn a_request_says_exactly_once_for_which_host_it_is() {
    let scene = Scene::new();
    for (line, fields) in [
        ("GET / HTTP/1.1", ""),
        ("GET / HTTP/1.1", "Host: a\r\nHost: b\r\n"),
        ("GET / HTTP/1.1", "Host: a\r\nHost: a\r\n"),
        ("GET / HTTP/1.0", "Host: a\r\nHost: b\r\n"),
        ("GET / HTTP/1.1", "Host: a, b\r\n"),
        ("GET / HTTP/1.1", "Host: a b\r\n"),
        ("GET / HTTP/1.1", "Host: a/b\r\n"),
        ("GET / HTTP/1.1", "Host: a?b\r\n"),
        ("GET / HTTP/1.1", "Host: a#b\r\n"),
        ("GET / HTTP/1.1", "Host: user@a\r\n"),
        ("GET / HTTP/1.1", "Host: http://a\r\n"),
        ("GET / HTTP/1.1", "Host: a:b\r\n"),
        ("GET / HTTP/1.1", "Host: a:99999\r\n"),
        ("GET / HTTP/1.1", "Host: a:80:80\r\n"),
        ("GET / HTTP/1.1", "Host: [::1\r\n"),
        ("GET / HTTP/1.1", "Host: ::1\r\n"),
        ("GET / HTTP/1.1", "Host: [zz]\r\n"),
        ("GET http://a/ HTTP/1.1", "Host: b\r\n"),
        ("GET http://a:81/ HTTP/1.1", "Host: a\r\n"),
        ("GET http://a/ HTTP/1.1", ""),
        ("GET http://user@a/ HTTP/1.1", "Host: a\r\n"),
        ("GET http://a/ HTTP/1.1", "Host: a\r\nHost: a\r\n"),
    ] {
        let bytes = format!("{line}\r\n{fields}\r\n{SMUGGLED}");
        scene.refuse(&bytes, bytes.as_bytes(), 400);
    }
}

#[test]
fn bytes_that_are_no_http_are_refused() {
    let scene = Scene::new();
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".as_slice(),
        b"\x00\x00\x00\x00\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        scene.refuse(&format!("{bytes:?}"), bytes, 400);
    }
    scene.refuse("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
}
