//! The address of a request's client. The peer of its connection is a client, or a proxy in front
//! of clients that names them. Only proxies that the operator trusts name clients.
//!
//! Source: nginx, `ngx_http_realip_module`; Kong 3.9, `trusted_ips`.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderValue};

use crate::config::{RealIp, RealIpSource};

/// An address that a request is from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientAddress {
    /// The address. Its port is 0 if only the IP address is known.
    pub(super) address: SocketAddr,
    /// The IP address, as a header value.
    pub(super) ip: HeaderValue,
}

impl ClientAddress {
    /// An IPv4 address within IPv6 is taken for one of IPv4.
    pub(super) fn new(address: SocketAddr) -> Self {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let ip = address.ip().to_string();
        Self {
            address,
            ip: HeaderValue::try_from(ip).unwrap_or(HeaderValue::from_static("")),
        }
    }
}

/// What the gateway trusts the peer of a connection to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Trust {
    /// It may name the client of the connection in a header of the PROXY protocol.
    pub(super) names_by_proxy_protocol: bool,
    /// It may name the client of each request in a header.
    pub(super) names_by_header: bool,
    /// Its `X-Forwarded-Proto`, `-Host`, `-Port`, `-Path` and `-Prefix` are sent on.
    pub(super) keeps_forwarded: bool,
}

impl Trust {
    /// What a peer with this address is trusted to say; that of a Unix socket has none.
    pub(super) fn of(settings: &RealIp, peer: Option<IpAddr>) -> Self {
        let trusted = &settings.trusted;
        if trusted.is_empty() {
            return Self::default();
        }
        let names = match peer {
            Some(address) => trusted.contain(address),
            None => trusted.contain_unix(),
        };
        let by_proxy_protocol = settings.source == RealIpSource::ProxyProtocol;
        Self {
            names_by_proxy_protocol: names && by_proxy_protocol,
            names_by_header: names && !by_proxy_protocol,
            // The entry `unix:` is not for these headers. Source: Kong.
            keeps_forwarded: match peer {
                Some(_) => names,
                None => trusted.contain_all(),
            },
        }
    }
}

/// The client that the headers of a request name, if the peer of its connection is trusted.
pub(super) fn named(
    settings: &RealIp,
    trust: Trust,
    headers: &HeaderMap,
) -> Option<Box<ClientAddress>> {
    if !trust.names_by_header {
        return None;
    }
    let address = find(settings, headers)?;
    Some(Box::new(ClientAddress::new(address)))
}

/// The last address of the list in the header; if trusted addresses are skipped, the last one that
/// is not trusted, or else the first one. What stands before a text that is no address is not
/// trusted, because a trusted proxy would have written an address.
fn find(settings: &RealIp, headers: &HeaderMap) -> Option<SocketAddr> {
    let RealIpSource::Header(name) = &settings.source else {
        return None;
    };
    let mut found = None;
    // Several lines are one list (RFC 9110, 5.3).
    let lines = headers.get_all(name).iter().rev();
    let elements = lines.flat_map(|line| {
        let elements = line.as_bytes().rsplit(|byte| b" ,\t".contains(byte));
        elements.filter(|element| !element.is_empty())
    });
    for element in elements {
        let Some(address) = parse(element) else {
            break;
        };
        found = Some(address);
        if !settings.recursive || !settings.trusted.contain(address.ip()) {
            break;
        }
    }
    found
}

