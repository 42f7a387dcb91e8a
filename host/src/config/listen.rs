//! An entry of `proxy_listen`, `admin_listen`, `admin_gui_listen`, `status_listen` or
//! `stream_listen`: an address with flags. Source: Kong 3.9, `kong.conf_loader.listeners`, and
//! nginx, `listen`.

mod address;
mod keepalive;

use std::fmt;
use std::path::PathBuf;

pub use address::ListenAddress;
pub use keepalive::ListenKeepalive;

/// What is spoken with clients, which decides the flags that an address may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subsystem {
    /// HTTP.
    Http,
    /// Bytes, or datagrams.
    Stream,
}

impl Subsystem {
    /// The form of a list, in the words of Kong.
    pub(super) fn form(self) -> &'static str {
        match self {
            Self::Http => {
                "must be of form: [off] | <ip>:<port> [ssl] [http2] [proxy_protocol] [deferred] \
                 [bind] [reuseport] [backlog=%d+] [ipv6only=on] [ipv6only=off] [so_keepalive=on] \
                 [so_keepalive=off] [so_keepalive=%w*:%w*:%d*], [... next entry ...], where \
                 unix:<path> may stand for <ip>:<port>"
            }
            Self::Stream => {
                "must be of form: [off] | <ip>:<port> [udp] [ssl] [proxy_protocol] [bind] \
                 [reuseport] [backlog=%d+] [ipv6only=on] [ipv6only=off] [so_keepalive=on] \
                 [so_keepalive=off] [so_keepalive=%w*:%w*:%d*], [... next entry ...], where \
                 unix:<path> may stand for <ip>:<port> without udp"
            }
        }
    }
}

/// An address that the gateway listens on, with its flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: ListenAddress,
    /// Clients send datagrams (UDP).
    pub udp: bool,
    /// Clients have to speak TLS.
    pub ssl: bool,
    /// Clients may speak HTTP/2. As in Kong, this holds for all entries of a list if one has it.
    pub http2: bool,
    /// Each connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// The kernel may hold back a connection until its first bytes are received.
    pub deferred: bool,
    /// nginx's `bind`, which changes nothing here: each address has sockets of its own.
    pub bind: bool,
    /// Each worker has a socket of its own, which every worker of the proxy has in any case.
    pub reuseport: bool,
    /// Connections that the kernel queues until the gateway accepts them.
    pub backlog: Option<u32>,
    /// Whether an IPv6 address serves IPv6 only. Without the flag it does.
    pub ipv6only: Option<bool>,
    /// TCP keep-alive of accepted connections, other than the system's default.
    pub keepalive: Option<ListenKeepalive>,
}

impl Listen {
    /// An address without flags.
    pub fn new(address: ListenAddress) -> Self {
        Self {
            address,
            udp: false,
            ssl: false,
            http2: false,
            proxy_protocol: false,
            deferred: false,
            bind: false,
            reuseport: false,
            backlog: None,
            ipv6only: None,
            keepalive: None,
        }
    }

    /// The port, as requests of the address are told it: that of a Unix socket is the one that the
    /// scheme has by default.
    pub fn port(&self) -> u16 {
        let default = if self.ssl { 443 } else { 80 };
        self.address.ip().map_or(default, |address| address.port())
    }

    /// Parses a list. The word `off` in place of the first address leaves it empty.
    ///
    /// # Errors
    /// Each entry that is wrong, with what is wrong in it.
    pub(super) fn parse_list(
        entries: &[&str],
        subsystem: Subsystem,
    ) -> Result<Vec<Self>, Vec<(String, String)>> {
        match entries.first() {
            None => return Err(vec![(String::new(), "there is no address".into())]),
            Some(first) if first.split_ascii_whitespace().any(|word| word == "off") => {
                return Ok(Vec::new());
            }
            Some(_) => {}
        }
        let mut listens = Vec::new();
        let mut wrong = Vec::new();
        for entry in entries {
            match Self::parse(entry, subsystem) {
                Ok(listen) => listens.push(listen),
                Err(reason) => wrong.push(((*entry).to_owned(), reason)),
            }
        }
        if wrong.is_empty() {
            Ok(listens)
        } else {
            Err(wrong)
        }
    }

    /// Parses an address and its flags, which may stand in any order.
    fn parse(entry: &str, subsystem: Subsystem) -> Result<Self, String> {
        let mut listen = Self::new(ListenAddress::Unix(PathBuf::new()));
        let mut address = None;
        for word in entry.split_ascii_whitespace() {
            if listen.set_flag(word, subsystem)? {
                continue;
            }
            if let Some(first) = address.replace(word) {
                // The word that is not an address is the one that is wrong.
                let wrong = if is_address(first) { word } else { first };
                return Err(format!("{wrong:?} is not a flag"));
            }
        }
        let address = address.ok_or("there is no address")?;
        listen.address = ListenAddress::parse(address)?;
        if listen.udp {
            listen.check_datagrams()?;
        }
        Ok(listen)
    }

