//! The host's side of `wit/balancer.wit`.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "balancer",
});

pub(super) use self::exports::pointsman::balancer::policy::{Description, Endpoint, Request};
