//! Declarative configurations, in YAML and in JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::declarative(input));
