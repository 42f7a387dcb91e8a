//! Pointsman, an API gateway in which every load-balancing decision is made by a WebAssembly
//! component. `ARCHITECTURE.md` at the top of the repository has the map.

pub mod balancer;
pub mod config;
pub mod entity;
pub mod store;
pub mod upstream;
