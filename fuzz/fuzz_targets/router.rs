//! Routes of both flavours, and requests that may match them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::router(input));
