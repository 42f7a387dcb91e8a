//! Heads of requests, as bytes from a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::request_head(input));
