//! First messages of TLS, of which the server name is read ahead.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::client_hello(input));
