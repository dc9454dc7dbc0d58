//! Any bytes as a request head.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern::logic::http::fuzzing::request_head(bytes));
