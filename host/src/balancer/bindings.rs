//! The host's side of `wit/balancer.wit`.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "balancer",
    imports: { default: trappable },
});

pub(super) use self::exports::pointsman::balancer::policy::{Description, Endpoint, Request};
pub(super) use self::pointsman::balancer::load;
