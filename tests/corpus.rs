//! The committed corpora, replayed through what the fuzz targets check.

use std::fs;
use std::path::Path;

use postern::config;
use postern::logic::http::fuzzing;
use postern::logic::proxy_protocol;
use postern::logic::websocket;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("readable").path();
        let bytes = fs::read(&path).expect("readable");
        if std::panic::catch_unwind(|| check(&bytes)).is_err() {
            panic!("{} does not hold", path.display());
        }
        count += 1;
    }
    assert!(count >= 15, "{target}: a corpus of {count}");
}

#[test]
fn request_heads() {
    replay("h1_request", fuzzing::request_head);
}

#[test]
fn response_heads() {
    replay("h1_response", fuzzing::response_head);
}

#[test]
fn chunked_bodies() {
    replay("chunked", fuzzing::chunked);
}

#[test]
fn round_trips() {
    replay("h1_round_trip", fuzzing::round_trip);
}

#[test]
fn http_2_requests() {
    replay("h2_request", fuzzing::h2_request);
}

#[test]
fn proxy_headers() {
    replay("proxy_protocol", proxy_protocol::fuzzing::header);
}

#[test]
fn websocket_frames() {
    replay("websocket", websocket::fuzzing::frames);
}

#[test]
fn configurations() {
    replay("config", config::fuzzing::any_text);
}
