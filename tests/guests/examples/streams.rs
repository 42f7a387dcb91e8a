//! Picks the position that the header `x-position` has. Logs at each pick what is in flight at all
//! endpoints and how their bodies come, and what came of each try to the first position.

use guest_sdk::{Balancer, Column, Ended, Endpoints, Request, facts, info, tag};

#[derive(Default)]
struct Streams;

const COLUMNS: [Column; 4] = [
    Column::InFlight,
    Column::Unanswered,
    Column::FirstByte,
    Column::ChunkGap,
];

impl Balancer for Streams {
    const COLUMNS: &'static [Column] = &COLUMNS;

    fn pick(&mut self, _: &Request, endpoints: &Endpoints) -> Option<usize> {
        let load = COLUMNS.map(|column| format!("{:?}", endpoints.column(column)));
        info!("load [{}]", load.join(","));
        let position = facts::header("x-position")?.parse().ok()?;
        tag(position as u64);
        Some(position)
    }

    fn try_ended(&mut self, ended: &Ended) {
        let Ended {
            why,
            status,
            first_byte,
            took,
            bytes,
            ..
        } = ended;
        if ended.tag == 0 {
            let [status, first_byte] =
                [status.map(u64::from), *first_byte].map(|number| number.unwrap_or(0));
            info!("ended [\"{why:?}\",{status},{first_byte},{took},{bytes}]");
        }
    }
}

guest_sdk::export!(Streams, outcomes);
