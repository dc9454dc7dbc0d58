//! Any bytes as a response head.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern::logic::http::fuzzing::response_head(bytes));
