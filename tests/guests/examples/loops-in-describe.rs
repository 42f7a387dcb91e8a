//! Never returns from `describe`, so that its check takes as long as the limit. The SDK describes a
//! balancer by itself, so this one is written on the bare bindings.

wit_bindgen::generate!({ path: "../../wit", world: "balancer" });

use exports::pointsman::balancer::policy::{Description, Endpoint, Guest, Request};

struct LoopsInDescribe;

impl Guest for LoopsInDescribe {
    fn describe() -> Description {
        loop {
            std::hint::black_box(0);
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

export!(LoopsInDescribe);
