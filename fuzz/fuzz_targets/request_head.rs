//! Heads of requests, as bytes of the proxy port.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::request_head(input));
