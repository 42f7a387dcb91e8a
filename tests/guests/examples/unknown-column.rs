//! Asks for a column of load that no gateway has. The SDK offers no such column, so this one is
//! written on the bare bindings.

wit_bindgen::generate!({ path: "../../wit", world: "balancer" });

use exports::pointsman::balancer::policy::{Description, Endpoint, Guest, Request};

struct UnknownColumn;

impl Guest for UnknownColumn {
    fn describe() -> Description {
        Description {
            name: "unknown-column".into(),
            version: "1.0.0".into(),
            config_schema: "{}".into(),
            columns: vec!["in-flight".into(), "phase-of-the-moon".into()],
        }
    }

    fn configure(_config: String) -> Result<(), String> {
        Ok(())
    }

    fn endpoints_changed(_endpoints: Vec<Endpoint>) {}

    fn pick(_request: Request) -> Option<u32> {
        Some(0)
    }

    fn pick_by_load(_request: Request, _load: Vec<u32>) -> Option<u32> {
        Some(0)
    }
}

export!(UnknownColumn);
