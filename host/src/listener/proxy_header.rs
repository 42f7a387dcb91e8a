//! Headers of the PROXY protocol that the gateway writes, for endpoints that read them. Source:
//! HAProxy, "The PROXY protocol, versions 1 & 2".

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

/// The start of a header of version 2, with the command PROXY.
const V2_PROXY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21";

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
    pub(crate) version: ProxyVersion,
    /// The client.
    pub(crate) source: SocketAddr,
    /// The address that the client is connected to.
    pub(crate) destination: SocketAddr,
}

impl ProxyHeader {
    /// The header as it is sent.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (source, destination) = self.of_one_family();
        let ports = [self.source.port(), self.destination.port()];
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

    /// Both IP addresses, in IPv4 if both are.
    fn of_one_family(&self) -> (IpAddr, IpAddr) {
        let ends = [self.source, self.destination].map(|end| end.ip().to_canonical());
        let within_v6 = |address: IpAddr| match address {
            IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
            address @ IpAddr::V6(_) => address,
        };
        match ends {
            [source @ IpAddr::V4(_), destination @ IpAddr::V4(_)] => (source, destination),
            [source, destination] => (within_v6(source), within_v6(destination)),
        }
    }
}
