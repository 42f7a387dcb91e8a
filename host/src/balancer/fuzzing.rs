//! The law for uploads of components; see `crate::fuzzing`.

#![expect(clippy::expect_used, reason = "a law that does not hold ends the run")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Engine, Settings, try_settings};

/// An upload becomes a balancer or is refused with a message, in bounded time. Neither the compiler
/// in this process nor a call of the component ends the process.
pub fn component(input: &[u8]) {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        let settings = Settings {
            pick_timeout: Duration::from_millis(10),
            pick_cost: Duration::from_millis(10),
            memory: 16 << 20,
            state: 1 << 20,
            upload: 4 << 20,
            compile_timeout: Duration::from_secs(30),
            cache_dir: None,
            compiler: "none".into(),
        };
        Engine::new(settings).expect("a component host")
    });
    match engine.load_trusted(input) {
        Ok(plugin) => {
            let _ = try_settings(engine, &plugin, "{}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
