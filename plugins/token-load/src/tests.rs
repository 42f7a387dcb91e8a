#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use guest_sdk::Endpoint;
use guest_sdk::facts::Given;
use proptest::prelude::*;

use super::*;

fn table(weights: &[u32]) -> Vec<Endpoint> {
    let ids = weights.iter().zip(1..);
    ids.map(|(&weight, id)| Endpoint { id, weight }).collect()
}

/// A balancer and its table, whose load the test sets.
struct Upstream {
    balancer: TokenLoad,
    table: Vec<Endpoint>,
    /// Tokens of prompts that are not computed yet, and of answers.
    prompts: Vec<u32>,
    answers: Vec<u32>,
    entropy: u64,
}

impl Upstream {
    fn new(config: &str, weights: &[u32]) -> Self {
        let mut balancer = TokenLoad::default();
        balancer.configure(config).unwrap();
        balancer.endpoints_changed(&Endpoints::new(table(weights)));
        Self {
            balancer,
            table: table(weights),
            prompts: vec![0; weights.len()],
            answers: vec![0; weights.len()],
            entropy: 0,
        }
    }

    fn place_try(&mut self, given: &Given, attempt: u32) -> Weighted {
        let all = self.prompts.iter().zip(&self.answers);
        let all: Vec<u32> = all.map(|(prompts, answers)| prompts + answers).collect();
        let endpoints = Endpoints::new(self.table.clone())
            .with_column(Column::InFlightCost, &all)
            .with_column(Column::UnansweredCost, &self.prompts);
        self.entropy += 1;
        let request = Request {
            entropy: guest_sdk::mix(self.entropy),
            attempt,
            ..Request::default()
        };
        given.during(|| {
            let pick = self.balancer.pick_weighted(&request, &endpoints);
            pick.unwrap()
        })
    }

    fn place(&mut self, given: &Given) -> Weighted {
        self.place_try(given, 0)
    }
}

