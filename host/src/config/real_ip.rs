//! Which peers are trusted to name their clients. Source: Kong 3.9, `trusted_ips`,
//! `real_ip_header` and `real_ip_recursive`; nginx, `ngx_http_realip_module`.

use std::net::IpAddr;

use http::HeaderName;

use crate::ip_ranges::{IpRanges, ip_range};

/// How the address of a client is found, if its connection comes from a trusted peer.
#[derive(Debug, Clone, Default)]
pub struct RealIp {
    /// The peers that are trusted.
    pub trusted: TrustedIps,
    /// Where they say it.
    pub source: RealIpSource,
    /// Whether trusted addresses in a header are skipped as well, and not only the peer's own.
    pub recursive: bool,
}

/// Where a trusted peer says who its client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealIpSource {
    /// In this header of each request: an address or a list of them.
    Header(HeaderName),
    /// In the header of the PROXY protocol, at the start of the connection.
    ProxyProtocol,
}

/// Addresses that are trusted.
#[derive(Debug, Clone, Default)]
pub struct TrustedIps {
    ranges: IpRanges,
    unix: bool,
    all: bool,
    /// The entries, as they are written.
    pub(crate) written: Vec<String>,
}

impl Default for RealIpSource {
    fn default() -> Self {
        Self::Header(HeaderName::from_static("x-real-ip"))
    }
}

impl RealIpSource {
    /// The value of the setting, in lower case.
    pub fn name(&self) -> &str {
        match self {
            Self::Header(name) => name.as_str(),
            Self::ProxyProtocol => "proxy_protocol",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "proxy_protocol" => Some(Self::ProxyProtocol),
            name => name.parse().ok().map(Self::Header),
        }
    }
}

impl TrustedIps {
    /// Parses addresses, ranges of them, and `unix:`. Returns the entries that are wrong.
    pub(crate) fn parse(entries: &[&str]) -> Result<Self, Vec<String>> {
        let is_unix = |entry: &&&str| **entry == "unix:";
        let others = entries.iter().filter(|entry| !is_unix(entry));
        let others: Vec<&str> = others.copied().collect();
        let ranges = IpRanges::new(super::readers::each(&others, ip_range)?);
        Ok(Self {
            unix: entries.iter().any(|entry| is_unix(&entry)),
            all: ranges.contain_all(),
            ranges,
            written: super::readers::owned(entries),
        })
    }

    /// Whether no peer is trusted.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Whether an address is trusted, which is not an IPv4 address within IPv6.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.ranges.contain(address)
    }

    /// Whether clients of Unix sockets are trusted, which have no address.
    pub fn contain_unix(&self) -> bool {
        self.unix
    }

    /// Whether every address is trusted. Source: Kong, for `0.0.0.0/0,::/0`.
    pub fn contain_all(&self) -> bool {
        self.all
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn addresses_ranges_and_unix_are_trusted_and_nothing_else() {
        let entries = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "unix:"];
        let trusted = TrustedIps::parse(&entries).unwrap();
        for (address, expected) in [
            ("10.1.2.3", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8::1", true),
            ("::1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(trusted.contain(address), expected, "{address}");
        }
        assert!(trusted.contain_unix() && !trusted.contain_all() && !trusted.is_empty());
        let entries = [
            "localhost",
            "::1",
            "10.0.0.0/33",
            "unix:/run/a",
            "010.0.0.1",
        ];
        let wrong = TrustedIps::parse(&entries).unwrap_err();
        assert_eq!(
            wrong,
            ["localhost", "10.0.0.0/33", "unix:/run/a", "010.0.0.1"]
        );
    }

    #[test]
    fn no_peer_is_trusted_by_default() {
        for trusted in [TrustedIps::default(), TrustedIps::parse(&[]).unwrap()] {
            assert!(trusted.is_empty() && !trusted.contain_unix() && !trusted.contain_all());
            assert!(!trusted.contain("127.0.0.1".parse().unwrap()));
        }
        assert!(
            TrustedIps::parse(&["0.0.0.0/0", "::/0"])
                .unwrap()
                .contain_all()
        );
    }

    #[test]
    fn a_client_is_named_in_any_header_or_by_the_proxy_protocol() {
        let header = |name| Some(RealIpSource::Header(HeaderName::from_static(name)));
        for (text, source) in [
            ("X-Real-IP", header("x-real-ip")),
            ("X-Forwarded-For", header("x-forwarded-for")),
            ("proxy_protocol", Some(RealIpSource::ProxyProtocol)),
            ("X Real IP", None),
            ("", None),
        ] {
            assert_eq!(RealIpSource::parse(text), source, "{text}");
        }
        assert_eq!(
            RealIpSource::parse("X-Real-IP"),
            Some(RealIpSource::default())
        );
    }
}
