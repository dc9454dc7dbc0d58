//! Any bytes as the fields of a request in HTTP/2.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern::logic::http::fuzzing::h2_request(bytes));
