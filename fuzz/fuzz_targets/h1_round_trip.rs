//! Parse, encode, parse again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern::logic::http::fuzzing::round_trip(bytes));
