//! Does in `save` and in `restore` what its settings name, and picks the first endpoint.

use std::hint::black_box;

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct HandsOverBadly {
    config: String,
}

impl Balancer for HandsOverBadly {
    const CONFIG_SCHEMA: &'static str = r#"{"type": "object"}"#;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.config = config.into();
        Ok(())
    }

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(0)
    }

    fn save(&self) -> Vec<u8> {
        let does = |what| self.config.contains(what);
        assert!(!does("panics-in-save"), "as configured");
        while does("loops-in-save") {
            black_box(());
        }
        let size = match () {
            () if does("saves-nothing") => 0,
            () if does("saves-100-kib") => 100 << 10,
            () if does("saves-2-mib") => 2 << 20,
            () if does("saves-8-mib") => 8 << 20,
            () if does("saves-too-much-memory") => 64 << 20,
            () => 1,
        };
        vec![7; size]
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        let does = |what| self.config.contains(what);
        assert!(!does("panics-in-restore"), "as configured");
        while does("loops-in-restore") {
            black_box(());
        }
        match does("refuses") {
            true => Err(format!("{} bytes of nonsense", saved.len())),
            false => Ok(()),
        }
    }
}

guest_sdk::export!(HandsOverBadly);
