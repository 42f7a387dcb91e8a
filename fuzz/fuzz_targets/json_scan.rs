//! Bodies that a balancer asks about.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::json_scan(input));
