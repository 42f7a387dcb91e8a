//! What a shadow reports: how its choices differ from those of the first balancer.

use serde::Serialize;

use crate::balancer::choose::Faults;
use crate::endpoint_address::EndpointAddress;

/// The results of a shadow.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name of the balancer.
    pub balancer: String,
    /// Its version, by digest.
    pub version: String,
    /// How many of the picks are to be compared.
    pub sample_percent: f64,
    /// Since when, in seconds of Unix time.
    pub since: u64,
    /// Picks that were to be compared: what is neither in `compared` nor in `unanswered` nor in
    /// `dropped` still waits.
    pub sampled: u64,
    /// Picks that both have answered.
    pub compared: u64,
    /// Those of them where both made the same choice.
    pub agreed: u64,
    /// The share of `agreed` in `compared`; none before the first.
    pub agreement: Option<f64>,
    /// Picks that the shadow had no answer to, because it failed or was in quarantine.
    pub unanswered: u64,
    /// Picks that were not compared, since too many waited or the table changed meanwhile.
    pub dropped: u64,
    /// What the shadow asks for and does not get, so that it may choose otherwise than if it
    /// served: `outcomes`, of tries, since none is its own; `costs`, since the balancer that serves
    /// does not say what requests weigh; `bodies`, beyond what is read anyway, since no request
    /// waits for its body on account of a shadow.
    pub lacks: Vec<&'static str>,
    /// The bodies that it could ask about; none if it does not ask about requests.
    pub bodies: Option<Bodies>,
    /// How the shadow's choices differ from the first's; less is better.
    pub difference: Difference,
    /// The choices of the first balancer, which serves the requests.
    pub first: Side,
    /// The choices of the shadow.
    pub shadow: Side,
    /// The choices of both by endpoint.
    pub endpoints: Vec<Share>,
    /// Instances made of the shadow.
    pub instances: u64,
    /// Its faults by kind.
    pub faults: Faults,
    /// The last fault, in words.
    pub last_fault: Option<String>,
}

/// How many of the picks were for requests of whose body the start or all was known.
#[derive(Debug, Clone, Serialize)]
pub struct Bodies {
    /// The whole body, which may be empty.
    pub whole: u64,
    /// A part of it.
    pub cut: u64,
}

/// The shadow's mean less the first's.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// Requests in flight at the chosen endpoint.
    pub in_flight: Option<f64>,
    /// Its latency, in microseconds.
    pub latency_us: Option<f64>,
}

/// The choices of one of the two, on average.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// Requests that it refused.
    pub refused: u64,
    /// Requests in flight at the chosen endpoint before this one, where both chose one.
    pub in_flight: Option<f64>,
    /// Moving average of its latency, in microseconds, where both are known.
    pub latency_us: Option<f64>,
    /// Time of a pick, in nanoseconds; for the first that of one pick in 64.
    pub pick_ns: Option<f64>,
}

/// How often both chose an endpoint.
#[derive(Debug, Clone, Serialize)]
pub struct Share {
    /// Id of the endpoint.
    pub id: String,
    /// Its address.
    pub address: EndpointAddress,
    /// Picks of the first.
    pub first: u64,
    /// Picks of the shadow.
    pub shadow: u64,
    /// Picks of the first, as a share of all.
    pub first_share: f64,
    /// Picks of the shadow, as a share of all.
    pub shadow_share: f64,
}
