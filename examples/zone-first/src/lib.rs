use guest_sdk::{Balancer, Endpoints, Entropy, Request};

guest_sdk::settings! {
    struct Settings {
        /// The preferred zone
        zone: String;
    }
}

/// Draws an endpoint of the preferred zone; one of any zone if there is none there.
#[derive(Default)]
struct ZoneFirst {
    zone: String,
    positions: Vec<usize>,
}

impl Balancer for ZoneFirst {
    const CONFIG_SCHEMA: &'static str = Settings::SCHEMA;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.zone = Settings::read(config)?.zone;
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let is_near = |at: &usize| endpoints.label(*at, "zone").as_ref() == Some(&self.zone);
        self.positions = (0..endpoints.len()).filter(is_near).collect();
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
