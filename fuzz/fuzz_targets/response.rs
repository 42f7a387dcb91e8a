//! Heads, chunks and trailers of responses, as bytes of an endpoint.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::response(input));
