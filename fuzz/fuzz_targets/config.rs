//! Any text as a configuration: a plan or complaints, and never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern::config::fuzzing::any_text(bytes));
