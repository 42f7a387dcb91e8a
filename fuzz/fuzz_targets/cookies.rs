//! Cookies from clients and from endpoints.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::cookies(input));
