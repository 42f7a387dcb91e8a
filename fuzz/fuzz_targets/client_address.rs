//! Trusted addresses, and the addresses of clients in headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::client_address(input));
