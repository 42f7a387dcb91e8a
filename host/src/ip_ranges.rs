//! Ranges of IP addresses, as operators write them, and whether they contain an address.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses, or an address as a range of one. The fields that have one are checked with
/// this, and the data plane reads them with it.
pub(crate) fn ip_range(text: &str) -> Option<IpNet> {
    // An octet with leading zeros is octal to some programs, so it is refused.
    let address: IpAddr = text.split('/').next()?.parse().ok()?;
    match text.contains('/') {
        true => text.parse().ok(),
        false => Some(address.into()),
    }
}

/// Ranges of addresses, sorted, so that the time to find an address does not grow with their
/// number. None contains another.
#[derive(Debug, Clone, Default)]
pub(crate) struct IpRanges {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl IpRanges {
    pub(crate) fn new(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        let ranges: Vec<IpNet> = ranges.into_iter().map(canonical).collect();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in IpNet::aggregate(&ranges) {
            match range {
                IpNet::V4(range) => v4.push(range),
                IpNet::V6(range) => v6.push(range),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        Self { v4, v6 }
    }

    /// Whether a range contains the address, which is not an IPv4 address within IPv6.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
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

    /// Whether they contain every address.
    pub(crate) fn contain_all(&self) -> bool {
        let (v4, v6) = (self.v4.first(), self.v6.first());
        v4.is_some_and(|range| range.prefix_len() == 0)
            && v6.is_some_and(|range| range.prefix_len() == 0)
    }
}

/// A range of IPv4 addresses within IPv6 (`::ffff:0:0/96`) as one of IPv4, the form in which
/// clients are compared.
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(texts: &[&str]) -> IpRanges {
        IpRanges::new(texts.iter().map(|text| ip_range(text).unwrap()))
    }

    #[test]
    fn a_range_of_ipv4_within_ipv6_is_one_of_ipv4() {
        let ranges = ranges(&["::ffff:203.0.113.7", "::ffff:10.0.0.0/104"]);
        for (address, contained) in [
            ("203.0.113.7", true),
            ("10.9.9.9", true),
            ("11.0.0.1", false),
        ] {
            assert_eq!(
                ranges.contain(address.parse().unwrap()),
                contained,
                "{address}"
            );
        }
    }

    #[test]
    fn all_addresses_are_those_of_both_versions() {
        for (texts, all) in [
            (&["0.0.0.0/0", "::/0"][..], true),
            (&["0.0.0.0/1", "::/0", "128.0.0.0/1"], true),
            (&["0.0.0.0/0"], false),
            (&["::/0"], false),
            (&["0.0.0.0/0", "::1"], false),
            (&[], false),
        ] {
            assert_eq!(ranges(texts).contain_all(), all, "{texts:?}");
        }
    }

    proptest! {
        #[test]
        fn ranges_contain_what_one_of_them_contains(
            single in proptest::collection::vec((0..1024_u32, 20..=32_u8), 1..20),
            address in 0..1024_u32,
        ) {
            let single: Vec<Ipv4Net> = single
                .into_iter()
                .map(|(start, length)| Ipv4Net::new((start << 2).into(), length).unwrap())
                .collect();
            let address = std::net::Ipv4Addr::from(address << 2);
            let ranges = IpRanges::new(single.iter().copied().map(IpNet::V4));
            let contained = single.iter().any(|range| range.contains(&address));
            prop_assert_eq!(ranges.contain(address.into()), contained);
        }
    }
}
