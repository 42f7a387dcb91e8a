//! Hosts with and without a port: parsing, the normal form that they are compared in, and
//! formatting.
//!
//! The normal form is that of a URI (RFC 3986, 3.2.2, and RFC 5952 for IPv6): names in lower case
//! and without the dot at their end, IPv4 without leading zeros, IPv6 in its shortest form and in
//! brackets.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::de::{Deserialize, Deserializer, Error};

/// An address or a name. Two spellings of the same host are equal.
#[derive(Debug, Clone)]
pub struct Host<'a> {
    /// The normal form, except that the dot at the end of a name is kept for [`Host::dns_name`].
    text: Cow<'a, str>,
}

/// A host with a port, or without one (RFC 3986, 3.2). It never has user information, which is not
/// part of a `Host` (RFC 9110, 4.2.4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority<'a> {
    /// The host.
    pub host: Host<'a>,
    /// The port, if there is one.
    pub port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Parses the host of a URI or a `Host` header: an IPv6 address has brackets, and a name may
    /// have all characters of RFC 3986, 3.2.2.
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.starts_with('[') {
            let address = text.strip_prefix('[')?.strip_suffix(']')?;
            let normal = v6(address.parse().ok()?);
            let unchanged = normal == text;
            let text = if unchanged {
                text.into()
            } else {
                normal.into()
            };
            return Some(Self { text });
        }
        // Most hosts are in normal form already, which one pass finds. They are not copied.
        let (mut upper, mut numeric, mut padded) = (false, true, false);
        // Where the present label begins.
        let (mut label, mut previous) = (0, 0);
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            if byte == b'.' {
                // Only the last label may be empty: the dot at the end of an absolute name (RFC
                // 1034, 3.1).
                if previous == b'.' {
                    return None;
                }
                label = at + 1;
            } else if is_reg_name(byte) {
                upper |= byte.is_ascii_uppercase();
                numeric &= byte.is_ascii_digit();
                padded |= previous == b'0' && at == label + 1;
            } else {
                return None;
            }
            previous = byte;
        }
        if matches!(text, "" | ".") {
            return None;
        }
        let text = if upper {
            Cow::Owned(text.to_ascii_lowercase())
        } else if numeric
            && padded
            && let Some(address) = v4(text.strip_suffix('.').unwrap_or(text))
        {
            Cow::Owned(address.to_string())
        } else {
            Cow::Borrowed(text)
        };
        Some(Self { text })
    }

    /// Parses the host of a setting, in which an IPv6 address needs no brackets.
    pub fn of_setting(text: &'a str) -> Option<Self> {
        match text.parse::<Ipv6Addr>() {
            Ok(address) => Some(Host::from(IpAddr::V6(address))),
            Err(_) => Self::parse(text),
        }
    }

    /// The name of an endpoint that is reached on its own machine. Source: nginx, the `Host` of
    /// requests to a Unix socket.
    pub fn localhost() -> Self {
        let text = Cow::Borrowed("localhost");
        Self { text }
    }

    /// The normal form; an IPv6 address is in brackets.
    pub fn as_str(&self) -> &str {
        self.text.strip_suffix('.').unwrap_or(&self.text)
    }

    /// The normal form; an IPv6 address is without brackets.
    pub fn bare(&self) -> &str {
        let text = self.as_str();
        text.strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text)
    }

    /// The name for a DNS query. A dot at its end means that it is absolute, so that no search
    /// domain is added (RFC 1034, 3.1).
    pub fn dns_name(&self) -> &str {
        &self.text
    }

    /// The address; `None` for a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.bare().parse().ok()
    }

    /// The host as a value that borrows nothing.
    pub fn into_owned(self) -> Host<'static> {
        Host {
            text: Cow::Owned(self.text.into_owned()),
        }
    }

    /// The host with a port, unless that is `own`, the default port of the protocol.
    pub fn with_port(&self, port: u16, own: u16) -> String {
        let host = self.as_str();
        if port == own {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        }
    }
}

impl From<IpAddr> for Host<'static> {
    fn from(address: IpAddr) -> Self {
        let text = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => v6(address),
        };
        Self { text: text.into() }
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Host<'_> {}

impl Hash for Host<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'a> Authority<'a> {
    /// Parses the authority of a URI or a `Host` header; `None` if it is not a host with or without
    /// a port.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = split_port(text);
        let port = match port {
            // The port after the colon may be empty (RFC 3986, 3.2.3).
            None | Some("") => None,
            Some(port) => Some(parse_port(port)?),
        };
        let host = Host::parse(host)?;
        Some(Self { host, port })
    }

    /// Parses the authority of a setting, in which an IPv6 address without a port needs no
    /// brackets.
    pub fn of_setting(text: &'a str) -> Option<Self> {
        match text.parse::<Ipv6Addr>() {
            Ok(address) => Some(Self {
                host: Host::from(IpAddr::V6(address)),
                port: None,
            }),
            Err(_) => Self::parse(text),
        }
    }

    /// The socket address, with `port` if there is no port; `None` for a name.
    pub fn socket_address(&self, port: u16) -> Option<SocketAddr> {
        let ip = self.host.ip()?;
        Some(SocketAddr::new(ip, self.port.unwrap_or(port)))
    }

    /// The authority as text. If it has no port, `port` is added, unless that is `own`, the default
    /// port of the protocol.
    pub fn with_port(&self, port: u16, own: u16) -> Cow<'_, str> {
        match self.port {
            Some(_) => self.to_string().into(),
            None if port == own => self.host.as_str().into(),
            None => self.host.with_port(port, own).into(),
        }
    }

    /// The authority as a value that borrows nothing.
    pub fn into_owned(self) -> Authority<'static> {
        Authority {
            host: self.host.into_owned(),
            port: self.port,
        }
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(self.host.as_str()),
        }
    }
}

