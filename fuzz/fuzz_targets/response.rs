//! Heads, chunks and trailers of responses, as bytes from an endpoint.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::response(input));