    /// Refuses what needs connections. Source: nginx.
    fn check_datagrams(&self) -> Result<(), String> {
        let wrong = [
            (self.ssl, "ssl"),
            (self.proxy_protocol, "proxy_protocol"),
            (self.backlog.is_some(), "backlog"),
            (self.keepalive.is_some(), "so_keepalive"),
            (self.address.ip().is_none(), "a Unix socket"),
        ];
        match wrong.into_iter().find(|(set, _)| *set) {
            Some((_, name)) => Err(format!("udp and {name} cannot be used together")),
            None => Ok(()),
        }
    }

    /// Sets the flag that a word is. Returns whether it is one.
    fn set_flag(&mut self, word: &str, subsystem: Subsystem) -> Result<bool, String> {
        let flag = match (word, subsystem) {
            ("http2", Subsystem::Http) => &mut self.http2,
            ("deferred", Subsystem::Http) => &mut self.deferred,
            ("udp", Subsystem::Stream) => &mut self.udp,
            _ => return self.set_common_flag(word),
        };
        *flag = true;
        Ok(true)
    }

    fn set_common_flag(&mut self, word: &str) -> Result<bool, String> {
        let flag = match word {
            "ssl" => &mut self.ssl,
            "proxy_protocol" => &mut self.proxy_protocol,
            "bind" => &mut self.bind,
            "reuseport" => &mut self.reuseport,
            _ => return self.set_option(word),
        };
        *flag = true;
        Ok(true)
    }

