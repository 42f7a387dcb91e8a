//! Headers with the context of a trace.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman::fuzzing::trace_context(input));
