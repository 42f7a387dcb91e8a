use guest_sdk::{Balancer, Endpoints, Entropy, Request};

/// Draws an endpoint of the preferred zone; one of any zone if there is none there.
#[derive(Default)]
struct ZoneFirst {
    zone: String,
    positions: Vec<usize>,
}

impl Balancer for ZoneFirst {
    const CONFIG_SCHEMA: &'static str = r#"{"type": "object", "required": ["zone"],
        "properties": {"zone": {"type": "string"}}, "additionalProperties": false}"#;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        let config: serde_json::Value = serde_json::from_str(config).map_err(|e| e.to_string())?;
        self.zone = config["zone"].as_str().ok_or("zone must be a text")?.into();
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let zone = Some(self.zone.clone());
        self.positions = (0..endpoints.len()).collect();
        self.positions
            .retain(|position| endpoints.label(*position, "zone") == zone);
        if self.positions.is_empty() {
            self.positions = (0..endpoints.len()).collect();
        }
    }

    fn pick(&mut self, request: &Request, _: &Endpoints) -> Option<usize> {
        let drawn = Entropy::of(request).below(self.positions.len());
        self.positions.get(drawn).copied()
    }
}

guest_sdk::export!(ZoneFirst);

#[cfg(test)]
mod tests;
