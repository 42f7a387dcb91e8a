//! The next version of `counts`: it has a setting, saves its state in another form, and restores
//! both.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Counts {
    picks: u64,
}

impl Balancer for Counts {
    const CONFIG_SCHEMA: &'static str = r#"{
        "type": "object", "properties": {"round": {"type": "integer"}}, "additionalProperties": false
    }"#;

    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let position = self.picks.checked_rem(endpoints.len() as u64)?;
        self.picks += 1;
        Some(position as usize)
    }

    fn save(&self) -> Vec<u8> {
        format!("\u{2}{}", self.picks).into()
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        self.picks = match saved.split_first() {
            Some((1, picks)) => {
                let picks = picks.try_into().map_err(|_| "this is not a number")?;
                u64::from_le_bytes(picks)
            }
            Some((2, picks)) => {
                let text = String::from_utf8_lossy(picks);
                text.parse().map_err(|error| format!("{text}: {error}"))?
            }
            _ => return Err("this is neither of version 1 nor of version 2".into()),
        };
        Ok(())
    }
}

guest_sdk::export!(Counts);