    /// Sets the flag with a value that a word is. Returns whether it is one.
    fn set_option(&mut self, word: &str) -> Result<bool, String> {
        let Some((name, value)) = word.split_once('=') else {
            return Ok(false);
        };
        let wrong = || format!("{value:?} is not a value of {name}");
        match name {
            "backlog" => {
                let number = value.parse().ok().filter(|_| is_digits(value));
                self.backlog = Some(number.ok_or_else(wrong)?);
            }
            "ipv6only" => {
                self.ipv6only = Some(match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(wrong()),
                });
            }
            "so_keepalive" => {
                self.keepalive = Some(ListenKeepalive::parse(value).ok_or_else(wrong)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The flags, as they are written, in Kong's order.
    fn flags(&self) -> Vec<String> {
        let named = [
            (self.udp, "udp"),
            (self.ssl, "ssl"),
            (self.http2, "http2"),
            (self.proxy_protocol, "proxy_protocol"),
            (self.deferred, "deferred"),
            (self.bind, "bind"),
            (self.reuseport, "reuseport"),
        ];
        let named = named.into_iter().filter(|(set, _)| *set);
        let mut flags: Vec<String> = named.map(|(_, name)| name.to_owned()).collect();
        flags.extend(self.backlog.map(|backlog| format!("backlog={backlog}")));
        flags.extend(self.ipv6only.map(|only| {
            let value = if only { "on" } else { "off" };
            format!("ipv6only={value}")
        }));
        flags.extend(
            self.keepalive
                .map(|keepalive| format!("so_keepalive={keepalive}")),
        );
        flags
    }
}

/// An entry as it is written: address, then flags.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.flags()
            .iter()
            .try_for_each(|flag| write!(f, " {flag}"))
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a word could be meant as an address.
fn is_address(word: &str) -> bool {
    word.contains(':')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn reason(entry: &str) -> String {
        let wrong = Listen::parse_list(&[entry], Subsystem::Http).unwrap_err();
        assert_eq!(wrong[0].0, entry);
        wrong[0].1.clone()
    }

    #[test]
    fn kongs_default_is_a_plain_and_a_tls_address() {
        let entries = [
            "0.0.0.0:8000 reuseport backlog=16384",
            "0.0.0.0:8443 http2 ssl",
        ];
        let listens = Listen::parse_list(&entries, Subsystem::Http).unwrap();
        let [plain, tls] = listens.as_slice() else {
            panic!("{listens:?}");
        };
        assert_eq!(plain.address.ip(), "0.0.0.0:8000".parse().ok());
        assert!(plain.reuseport && !plain.ssl && !plain.http2);
        assert_eq!(plain.backlog, Some(16384));
        assert!(tls.ssl && tls.http2 && !tls.reuseport);
        assert_eq!(tls.to_string(), "0.0.0.0:8443 ssl http2");
    }

    #[test]
    fn every_flag_is_read_in_any_place() {
        let entry = "ssl [::1]:80 http2 so_keepalive=30m::10 proxy_protocol deferred bind \
                     ipv6only=off reuseport backlog=7";
        let listen = Listen::parse(entry, Subsystem::Http).unwrap();
        assert_eq!(
            listen.to_string(),
            "[::1]:80 ssl http2 proxy_protocol deferred bind reuseport backlog=7 ipv6only=off \
             so_keepalive=1800s::10"
        );
        assert_eq!(
            Listen::parse(&listen.to_string(), Subsystem::Http),
            Ok(listen)
        );
    }

    #[test]
    fn streams_have_flags_of_their_own() {
        let parse = |entry: &str| Listen::parse(entry, Subsystem::Stream);
        let listen = parse("udp 127.0.0.1:53 reuseport").unwrap();
        assert!(listen.udp && listen.reuseport);
        assert_eq!(listen.to_string(), "127.0.0.1:53 udp reuseport");
        let tls = parse("127.0.0.1:1 ssl proxy_protocol backlog=7 so_keepalive=on").unwrap();
        assert!(tls.ssl && tls.proxy_protocol && !tls.udp);
        for of_http in ["127.0.0.1:1 http2", "127.0.0.1:1 deferred"] {
            assert!(parse(of_http).is_err(), "{of_http}");
        }
        assert!(Listen::parse("127.0.0.1:53 udp", Subsystem::Http).is_err());
        for of_connections in ["ssl", "proxy_protocol", "backlog=7", "so_keepalive=on"] {
            let reason = parse(&format!("127.0.0.1:53 udp {of_connections}")).unwrap_err();
            assert!(reason.contains("cannot be used together"), "{reason}");
        }
        assert!(parse("unix:/run/a.sock udp").is_err());
    }

    #[test]
    fn off_counts_in_the_first_entry_only() {
        assert_eq!(
            Listen::parse_list(&["off", "0.0.0.0:1"], Subsystem::Http),
            Ok(Vec::new())
        );
        assert!(Listen::parse_list(&["0.0.0.0:1", "off"], Subsystem::Http).is_err());
        assert!(Listen::parse_list(&[], Subsystem::Http).is_err());
    }

    #[test]
    fn a_path_is_a_unix_socket_and_a_star_is_every_address() {
        let listen = Listen::parse("unix:/run/a.sock backlog=5", Subsystem::Http).unwrap();
        assert_eq!(listen.address.path(), Some(Path::new("/run/a.sock")));
        assert!(listen.address.is_local());
        let any = Listen::parse("*:80", Subsystem::Http).unwrap();
        assert_eq!(any.address.to_string(), "0.0.0.0:80");
        assert!(!any.address.is_local());
    }

    #[test]
    fn what_is_wrong_in_an_entry_is_named() {
        for (entry, expected) in [
            ("", "there is no address"),
            ("ssl", "there is no address"),
            ("0.0.0.0:80 sssl", "\"sssl\" is not a flag"),
            ("tls 0.0.0.0:80", "\"tls\" is not a flag"),
            ("0.0.0.0:80 backlog=", "\"\" is not a value of backlog"),
            ("0.0.0.0:80 backlog=+1", "\"+1\" is not a value of backlog"),
            (
                "0.0.0.0:80 ipv6only=yes",
                "\"yes\" is not a value of ipv6only",
            ),
            (
                "0.0.0.0:80 so_keepalive=::",
                "\"::\" is not a value of so_keepalive",
            ),
            (
                "0.0.0.0:80 so_keepalive=1:2",
                "\"1:2\" is not a value of so_keepalive",
            ),
            ("0.0.0.0", "\"0.0.0.0\" does not end in a port"),
            ("0.0.0.0:65536", "\"0.0.0.0:65536\" does not end in a port"),
            ("300.0.0.1:80", "\"300.0.0.1\" is not an address"),
            ("unix:", "there is no path after unix:"),
        ] {
            assert_eq!(reason(entry), expected, "{entry}");
        }
        assert!(reason(&format!("unix:/{}", "x".repeat(107))).contains("107 bytes"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_with_a_reason(
            // Without letters that could be a name, which would be looked up.
            entry in "((ssl|http2|off|(backlog=|so_keepalive=|ipv6only=|unix:)?[0-9:.*\\[\\]=]{0,9}) ){0,5}"
        ) {
            match Listen::parse(&entry, Subsystem::Http) {
                Ok(listen) => prop_assert_eq!(Listen::parse(&listen.to_string(), Subsystem::Http), Ok(listen)),
                Err(reason) => prop_assert!(!reason.is_empty()),
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            octets in any::<[u8; 4]>(),
            port in any::<u16>(),
            flags in any::<[bool; 6]>(),
            backlog in any::<Option<u32>>(),
            ipv6only in any::<Option<bool>>(),
            idle in prop::option::of(1_u64..32_767),
            probes in any::<Option<u32>>(),
        ) {
            let keepalive = (idle.is_some() || probes.is_some()).then_some(ListenKeepalive::Times {
                idle: idle.map(Duration::from_secs),
                interval: None,
                probes,
            });
            let [ssl, http2, proxy_protocol, deferred, bind, reuseport] = flags;
            let listen = Listen {
                address: ListenAddress::Ip((octets, port).into()),
                udp: false,
                ssl, http2, proxy_protocol, deferred, bind, reuseport, backlog, ipv6only, keepalive,
            };
            prop_assert_eq!(Listen::parse(&listen.to_string(), Subsystem::Http), Ok(listen));
        }
    }
}
