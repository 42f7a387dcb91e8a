//! Takes turns by the number of its picks, which is the state that it saves.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Counts {
    picks: u64,
}

impl Balancer for Counts {
    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let position = self.picks.checked_rem(endpoints.len() as u64)?;
        self.picks += 1;
        Some(position as usize)
    }

    fn save(&self) -> Vec<u8> {
        [&[1], &self.picks.to_le_bytes()[..]].concat()
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        let Some((1, picks)) = saved.split_first() else {
            return Err("this is not of version 1".into());
        };
        let picks = picks.try_into().map_err(|_| "this is not a number")?;
        self.picks = u64::from_le_bytes(picks);
        Ok(())
    }
}

guest_sdk::export!(Counts);
