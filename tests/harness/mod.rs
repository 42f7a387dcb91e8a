//! What the cases stand on: a gateway, backends, and clients.

mod backend;
mod dns;
mod gateway;
mod guests;
mod load;
mod process;
mod raw;
mod tls;

pub(crate) use backend::{Backend, sum};
pub(crate) use dns::{Dns, Reply as DnsReply};
pub(crate) use gateway::{Gateway, Reply, Setup, help};
pub(crate) use guests::guest;
pub(crate) use load::{Load, Tally};
pub(crate) use process::Process;
pub(crate) use raw::{Raw, RawServer, exchange};
pub(crate) use tls::certified;
