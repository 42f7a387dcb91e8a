//! `ip-restriction`: lets clients of some addresses in, or keeps them out. Source: Kong 3.9,
//! `ip-restriction`.

use std::net::IpAddr;

use http::StatusCode;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::answer::Answer;
use super::request::Request;
use super::{Access, Policy};
use crate::entity::ip_range;
use crate::entity::plugin::ip_restriction::Config;

/// Refuses clients by their addresses.
#[derive(Debug)]
pub(super) struct IpRestriction {
    allow: Option<Ranges>,
    deny: Option<Ranges>,
    status: StatusCode,
    message: Option<String>,
}

/// Ranges of addresses, sorted, so that the time to find an address does not grow with their
/// number. None contains another.
#[derive(Debug)]
struct Ranges {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

/// A range of IPv4 addresses within IPv6 (`::ffff:0:0/96`) as one of IPv4, the form in which clients
/// are compared.
fn canonical(range: IpNet) -> IpNet {
    let IpNet::V6(within) = range else {
        return range;
    };
    let length = within.prefix_len().checked_sub(96);
    let network = within.network().to_ipv4_mapped();
    let mapped = network
        .zip(length)
        .map(|(network, length)| Ipv4Net::new(network, length));
    match mapped {
        Some(Ok(mapped)) => IpNet::V4(mapped),
        _ => range,
    }
}

impl Ranges {
    /// `None` for an empty list, which Kong treats as one that is not given.
    fn parse(texts: Option<&[String]>) -> Result<Option<Self>, String> {
        let texts = texts.unwrap_or_default();
        let mut ranges = Vec::with_capacity(texts.len());
        for text in texts {
            let range = ip_range(text);
            let range = range.ok_or_else(|| format!("{text} is no range of addresses"))?;
            ranges.push(canonical(range));
        }
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in IpNet::aggregate(&ranges) {
            match range {
                IpNet::V4(range) => v4.push(range),
                IpNet::V6(range) => v6.push(range),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        Ok((!ranges.is_empty()).then_some(Self { v4, v6 }))
    }

    fn contain(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let after = self.v4.partition_point(|range| range.network() <= address);
                let last = after.checked_sub(1).and_then(|at| self.v4.get(at));
                last.is_some_and(|range| range.contains(&address))
            }
            IpAddr::V6(address) => {
                let after = self.v6.partition_point(|range| range.network() <= address);
                let last = after.checked_sub(1).and_then(|at| self.v6.get(at));
                last.is_some_and(|range| range.contains(&address))
            }
        }
    }
}

impl IpRestriction {
    /// # Errors
    /// A range is none.
    pub(super) fn new(config: Config) -> Result<Self, String> {
        let status = config.status.map(|status| status as u16);
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        Ok(Self {
            allow: Ranges::parse(config.allow.as_deref())?,
            deny: Ranges::parse(config.deny.as_deref())?,
            status: status.unwrap_or(StatusCode::FORBIDDEN),
            message: config.message,
        })
    }

    fn is_allowed(&self, address: IpAddr) -> bool {
        let is_denied = self.deny.as_ref().is_some_and(|deny| deny.contain(address));
        !is_denied
            && self
                .allow
                .as_ref()
                .is_none_or(|allow| allow.contain(address))
    }
}

impl Policy for IpRestriction {
    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        // A listener for both versions of IP shows the addresses of version 4 within version 6.
        let address = request.client.address.ip().to_canonical();
        if self.is_allowed(address) {
            return Access::PASS;
        }
        let message = self.message.clone();
        let message = message.unwrap_or_else(|| format!("IP address not allowed: {address}"));
        Answer::error(self.status, message).into()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> IpRestriction {
        let list = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
        IpRestriction::new(Config {
            allow: list(allow),
            deny: list(deny),
            status: None,
            message: None,
        })
        .unwrap()
    }

    #[test]
    fn a_range_of_ipv4_within_ipv6_is_one_of_ipv4() {
        let denied = policy(&[], &["::ffff:203.0.113.7", "::ffff:10.0.0.0/104"]);
        for (address, allowed) in [
            ("203.0.113.7", false),
            ("10.9.9.9", false),
            ("11.0.0.1", true),
        ] {
            assert_eq!(
                denied.is_allowed(address.parse().unwrap()),
                allowed,
                "{address}"
            );
        }
    }

    #[test]
    fn an_address_that_is_denied_is_not_allowed() {
        let both = policy(&["10.0.0.0/8", "::1"], &["10.1.0.0/16", "10.2.3.4"]);
        for (address, allowed) in [
            ("10.0.0.1", true),
            ("10.1.2.3", false),
            ("10.2.3.4", false),
            ("10.2.3.5", true),
            ("11.0.0.1", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(
                both.is_allowed(address.parse().unwrap()),
                allowed,
                "{address}"
            );
        }
        assert!(policy(&[], &["10.0.0.0/8"]).is_allowed("11.0.0.1".parse().unwrap()));
        assert!(!policy(&["0.0.0.0/0"], &[]).is_allowed("::1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn ranges_contain_what_one_of_them_contains(
            ranges in proptest::collection::vec((0..1024_u32, 20..=32_u8), 1..20),
            address in 0..1024_u32,
        ) {
            let ranges: Vec<Ipv4Net> = ranges
                .into_iter()
                .map(|(start, length)| Ipv4Net::new((start << 2).into(), length).unwrap())
                .collect();
            let address = std::net::Ipv4Addr::from(address << 2);
            let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            let found = Ranges::parse(Some(&texts)).unwrap().unwrap().contain(address.into());
            prop_assert_eq!(found, ranges.iter().any(|range| range.contains(&address)));
        }
    }
}
