//! Headers of the PROXY protocol.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::proxy_protocol(input));
