//! Components of another commit beside those that ship, in turn in one run:
//!
//!     mkdir -p target/before && for name in $(git ls-tree --name-only COMMIT:plugins/prebuilt); do
//!         git show COMMIT:plugins/prebuilt/$name >target/before/$name
//!     done
//!     BEFORE=$PWD/target/before cargo bench --profile dist -p pointsman-benches --bench pick
//!
//! The gateway's side is that of this commit for both. Prints a row of a table for each balancer.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::balancer::{Balancer, Engine, LoadedBalancer, SHIPPED};

use super::{Picks, engine, hold, table};

/// Endpoints of the tables.
const LENGTHS: [u64; 3] = [4, 100, 1000];

/// Instances of each component: where one of them lies in memory makes a difference of some
/// percent.
const INSTANCES: usize = 7;

/// Turns of two instances, and picks of a turn: long enough for the clock, and short beside what
/// else the machine does.
const TURNS: usize = 41;
const PICKS: u32 = 10_000;

pub(super) fn compare(before: &Path) {
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path());
    println!("| ns, ratio to before | 4 | 100 | 1,000 |\n|---|---|---|---|");
    for shipped in SHIPPED {
        let now = engine.load_trusted(shipped.component).unwrap();
        let before = std::fs::read(before.join(format!("{}.wasm", shipped.name)));
        let before = before
            .ok()
            .map(|bytes| engine.load_trusted(&bytes).unwrap());
        let cells = LENGTHS.map(|length| {
            // Without a component of before, it is compared with itself.
            let other = before.as_ref().unwrap_or(&now);
            let (time, ratio) = measure(&engine, &now, other, length);
            match &before {
                Some(_) => format!("{:.0}, {ratio:.3}", time * 1e9),
                None => format!("{:.0}", time * 1e9),
            }
        });
        println!("| `{}` | {} |", shipped.name, cells.join(" | "));
    }
}

/// Seconds of a pick of the first component, and their ratio to those of the second: medians.
fn measure(
    engine: &Arc<Engine>,
    now: &Arc<LoadedBalancer>,
    before: &Arc<LoadedBalancer>,
    length: u64,
) -> (f64, f64) {
    let (mut times, mut ratios) = (Vec::new(), Vec::new());
    for instance in 0..INSTANCES {
        let table = table(length);
        let _held = hold(&table);
        // Which one is made first alternates, and so does which one begins a turn.
        let start = |plugin: &Arc<LoadedBalancer>| {
            let config = "{}".to_owned();
            let balancer = Balancer::new(Arc::clone(engine), "bench", Arc::clone(plugin), config);
            balancer.set_endpoints(Arc::clone(&table));
            balancer
        };
        let pair = match instance % 2 {
            0 => [start(now), start(before)],
            _ => {
                let before = start(before);
                [start(now), before]
            }
        };
        let mut picks = [Picks::default(), Picks::default()];
        for turn in 0..=TURNS {
            let mut took = [0.0; 2];
            for which in [turn % 2, 1 - turn % 2] {
                took[which] = timed(&mut picks[which], &pair[which]).as_secs_f64();
            }
            // The first turn warms up.
            if turn > 0 {
                times.push(took[0] / f64::from(PICKS));
                ratios.push(took[0] / took[1]);
            }
        }
        for balancer in &pair {
            let counters = balancer.counters();
            assert_eq!(counters.fallback_picks, 0, "{counters:?}");
        }
    }
    (median(times), median(ratios))
}

fn timed(picks: &mut Picks, balancer: &Balancer) -> Duration {
    let start = Instant::now();
    for _ in 0..PICKS {
        picks.next(balancer);
    }
    start.elapsed()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
