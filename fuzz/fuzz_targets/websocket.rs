//! Any bytes as the frames of a WebSocket connection, in either direction.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern::logic::websocket::fuzzing::frames(bytes));
