//! Metrics that targets report, in Prometheus' text format.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::exposition(input));
