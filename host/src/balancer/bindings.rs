//! The host's side of `wit/balancer.wit`.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "balancer",
    imports: { default: trappable },
});

pub(super) use self::exports::pointsman::balancer::policy::{Description, Endpoint, Request};
pub(super) use self::pointsman::balancer::{
    body_facts, endpoint_facts, load, log, outcome_tag, refusal, request_facts, tries,
};

/// What a plugin may export besides `policy`. It has a world of its own, because it is optional.
mod hand_over {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package pointsman:host;
            world hand-over { export pointsman:balancer/state@1.4.0; }
        ",
        world: "pointsman:host/hand-over",
    });
}

/// The optional export of balancers that say what a request weighs.
mod weighing {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package pointsman:host;
            world weighing { export pointsman:balancer/work@1.4.0; }
        ",
        world: "pointsman:host/weighing",
    });
}

/// The optional export of balancers that are told of tries that have ended.
mod outcome_aware {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package pointsman:host;
            world outcome-aware { export pointsman:balancer/outcome@1.4.0; }
        ",
        world: "pointsman:host/outcome-aware",
        // The name of a reason is not copied before it is passed.
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

pub(super) use hand_over::{HandOver, HandOverIndices};
pub(super) use outcome_aware::exports::pointsman::balancer::outcome::Ended;
pub(super) use outcome_aware::{OutcomeAware, OutcomeAwareIndices};
pub(super) use weighing::{Weighing, WeighingIndices};
