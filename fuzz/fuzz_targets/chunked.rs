//! Any bytes as a chunked body, in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern::logic::http::fuzzing::chunked(bytes));
