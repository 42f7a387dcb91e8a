//! A server of nginx: the hosts that it is for, and where it listens.

use std::collections::BTreeSet;

use super::answers::{DirectResponse, Redirect, of_return};
use super::grammar::Directive;
use super::inherited::Inherited;
use super::{Left, is_valid};
use crate::entity::{Kind, Row};

/// A server.
pub(super) struct Server<'d> {
    pub(super) directive: &'d Directive,
    pub(super) inherited: Inherited<'d>,
    /// The names for which it answers; an empty one stands for hosts that no server names.
    pub(super) hosts: Vec<String>,
    /// A name that is a regular expression.
    pub(super) pattern: Option<&'d Directive>,
    /// Where it listens, without the wildcard of all addresses.
    pub(super) addresses: BTreeSet<String>,
    /// The addresses at which it is the server for hosts that no server names, because it says so.
    pub(super) is_default_at: BTreeSet<String>,
    /// Whether requests come in clear text, and over TLS.
    pub(super) is_plain: bool,
    pub(super) has_tls: bool,
    /// The status of the redirect to TLS of another server, for the same hosts.
    pub(super) redirect: Option<u16>,
}

impl<'d> Server<'d> {
    /// Reads a server; none if it listens on Unix sockets alone.
    pub(super) fn read(
        server: &'d Directive,
        around: &Inherited<'d>,
        left: &mut Left,
    ) -> Option<Self> {
        let mut read = Server {
            directive: server,
            inherited: around.within(&server.block),
            hosts: Vec::new(),
            pattern: None,
            addresses: BTreeSet::new(),
            is_default_at: BTreeSet::new(),
            is_plain: false,
            has_tls: false,
            redirect: None,
        };
        let (mut is_elsewhere, mut has_names) = (false, false);
        for directive in &server.block {
            match directive.name() {
                "listen" => {
                    is_elsewhere |= directive.value().starts_with("unix:");
                    read.listen(directive, left);
                }
                "server_name" => {
                    has_names = true;
                    read.names(directive, left);
                }
                _ => {}
            }
        }
        if read.addresses.is_empty() {
            if is_elsewhere {
                left.add(
                    server,
                    "not converted: it listens on Unix sockets alone, and routes are for all addresses \
                     in proxy_listen, so that other clients would reach it",
                );
                return None;
            }
            read.is_plain = true;
            read.addresses.insert("80".into());
        }
        if !has_names {
            read.hosts.push(String::new());
        }
        Some(read)
    }

    fn listen(&mut self, listen: &Directive, left: &mut Left) {
        let address = listen.value();
        let why = match listen.values().iter().any(|word| word == "default_server") {
            true => {
                "addresses are in the setting proxy_listen; requests for other hosts find no route"
            }
            false => "addresses are in the setting proxy_listen",
        };
        left.add(listen, why);
        if address.starts_with("unix:") {
            return;
        }
        let address = full_address(address);
        let mut words = listen.values().iter();
        if words.any(|word| word == "default_server" || word == "default") {
            self.is_default_at.insert(address.clone());
        }
        self.addresses.insert(address);
        let is_ssl = listen
            .values()
            .iter()
            .any(|word| word == "ssl" || word == "quic");
        let is_on = |directive: &Directive| directive.name() == "ssl" && directive.value() == "on";
        match is_ssl || self.directive.block.iter().any(is_on) {
            true => self.has_tls = true,
            false => self.is_plain = true,
        }
    }

    fn names(&mut self, names: &'d Directive, left: &mut Left) {
        for name in names.values() {
            match name.as_str() {
                // What matches no other server.
                "_" | "" => self.hosts.push(String::new()),
                name if name.starts_with('~') => {
                    left.add(
                        names,
                        "hosts are no regular expressions: not converted for those",
                    );
                    self.pattern = Some(names);
                }
                name => {
                    let hosts = match name.strip_prefix('.') {
                        Some(rest) => vec![rest.to_owned(), format!("*.{rest}")],
                        None => vec![name.to_owned()],
                    };
                    let row = Row::from_iter([("hosts".to_owned(), hosts.clone().into())]);
                    match is_valid(Kind::Route, &row) {
                        true => self.hosts.extend(hosts),
                        // No route is found for a request with it.
                        false => left.add(names, &format!("no route can have the host {name}")),
                    }
                }
            }
        }
        self.hosts.dedup();
    }

    /// Whether only clients of this machine reach it.
    pub(super) fn is_local(&self) -> bool {
        let local = |address: &String| {
            ["127.", "localhost", "[::1]"]
                .iter()
                .any(|begin| address.starts_with(begin))
        };
        self.addresses.iter().all(local)
    }

    /// The redirect to TLS, if it answers each request with one.
    pub(super) fn redirect_to_tls(&self) -> Option<Redirect> {
        let own: Vec<&Directive> = self
            .directive
            .block
            .iter()
            .filter(|own| !["listen", "server_name"].contains(&own.name()))
            .collect();
        let only = match own.as_slice() {
            [own] if own.name() == "location" && own.value() == "/" => match own.block.as_slice() {
                [only] => only,
                _ => return None,
            },
            [only] => only,
            _ => return None,
        };
        match of_return(only).ok().filter(|_| only.name() == "return")? {
            DirectResponse::ToHost(redirect) if redirect.is_to_tls() => Some(redirect),
            _ => None,
        }
    }
}

/// An address of `listen` in the form in which those that are the same to nginx are equal: with its
/// port, and without a wildcard for all addresses of IPv4.
fn full_address(written: &str) -> String {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_port(written) {
        return written.to_owned();
    }
    let has_port = match written.rsplit_once(':') {
        Some((host, port)) => is_port(port) && (!host.starts_with('[') || host.ends_with(']')),
        None => false,
    };
    let full = match has_port {
        true => written.to_owned(),
        false => format!("{written}:80"),
    };
    let every = ["*:", "0.0.0.0:"].iter();
    let port = every.filter_map(|all| full.strip_prefix(all)).next();
    port.map_or_else(|| full.clone(), str::to_owned)
}
