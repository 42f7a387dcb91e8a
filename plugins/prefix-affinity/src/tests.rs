#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;

use guest_sdk::Endpoint;
use guest_sdk::facts::Given;

use super::*;
use guest_sdk::prefix::FORM;

fn table(weights: &[u32]) -> Vec<Endpoint> {
    let ids = weights.iter().zip(1_u64..);
    ids.map(|(&weight, id)| Endpoint {
        id: id.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        weight,
    })
    .collect()
}

/// A balancer and its table, whose load the test sets.
struct Seat {
    balancer: PrefixAffinity,
    table: Vec<Endpoint>,
    in_flight: Vec<u32>,
    queues: Vec<u32>,
    entropy: Entropy,
}

impl Seat {
    fn new(config: &str, weights: &[u32]) -> Self {
        let mut balancer = PrefixAffinity::default();
        balancer.configure(config).unwrap();
        let mut seat = Self {
            balancer,
            table: Vec::new(),
            in_flight: Vec::new(),
            queues: Vec::new(),
            entropy: Entropy::of(&Request::default()),
        };
        seat.set(table(weights));
        seat
    }

    /// Sets another table, with all endpoints idle.
    fn set(&mut self, table: Vec<Endpoint>) {
        self.in_flight = vec![0; table.len()];
        self.queues = vec![0; table.len()];
        self.table = table;
        self.balancer.endpoints_changed(&self.endpoints());
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints::new(self.table.clone())
            .with_column(Column::InFlight, &self.in_flight)
            .with_column(Column::ReportedQueue, &self.queues)
            .with_column(Column::ReportedLoad, &vec![500; self.table.len()])
    }

    fn try_pick(&mut self, given: &Given, attempt: u32) -> Option<usize> {
        let request = Request {
            entropy: self.entropy.next_u64(),
            attempt,
            ..Request::default()
        };
        let endpoints = self.endpoints();
        given.during(|| self.balancer.pick(&request, &endpoints))
    }

    fn pick(&mut self, given: &Given) -> usize {
        self.try_pick(given, 0).unwrap()
    }

    /// Makes a pick for a request with this prompt.
    fn ask(&mut self, prompt: &str) -> usize {
        self.pick(&asking(prompt))
    }
}

fn asking(prompt: &str) -> Given {
    let body = format!(r#"{{"model": "m", "prompt": "{prompt}"}}"#);
    Given::new("POST", "/v1/completions").with_body(body.as_bytes())
}

/// A prompt of `count` blocks, which differ from those of any other letter.
fn blocks(letter: &str, count: usize) -> String {
    letter.repeat(64 * count)
}

#[test]
fn a_conversation_keeps_its_endpoint_and_conversations_are_spread() {
    let mut seat = Seat::new("{}", &[1; 8]);
    let mut places = Vec::new();
    for letter in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
        let first = seat.ask(&blocks(letter, 3));
        for turn in 4..20 {
            assert_eq!(seat.ask(&blocks(letter, turn)), first);
        }
        places.push(first);
    }
    places.sort_unstable();
    places.dedup();
    assert!(places.len() > 3, "{places:?}");
}

#[test]
fn the_endpoint_with_the_longest_match_is_picked() {
    let mut seat = Seat::new("{}", &[1; 2]);
    let system = blocks("s", 4);
    let first = seat.ask(&format!("{system}{}", blocks("a", 2)));
    // The first endpoint is busy, so the other one gets the next conversation.
    seat.in_flight[first] = 5;
    let other = seat.ask(&format!("{system}{}", blocks("b", 2)));
    assert_eq!(other, 1 - first);
    seat.in_flight = vec![1, 1];
    for _ in 0..20 {
        assert_eq!(seat.ask(&format!("{system}{}", blocks("a", 3))), first);
        assert_eq!(seat.ask(&format!("{system}{}", blocks("b", 3))), other);
    }
    // Both endpoints have the system prompt, so the less busy one is picked.
    seat.in_flight = vec![1, 1];
    seat.in_flight[first] = 0;
    assert_eq!(seat.ask(&system), first);
}