/// Deserialised as in settings.
impl<'de> Deserialize<'de> for Host<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let host = Host::of_setting(&text).map(Host::into_owned);
        host.ok_or_else(|| D::Error::custom(format!("{text:?} is not a host")))
    }
}

/// Deserialised as in settings.
impl<'de> Deserialize<'de> for Authority<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let authority = Authority::of_setting(&text).map(Authority::into_owned);
        authority.ok_or_else(|| D::Error::custom(format!("{text:?} is not a host with a port")))
    }
}

/// Splits off the text after the last colon, unless the colon is within brackets.
pub fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// Parses a port: digits only.
pub fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Parses an address of a setting, IPv6 with or without brackets. IPv4 numbers with leading zeros
/// are decimal, as in Kong.
pub fn ip(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare {
        Some(address) => address.parse().ok().map(IpAddr::V6),
        None => match text.parse() {
            Ok(address) => Some(IpAddr::V6(address)),
            Err(_) => v4(text).map(IpAddr::V4),
        },
    }
}

/// An IPv6 address with all its digits, as Kong stores it.
pub fn written_out(address: Ipv6Addr) -> String {
    let groups = address.segments().map(|group| format!("{group:04x}"));
    groups.join(":")
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        *octet = digits.then(|| part.parse().ok()).flatten()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn v6(address: Ipv6Addr) -> String {
    format!("[{address}]")
}

/// Whether a byte may be in a name: unreserved characters, sub-delimiters, and the `%` of escapes
/// (RFC 3986, 3.2.2).
fn is_reg_name(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%')
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_spellings_of_a_host_have_the_same_normal_form() {
        for (spelled, normal) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("127.000.000.001", "127.0.0.1"),
            ("010.0.0.1.", "10.0.0.1"),
            ("10.0.0.10", "10.0.0.10"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[2001:DB8::00A]", "[2001:db8::a]"),
            ("a_b-c", "a_b-c"),
        ] {
            assert_eq!(Host::parse(spelled).unwrap().as_str(), normal);
        }
        assert_eq!(Host::of_setting("0::1").unwrap().as_str(), "[::1]");
        assert_eq!(Host::of_setting("0::1").unwrap().bare(), "::1");
        assert_eq!(Host::parse("A.b."), Host::parse("a.B"));
        assert_eq!(Host::parse("A.b.").unwrap().dns_name(), "a.b.");
    }

    #[test]
    fn a_host_in_normal_form_is_not_copied() {
        for text in ["example.com", "127.0.0.1", "100.20.30.0", "[::1]", "a."] {
            assert!(matches!(Host::parse(text).unwrap().text, Cow::Borrowed(_)));
        }
    }

    #[test]
    fn an_invalid_authority_is_refused() {
        for wrong in [
            "",
            ":80",
            ".",
            "user@host",
            "user:password@host:80",
            "a b",
            "a:b",
            "a:b:c",
            "a:99999",
            "a:+80",
            "::1",
            "[::1",
            "[::1]x",
            "[a]",
            "a]:80",
            "[::1%25eth0]",
            "a..b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "\u{e4}.example",
        ] {
            assert_eq!(Authority::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_port_is_added_unless_there_is_one_or_it_is_the_default() {
        let written = |text: &str, port| {
            let authority = Authority::of_setting(text).unwrap();
            authority.with_port(port, 80).into_owned()
        };
        assert_eq!(written("a.example", 80), "a.example");
        assert_eq!(written("a.example", 9001), "a.example:9001");
        assert_eq!(written("a.example:7", 9001), "a.example:7");
        assert_eq!(written("::1", 9001), "[::1]:9001");
        assert_eq!(written("[::1]:7", 9001), "[::1]:7");
        assert_eq!(written("a.example:", 80), "a.example");
        let address = Authority::of_setting("127.0.0.001:7").unwrap();
        assert_eq!(
            address.socket_address(8000),
            Some(([127, 0, 0, 1], 7).into())
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(text in "[a-zA-Z0-9.:\\[\\]_-]{0,20}") {
            if let Some(authority) = Authority::of_setting(&text) {
                let written = authority.to_string();
                let again = Authority::parse(&written);
                prop_assert_eq!(again.as_ref(), Some(&authority));
                prop_assert_eq!(again.unwrap().to_string(), written.clone());
            }
        }
    }
}
