//! Picks the endpoint with the least of a number that it reports as `cache_use`, and logs what it
//! is told of that, and of another one that it looks at.

use guest_sdk::{Balancer, Column, Endpoints, Request, info};

#[derive(Default)]
struct Reported;

const CACHE: Column = Column::Reported("cache_use");
const PRICE: Column = Column::Reported("team:price");

impl Balancer for Reported {
    const COLUMNS: &'static [Column] = &[CACHE];

    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let used = endpoints.column(CACHE);
        let prices: Vec<u32> = (0..endpoints.len())
            .map(|position| endpoints.look([PRICE; 2], [position; 2])[0][0])
            .collect();
        let mut seen: Vec<(u64, u32, u32)> = (0..endpoints.len())
            .map(|position| (endpoints[position].id, used[position], prices[position]))
            .collect();
        seen.sort_unstable();
        let numbers: Vec<(u32, u32)> = seen.iter().map(|(_, used, price)| (*used, *price)).collect();
        info!("{numbers:?}");
        (0..endpoints.len()).min_by_key(|&position| used[position] + prices[position])
    }
}

guest_sdk::export!(Reported);