fn asking(prompt: &str) -> Given {
    let body = format!(r#"{{"model":"m","prompt":"{prompt}"}}"#);
    Given::new("POST", "/v1/completions").with_body(body.as_bytes())
}

/// Different blocks of 64 bytes.
fn blocks(name: &str, count: usize) -> String {
    let blocks = (0..count).map(|number| format!("{name:>32}{number:>32}"));
    blocks.collect()
}

#[test]
fn a_request_goes_where_the_fewest_tokens_wait() {
    let mut upstream = Upstream::new("{}", &[1; 4]);
    upstream.prompts = vec![20_000, 300, 200, 20_000];
    upstream.answers = vec![0, 0, 5_000, 0];
    let pick = upstream.place(&asking(&"x".repeat(400)));
    assert_eq!((pick.position, pick.first_byte, pick.rest), (1, 100, 256));
    // With other settings, answers count for nothing.
    let mut upstream = Upstream {
        balancer: Upstream::new(r#"{"answer_weight": 0}"#, &[1; 4]).balancer,
        ..upstream
    };
    assert_eq!(upstream.place(&asking("x")).position, 2);
}

#[test]
fn weights_are_shares_of_the_tokens() {
    let mut upstream = Upstream::new("{}", &[1, 10]);
    upstream.prompts = vec![100, 500];
    assert_eq!(upstream.place(&asking(&"x".repeat(40))).position, 1);
    upstream.prompts = vec![100, 2000];
    assert_eq!(upstream.place(&asking(&"x".repeat(40))).position, 0);
}

#[test]
fn what_an_endpoint_has_cached_need_not_be_computed_there() {
    let mut upstream = Upstream::new("{}", &[1; 6]);
    let first = upstream.place(&asking(&blocks("a", 50)));
    assert_eq!(first.first_byte, 800);
    // The same again, and something new after it: 40 of 810 tokens are not cached.
    let again = format!("{}{}", blocks("a", 50), "x".repeat(160));
    let pick = upstream.place(&asking(&again));
    assert_eq!((pick.position, pick.first_byte), (first.position, 40));
    // Then all but what is after the last whole block.
    for _ in 0..20 {
        let pick = upstream.place(&asking(&again));
        assert_eq!((pick.position, pick.first_byte), (first.position, 8));
    }
    // As soon as more waits there than the cache saves, another one gets it.
    upstream.prompts[first.position] = 900;
    let other = upstream.place(&asking(&again));
    assert_ne!(other.position, first.position);
    assert_eq!(other.first_byte, 840);
    // Now two have it. A retry does not look for either.
    assert_eq!(upstream.place(&asking(&again)).position, other.position);
    assert_eq!(upstream.place_try(&asking(&again), 1).first_byte, 840);
    // Endpoints that cache nothing.
    let mut upstream = Upstream::new(r#"{"capacity": 0}"#, &[1; 6]);
    for _ in 0..20 {
        let pick = upstream.place(&asking(&again));
        assert_eq!(pick.first_byte, 840);
    }
}

#[test]
fn long_prompts_are_cached_as_far_as_they_are_known() {
    let mut upstream = Upstream::new("{}", &[1; 6]);
    // 256 KiB are 65,536 tokens.
    let first = upstream.place(&asking(&blocks("a", 4096)));
    assert_eq!(first.first_byte, 65_536);
    let pick = upstream.place(&asking(&blocks("a", 4106)));
    // The next prefix after that has 64 blocks more.
    assert_eq!((pick.position, pick.first_byte), (first.position, 160));
    let half = format!("{}{}", blocks("a", 2048), blocks("b", 2048));
    assert_eq!(upstream.place(&asking(&half)).first_byte, 32_768);
}

#[test]
fn of_many_endpoints_those_with_the_prefix_are_compared_too() {
    let mut upstream = Upstream::new(r#"{"choices": 2}"#, &[1; 1000]);
    let first = upstream.place(&asking(&blocks("a", 100)));
    for _ in 0..50 {
        let pick = upstream.place(&asking(&blocks("a", 100)));
        assert_eq!((pick.position, pick.first_byte), (first.position, 1));
    }
}

#[test]
fn tokens_are_estimated_from_what_is_known_of_a_body() {
    let mut upstream = Upstream::new(r#"{"tokens_header": "X-Tokens", "capacity": 0}"#, &[1]);
    let mut cost = |given: &Given| {
        let pick = upstream.place(given);
        (pick.first_byte, pick.rest)
    };
    assert_eq!(cost(&Given::new("GET", "/")), (1, 256));
    let body = |body: &[u8]| Given::new("POST", "/").with_body(body);
    assert_eq!(cost(&body(&[b'x'; 4000])), (1000, 256));
    assert_eq!(
        cost(&body(br#"{"prompt":"12345678","max_tokens":16}"#)),
        (2, 16)
    );
    assert_eq!(
        cost(&body(br#"{"prompt":"12345678","max_tokens":5000}"#)),
        (2, 256)
    );
    // A long prompt, and what is behind it.
    let long = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(80_000));
    assert_eq!(cost(&body(long.as_bytes())), (20_000, 256));
    let limited = format!(r#"{},"max_output_tokens":7}}"#, &long[..long.len() - 1]);
    assert_eq!(cost(&body(limited.as_bytes())), (20_000, 7));
    // Beyond the part that the gateway has read, the length of the body counts.
    let chunked = body(long.as_bytes()).with_known_body(16_384);
    assert_eq!(cost(&chunked), (4094, 256));
    let form = body(&[b'x'; 4000]).with_known_body(1000);
    assert_eq!(cost(&form), (250, 256));
    assert_eq!(
        cost(&form.with_header("content-length", "4000")),
        (1000, 256)
    );
    let sized = chunked.with_header("Content-Length", &long.len().to_string());
    assert_eq!(cost(&sized), (20_001, 256));
    // What a policy or a client says is better than an estimate.
    assert_eq!(cost(&sized.with_header("x-tokens", "17500")), (17_500, 256));
    assert_eq!(
        cost(&asking("12345678").with_header("x-tokens", "many")),
        (2, 256)
    );
}

proptest! {
    #[test]
    fn the_least_loaded_of_all_is_picked(
        load in prop::collection::vec((0_u32..50_000, 0_u32..50_000, 1_u32..10), 1..9), entropy: u64,
    ) {
        let weights: Vec<u32> = load.iter().map(|(.., weight)| *weight).collect();
        let mut upstream = Upstream::new("{}", &weights);
        upstream.prompts = load.iter().map(|(prompts, ..)| *prompts).collect();
        upstream.answers = load.iter().map(|(_, answers, _)| *answers).collect();
        upstream.entropy = entropy >> 1;
        let pick = upstream.place(&asking("abcd"));
        let of = |&(prompts, answers, weight): &(u32, u32, u32)| {
            (f64::from(prompts) + 1.0 + f64::from(answers)) / f64::from(weight)
        };
        let least = load.iter().map(of).fold(f64::MAX, f64::min);
        prop_assert_eq!(of(&load[pick.position]), least);
    }

    #[test]
    fn a_pick_is_a_position_of_the_table(
        weights in prop::collection::vec(1_u32..=65_535, 1..40), choices in 2_usize..12,
        prompts in prop::collection::vec("[a-c]{0,300}", 1..20),
    ) {
        let mut upstream = Upstream::new(&format!(r#"{{"choices": {choices}}}"#), &weights);
        for prompt in prompts {
            let pick = upstream.place(&asking(&prompt));
            prop_assert!(pick.position < weights.len());
            prop_assert!((1..=75).contains(&pick.first_byte));
        }
    }
}

#[test]
fn what_was_learnt_outlives_an_upgrade() {
    let mut upstream = Upstream::new("{}", &[1; 8]);
    let first = upstream.place(&asking(&blocks("a", 20)));
    let mut next = TokenLoad::default();
    next.configure("{}").unwrap();
    next.restore(&upstream.balancer.save()).unwrap();
    // Another endpoint comes before the others.
    let mut new = table(&[1; 8]);
    new.insert(0, Endpoint { id: 99, weight: 1 });
    next.endpoints_changed(&Endpoints::new(new.clone()));
    let mut upstream = Upstream {
        balancer: next,
        prompts: vec![0; new.len()],
        answers: vec![0; new.len()],
        table: new,
        ..upstream
    };
    let pick = upstream.place(&asking(&blocks("a", 20)));
    assert_eq!((pick.position, pick.first_byte), (first.position + 1, 1));
}

#[test]
fn settings_are_checked() {
    let configure = |config| TokenLoad::default().configure(config);
    assert!(configure(r#"{"answer_weight": 0.5, "tokens_header": "x-tokens"}"#).is_ok());
    assert!(configure(r#"{"answer_weights": 1}"#).is_err());
    assert_eq!(
        TokenLoad::default().pick(&Request::default(), &Endpoints::default()),
        None
    );
}