/// An address, or an address and a port; IPv6 is in brackets then.
fn parse(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let (ip, port) = match text.parse::<IpAddr>() {
        Ok(ip) => (ip, 0),
        Err(_) => {
            let address: SocketAddr = text.parse().ok()?;
            (
                address.ip(),
                Some(address.port()).filter(|port| *port != 0)?,
            )
        }
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;
    use crate::config::TrustedIps;

    const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

    fn settings(trusted: &[&str], recursive: bool) -> RealIp {
        RealIp {
            trusted: TrustedIps::parse(trusted).unwrap(),
            source: RealIpSource::Header(FORWARDED_FOR),
            recursive,
        }
    }

    fn found(settings: &RealIp, lines: &[&str]) -> Option<String> {
        let line = |line: &&str| (FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        let headers: HeaderMap = lines.iter().map(line).collect();
        find(settings, &headers).map(|address| address.to_string())
    }

    #[test]
    fn the_last_address_of_the_list_is_the_clients() {
        let settings = settings(&["10.0.0.0/8"], false);
        for (lines, expected) in [
            (&["192.0.2.1"][..], Some("192.0.2.1:0")),
            (&["192.0.2.1, 192.0.2.2"], Some("192.0.2.2:0")),
            (&["192.0.2.1,192.0.2.2 , "], Some("192.0.2.2:0")),
            (&["192.0.2.1", "192.0.2.2"], Some("192.0.2.2:0")),
            (&["192.0.2.1, 10.0.0.1"], Some("10.0.0.1:0")),
            (&["192.0.2.1:8080"], Some("192.0.2.1:8080")),
            (&["[2001:db8::1]:8080"], Some("[2001:db8::1]:8080")),
            (&["2001:db8::1"], Some("[2001:db8::1]:0")),
            (&["::ffff:192.0.2.1"], Some("192.0.2.1:0")),
            (&["192.0.2.1, unknown"], None),
            (&["192.0.2.1:0"], None),
            (&["192.0.2.1:65536"], None),
            (&["[2001:db8::1]"], None),
            (&["192.0.2.01"], None),
            (&["192.0.2.1;192.0.2.2"], None),
            (&["unix:"], None),
            (&[" , "], None),
            (&[], None),
        ] {
            assert_eq!(found(&settings, lines).as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn recursively_the_last_address_that_is_not_trusted_is_the_clients() {
        let settings = settings(&["10.0.0.0/8", "::1"], true);
        for (lines, expected) in [
            (&["192.0.2.1, 10.0.0.1, ::1"][..], Some("192.0.2.1:0")),
            (&["192.0.2.9, 192.0.2.1", "10.0.0.1"], Some("192.0.2.1:0")),
            (&["192.0.2.1, 192.0.2.2"], Some("192.0.2.2:0")),
            // All are trusted.
            (&["10.0.0.3, 10.0.0.2", "10.0.0.1"], Some("10.0.0.3:0")),
            // What stands before a text that is not an address is not trusted.
            (&["192.0.2.1, unknown, 10.0.0.1"], Some("10.0.0.1:0")),
            (&["192.0.2.1, unknown"], None),
        ] {
            assert_eq!(found(&settings, lines).as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn headers_of_untrusted_peers_are_ignored() {
        let none = Trust::default();
        let by_header = settings(&["10.0.0.0/8", "unix:"], false);
        let by_protocol = RealIp {
            source: RealIpSource::ProxyProtocol,
            ..by_header.clone()
        };
        let ip = |text: &str| Some(text.parse().unwrap());
        assert_eq!(Trust::of(&RealIp::default(), ip("127.0.0.1")), none);
        assert_eq!(Trust::of(&RealIp::default(), None), none);
        assert_eq!(Trust::of(&by_header, ip("11.0.0.1")), none);
        let trust = Trust::of(&by_header, ip("10.0.0.1"));
        assert!(trust.names_by_header && trust.keeps_forwarded && !trust.names_by_proxy_protocol);
        let trust = Trust::of(&by_protocol, ip("10.0.0.1"));
        assert!(!trust.names_by_header && trust.keeps_forwarded && trust.names_by_proxy_protocol);
        let trust = Trust::of(&by_header, None);
        assert!(trust.names_by_header && !trust.keeps_forwarded);
        let all = settings(&["0.0.0.0/0", "::/0"], false);
        assert!(Trust::of(&all, ip("203.0.113.9")).names_by_header);
        let trust = Trust::of(&all, None);
        assert!(!trust.names_by_header && trust.keeps_forwarded);
    }

    proptest! {
        #[test]
        fn the_client_is_found_from_the_right(
            addresses in proptest::collection::vec(0..4_u8, 1..8),
            cuts in proptest::collection::vec(any::<bool>(), 8),
            recursive: bool,
        ) {
            // 10.0.0.0 and 10.0.0.1 are trusted.
            let settings = settings(&["10.0.0.0/31"], recursive);
            let mut lines = vec![String::new()];
            for (address, cut) in addresses.iter().zip(cuts) {
                if cut {
                    lines.push(String::new());
                }
                let line = lines.last_mut().unwrap();
                line.push_str(&format!("10.0.0.{address}, "));
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let untrusted = addresses.iter().rfind(|address| **address > 1);
            let expected = match recursive {
                true => untrusted.unwrap_or(&addresses[0]),
                false => addresses.last().unwrap(),
            };
            prop_assert_eq!(found(&settings, &lines), Some(format!("10.0.0.{expected}:0")));
        }

        #[test]
        fn no_text_is_taken_for_two_addresses(text in "[0-9a-f.:\\[\\] ,;x]{0,60}") {
            let settings = settings(&[], true);
            if let Some(found) = found(&settings, &[&text]) {
                let last = text.rsplit([' ', ',']).find(|element| !element.is_empty());
                let address = parse(last.unwrap().as_bytes()).unwrap();
                prop_assert_eq!(found, address.to_string());
            }
        }
    }
}
