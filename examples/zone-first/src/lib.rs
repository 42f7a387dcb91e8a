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
    near: Vec<usize>,
}

impl Balancer for ZoneFirst {
    const CONFIG_SCHEMA: &'static str = Settings::SCHEMA;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.zone = Settings::read(config)?.zone;
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let is_near = |at: &usize| endpoints.label(*at, "zone").as_ref() == Some(&self.zone);
        self.near = (0..endpoints.len()).filter(is_near).collect();
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let mut entropy = Entropy::of(request);
        let near = self.near.get(entropy.below(self.near.len())).copied();
        Some(near.unwrap_or_else(|| entropy.below(endpoints.len())))
    }
}

guest_sdk::export!(ZoneFirst);

#[cfg(test)]
mod tests;
