//! Headers of the PROXY protocol that the gateway writes, for endpoints that read them. Source:
//! HAProxy, "The PROXY protocol, versions 1 & 2".

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::accept::UNIX_PEER;

/// The start of a header of version 2, with the command PROXY.
const V2_PROXY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21";

/// A header of version 2 without addresses: the command LOCAL, with which every receiver takes the
/// connection as the gateway's own, and the family UNSPEC.
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

/// A header, with which a connection to an endpoint begins. It says whose connection is passed on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ProxyHeader {
    version: ProxyVersion,
    /// The client, and the address that it is connected to; none for a client without an address.
    ends: Option<(SocketAddr, SocketAddr)>,
}

impl ProxyHeader {
    /// For a client at `source` that is connected to `destination`. The client of a Unix socket,
    /// [`UNIX_PEER`], has no address, and neither has what it is connected to.
    pub(crate) fn new(version: ProxyVersion, source: SocketAddr, destination: SocketAddr) -> Self {
        let ends = (source != UNIX_PEER).then_some((source, destination));
        Self { version, ends }
    }

    /// The header as it is sent.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Some(ends) = self.ends else {
            return match self.version {
                ProxyVersion::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
                ProxyVersion::V2 => V2_LOCAL.to_vec(),
            };
        };
        let (source, destination) = of_one_family(ends);
        let ports = [ends.0.port(), ends.1.port()];
        match self.version {
            ProxyVersion::V1 => {
                let family = if source.is_ipv4() { 4 } else { 6 };
                let [from, to] = ports;
                format!("PROXY TCP{family} {source} {destination} {from} {to}\r\n").into_bytes()
            }
            ProxyVersion::V2 => {
                let (family, length) = if source.is_ipv4() {
                    (0x11, 12)
                } else {
                    (0x21, 36)
                };
                let mut bytes = [V2_PROXY, &[family, 0, length]].concat();
                for address in [source, destination] {
                    match address {
                        IpAddr::V4(address) => bytes.extend(address.octets()),
                        IpAddr::V6(address) => bytes.extend(address.octets()),
                    }
                }
                bytes.extend(ports.into_iter().flat_map(u16::to_be_bytes));
                bytes
            }
        }
    }
}

/// Both IP addresses, in IPv4 if both are.
fn of_one_family((source, destination): (SocketAddr, SocketAddr)) -> (IpAddr, IpAddr) {
    let ends = [source, destination].map(|end| end.ip().to_canonical());
    let within_v6 = |address: IpAddr| match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        address @ IpAddr::V6(_) => address,
    };
    match ends {
        [source @ IpAddr::V4(_), destination @ IpAddr::V4(_)] => (source, destination),
        [source, destination] => (within_v6(source), within_v6(destination)),
    }
}
