//! Uploaded components and their signatures.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: {
        // The host catches panics of the compiler, but libfuzzer's own hook would end the process
        // before that. A panic that is not caught still ends it.
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    },
    |input: &[u8]| {
        pointsman::fuzzing::component(input);
        pointsman::fuzzing::signature(input);
    }
);