#[test]
fn long_prompts_are_compared_beyond_their_first_16_kib() {
    let mut seat = Seat::new("{}", &[1; 2]);
    // They differ after 100 KiB, and behind them there are other members.
    let asking = |letter: &str, more: usize| {
        let said = format!("{}{}", blocks("s", 1600), blocks(letter, 100 + more));
        let body = format!(r#"{{"messages": [{{"role": "user", "content": "{said}"}}], "n": 1}}"#);
        Given::new("POST", "/v1/chat/completions").with_body(body.as_bytes())
    };
    let first = seat.pick(&asking("a", 0));
    // The first endpoint is busy, so the other one gets the next conversation.
    seat.in_flight[first] = 5;
    let other = seat.pick(&asking("b", 0));
    assert_eq!(other, 1 - first);
    seat.in_flight = vec![1, 1];
    for turn in 1..10 {
        assert_eq!(seat.pick(&asking("a", turn)), first);
        assert_eq!(seat.pick(&asking("b", turn)), other);
    }
    // A mebibyte is a bounded number of pairs.
    seat.pick(&asking("c", 15_000));
    assert!(seat.balancer.index.pairs().count() < 2000);
}

#[test]
fn a_prompt_without_a_whole_block_has_no_affinity() {
    let mut seat = Seat::new("{}", &[1; 8]);
    let places: std::collections::BTreeSet<usize> = (0..50).map(|_| seat.ask("Say hi")).collect();
    assert!(places.len() > 4, "{places:?}");
    assert_eq!(seat.balancer.index.pairs().count(), 0);
}

#[test]
fn without_a_prompt_the_path_is_compared() {
    let mut seat = Seat::new("{}", &[1; 8]);
    let get = |path: &str| Given::new("GET", path).with_query("v=1");
    let first = seat.pick(&get("/video/1/a"));
    for name in ["a", "b", "c"] {
        assert_eq!(seat.pick(&get(&format!("/video/1/{name}"))), first);
    }
    // A body without a prompt counts as no body.
    let form = Given::new("POST", "/video/1/d").with_body(b"prompt=x");
    assert_eq!(seat.pick(&form), first);
    // Without a request there is nothing to compare, but there is a pick.
    let request = Request::default();
    let endpoints = seat.endpoints();
    assert!(seat.balancer.pick(&request, &endpoints).is_some());
}

#[test]
fn a_retry_ignores_cached_prefixes() {
    let mut seat = Seat::new("{}", &[1; 8]);
    let given = asking(&blocks("a", 3));
    let first = seat.pick(&given);
    let again: Vec<usize> = (0..20).map(|_| seat.try_pick(&given, 1).unwrap()).collect();
    assert!(again.iter().any(|place| *place != first), "{again:?}");
}

#[test]
fn an_endpoint_with_a_long_queue_is_avoided_unless_all_have_one() {
    for (config, stays) in [
        (r#"{"max_queue": 6}"#, true),
        (r#"{"max_queue": 5}"#, false),
        // All endpoints report a load of one half.
        (r#"{"max_load": 0.6}"#, true),
        (r#"{"max_load": 0.4}"#, true),
        (r#"{"max_queue": 5, "max_load": 0.6}"#, false),
    ] {
        let mut seat = Seat::new(config, &[1; 4]);
        let first = seat.ask(&blocks("a", 3));
        seat.queues[first] = 6;
        let now = seat.ask(&blocks("a", 3));
        assert_eq!(now == first, stays, "{config}");
        // If all endpoints report a long queue, the reports are ignored.
        seat.queues = vec![7; 4];
        seat.queues[now] = 8;
        for turn in 3..10 {
            let place = seat.ask(&blocks("a", turn));
            assert!(place == now || place == first, "{config}");
        }
    }
}

proptest! {
    /// With many requests in flight, whatever their prompts are, no endpoint has more than the
    /// bound.
    #[test]
    fn requests_in_flight_are_bounded(
        weights in proptest::collection::vec(1_u32..10, 2..8), hot in 0_u64..3, factor in 1.1_f64..3.0,
    ) {
        let mut seat = Seat::new(&format!(r#"{{"balance_factor": {factor}}}"#), &weights);
        let sum: u32 = weights.iter().sum();
        let least = f64::from(*weights.iter().min().unwrap());
        for number in 0..u64::from(sum) * 20 {
            // All prompts have the same prefix, or one of a few prefixes.
            let letter = ["a", "b", "c"][(number % (hot + 1)) as usize];
            let chosen = seat.ask(&blocks(letter, 3));
            seat.in_flight[chosen] += 1;
            let mean = (number as f64 + 1.0) / f64::from(sum);
            let load = f64::from(seat.in_flight[chosen]) / f64::from(weights[chosen]);
            // A request for a cached prefix may exceed the bound of `balance_factor` by itself. The
            // less busy of two drawn endpoints may be beyond that bound, or that of a draw, as
            // well.
            let bound = mean * factor.max(1.5) + 3.0 / least;
            prop_assert!(load <= bound, "{load} {mean}");
        }
    }

    #[test]
    fn requests_without_common_prefixes_are_proportional_to_weights(
        weights in proptest::collection::vec(1_u32..10, 2..8),
    ) {
        let mut seat = Seat::new("{}", &weights);
        let sum: u32 = weights.iter().sum();
        for number in 0..sum * 50 {
            let chosen = seat.ask(&format!("{number:064}"));
            seat.in_flight[chosen] += 1;
        }
        for (load, weight) in seat.in_flight.iter().zip(&weights) {
            prop_assert!((f64::from(*load) / f64::from(*weight) - 50.0).abs() < 20.0, "{load} {weight}");
        }
    }

    #[test]
    fn picks_stay_in_the_table_through_changes(
        tables in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 0..12), 1..8),
        capacity in 0_usize..60,
    ) {
        let all = table(&[3; 12]);
        let mut seat = Seat::new(&format!(r#"{{"capacity": {capacity}}}"#), &[]);
        for (round, members) in tables.iter().enumerate() {
            let here = all.iter().zip(members).filter(|(_, here)| **here);
            let mut here: Vec<Endpoint> = here.map(|(endpoint, _)| *endpoint).collect();
            if round % 2 == 1 {
                here.reverse();
            }
            let size = here.len();
            seat.set(here);
            for number in 0..40 {
                let letter = ["a", "b", "c", "d"][number % 4];
                let picked = seat.try_pick(&asking(&blocks(letter, 1 + number % 5)), (number % 7 / 6) as u32);
                prop_assert_eq!(picked.is_some(), size > 0);
                prop_assert!(picked.is_none_or(|position| position < size));
                if let Some(picked) = picked {
                    seat.in_flight[picked] = (number % 3) as u32;
                }
            }
        }
    }

    /// A prefix is remembered for an endpoint and not for its position.
    #[test]
    fn a_prefix_stays_with_its_endpoint_through_changes(
        order in Just((0_usize..8).collect::<Vec<_>>()).prop_shuffle(), here in 1_usize..=8,
    ) {
        let mut seat = Seat::new("{}", &[1; 8]);
        let all = table(&[1; 8]);
        let letters = ["a", "b", "c", "d", "e", "f"];
        let places: Vec<u64> = letters.iter().map(|letter| all[seat.ask(&blocks(letter, 2))].id).collect();
        let stay: Vec<Endpoint> = order.iter().take(here).map(|position| all[*position]).collect();
        seat.set(stay.clone());
        for (letter, place) in letters.iter().zip(places) {
            let now = stay[seat.ask(&blocks(letter, 2))].id;
            prop_assert!(now == place || stay.iter().all(|endpoint| endpoint.id != place));
        }
    }

    #[test]
    fn a_restored_balancer_makes_the_same_picks_as_the_old_one(asked in proptest::collection::vec((0_usize..6, 1_usize..5), 1..40)) {
        let letters = ["a", "b", "c", "d", "e", "f"];
        let mut old = Seat::new("{}", &[1; 5]);
        for (letter, count) in &asked {
            old.ask(&blocks(letters[*letter], *count));
        }
        let mut new = Seat::new("{}", &[]);
        prop_assert_eq!(new.balancer.restore(&old.balancer.save()), Ok(()));
        new.set(table(&[1; 5]));
        new.entropy = old.entropy.clone();
        prop_assert_eq!(new.balancer.save(), old.balancer.save());
        for (letter, count) in &asked {
            let prompt = blocks(letters[*letter], *count);
            prop_assert_eq!(new.ask(&prompt), old.ask(&prompt));
        }
        // The state is of no use with another block size.
        let mut other = Seat::new(r#"{"block_size": 32}"#, &[]);
        prop_assert_eq!(other.balancer.restore(&old.balancer.save()), Ok(()));
        prop_assert_eq!(other.balancer.index.pairs().count(), 0);
    }

    #[test]
    fn state_in_another_format_is_refused(saved: Vec<u8>, form in 0_u8..3, cut in 1_usize..12) {
        let mut balancer = PrefixAffinity::default();
        prop_assert!(balancer.restore(&saved).is_err() || saved[0] == FORM);
        let mut old = Seat::new("{}", &[1; 5]);
        old.ask(&blocks("a", 3));
        let mut saved = old.balancer.save();
        prop_assert!(PrefixAffinity::default().restore(&saved[..saved.len() - cut]).is_err());
        saved[0] = form;
        prop_assert_eq!(PrefixAffinity::default().restore(&saved).is_ok(), form == FORM);
        // The number of an endpoint that has no id.
        let last = saved.len() - 4;
        saved[last] = 5;
        prop_assert!(PrefixAffinity::default().restore(&saved).is_err());
    }
}

#[test]
fn the_saved_state_is_less_than_a_mebibyte() {
    let mut balancer = PrefixAffinity::default();
    balancer.configure("{}").unwrap();
    balancer.endpoints_changed(&Endpoints::new(table(&vec![1; 10_000])));
    for number in 0..100_000 {
        balancer.index.used(&[number], number as usize % 10_000);
    }
    let saved = balancer.save();
    assert!(saved.len() < 1 << 20, "{}", saved.len());
    let mut new = PrefixAffinity::default();
    new.configure("{}").unwrap();
    new.restore(&saved).unwrap();
    assert_eq!(new.index.pairs().next(), Some((60_000, 0)));
}

#[test]
fn settings_are_checked() {
    let configure = |config| PrefixAffinity::default().configure(config);
    assert!(configure(r#"{"max_queue": 3, "balance_factor": 2}"#).is_ok());
    assert!(configure(r#"{"max_queues": 3}"#).is_err());
}
