//! Components and their signatures, as they are uploaded.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: {
        // The host catches what the compiler panics about; libfuzzer's own hook would end the process first.
        // What is not caught still ends it.
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    },
    |input: &[u8]| {
        pointsman::fuzzing::component(input);
        pointsman::fuzzing::signature(input);
    }
);
