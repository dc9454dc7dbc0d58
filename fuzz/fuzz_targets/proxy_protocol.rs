//! Any bytes as a PROXY header.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern::logic::proxy_protocol::fuzzing::header(bytes));
