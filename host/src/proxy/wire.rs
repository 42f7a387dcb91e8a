//! What is said to endpoints, and over what.

mod destination;
mod http1;
mod stream;

pub(super) use destination::{Destination, Secure};
pub(super) use http1::Connection;
pub(super) use stream::Stream;
