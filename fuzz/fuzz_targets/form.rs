//! Forms and JSON, as bodies of the Admin API.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::form(input));
