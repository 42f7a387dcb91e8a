//! The servers of a file of nginx: which of them answers for a host.

use std::collections::BTreeMap;

use super::grammar::Directive;
use super::inherited::Inherited;
use super::routes::Converting;
use super::server::Server;
use super::{Left, Lists};

/// The servers of a file, in its order.
#[derive(Default)]
pub(super) struct Servers<'d>(Vec<Server<'d>>);

impl<'d> Servers<'d> {
    pub(super) fn add(&mut self, server: &'d Directive, around: &Inherited<'d>, left: &mut Left) {
        self.0.extend(Server::read(server, around, left));
    }

    /// Adds the servers to the lists.
    ///
    /// # Errors
    /// Hosts of a server cannot be told apart from those of others, which would answer requests
    /// that it refuses.
    pub(super) fn convert(mut self, left: &mut Left, lists: &mut Lists) -> Result<(), String> {
        self.leave_defaults(left);
        let closed = self.divide(left);
        let ranks = self.ranks();
        let mut converting = Converting {
            number: 0,
            origin: String::new(),
            ranks: &ranks,
            left,
            lists,
        };
        for host in &closed {
            converting.close_host(host);
        }
        let mut wide = None;
        for server in &self.0 {
            let is_wide = |host: &String| host.is_empty() || host.contains('*');
            if server.hosts.iter().any(is_wide) {
                wide.get_or_insert(server.directive.line);
            }
        }
        for server in &self.0 {
            let refuses = converting.server(server);
            if let (Some(pattern), Some(line)) = (server.pattern, wide)
                && refuses
            {
                return Err(format!(
                    "line {}: {}: hosts are no regular expressions, and the server in line {line} would \
                     answer requests that this one refuses: name the hosts of this server",
                    pattern.line,
                    pattern.words.join(" "),
                ));
            }
        }
        Ok(())
    }

    /// Takes the hosts that no server names from the servers that nginx does not give them to. At
    /// each address they are for the server that says so, or else for the first one. Source: nginx,
    /// `listen`.
    fn leave_defaults(&mut self, left: &mut Left) {
        let mut defaults: BTreeMap<String, usize> = BTreeMap::new();
        for says_so in [true, false] {
            for (place, server) in self.0.iter().enumerate() {
                let addresses = match says_so {
                    true => &server.is_default_at,
                    false => &server.addresses,
                };
                for address in addresses {
                    defaults.entry(address.clone()).or_insert(place);
                }
            }
        }
        let is_default = |place: usize| defaults.values().any(|default| *default == place);
        for (place, server) in self.0.iter_mut().enumerate() {
            if is_default(place) || !server.hosts.iter().any(String::is_empty) {
                continue;
            }
            server.hosts.retain(|host| !host.is_empty());
            left.add(
                server.directive,
                "not converted for no name: another server is the default of its address",
            );
        }
    }

    /// Decides which of several servers answers for a host. Returns the hosts for which none does,
    /// because nginx tells them apart by their addresses.
    fn divide(&mut self, left: &mut Left) -> Vec<String> {
        let mut by_host: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, server) in self.0.iter().enumerate() {
            for host in &server.hosts {
                by_host.entry(host.clone()).or_default().push(place);
            }
        }
        let mut closed = Vec::new();
        for (host, places) in by_host {
            let [first, rest @ ..] = places.as_slice() else {
                continue;
            };
            if rest.is_empty() {
                continue;
            }
            let mut leave = |servers: &mut Self, place: usize, why: &str| {
                let server = &mut servers.0[place];
                server.hosts.retain(|own| *own != host);
                let shown = if host.is_empty() { "no name" } else { &host };
                left.add(
                    server.directive,
                    &format!("not converted for {shown}: {why}"),
                );
            };
            let same = |place: &usize| self.0[*place].addresses == self.0[*first].addresses;
            if rest.iter().all(same) {
                for place in rest {
                    leave(
                        self,
                        *place,
                        "an earlier server has this name, as for nginx",
                    );
                }
                continue;
            }
            let over_tls = |place: &usize| self.0[*place].has_tls && !self.0[*place].is_plain;
            let in_clear = |place: &usize| self.0[*place].is_plain && !self.0[*place].has_tls;
            let (tls, plain) = match places.as_slice() {
                [one, other] if over_tls(one) && in_clear(other) => (*one, *other),
                [one, other] if over_tls(other) && in_clear(one) => (*other, *one),
                _ => {
                    for place in &places {
                        let why = "servers of one name at several addresses cannot be told apart, so \
                                   requests for it are answered with 503";
                        leave(self, *place, why);
                    }
                    closed.push(host);
                    continue;
                }
            };
            match self.0[plain].redirect_to_tls() {
                Some(redirect) => {
                    self.0[tls].redirect = Some(redirect.status);
                    self.0[plain].hosts.retain(|own| *own != host);
                }
                None => leave(
                    self,
                    plain,
                    "another server has this name over TLS, and answers requests in clear text with 426",
                ),
            }
        }
        self.0
            .retain(|server| !server.hosts.is_empty() || server.pattern.is_some());
        closed
    }

    /// The wildcards by their rank among each other, if several servers have some: nginx takes the
    /// longest one that begins with `*`, and then the longest one that ends with it.
    fn ranks(&self) -> BTreeMap<String, usize> {
        let is_wildcard = |host: &&String| host.contains('*');
        let with = self
            .0
            .iter()
            .filter(|server| server.hosts.iter().any(|host| host.contains('*')));
        if with.count() < 2 {
            return BTreeMap::new();
        }
        let hosts = self.0.iter().flat_map(|server| &server.hosts);
        let mut wildcards: Vec<&String> = hosts.filter(is_wildcard).collect();
        wildcards.sort_by_key(|host| (host.starts_with('*'), host.len()));
        let ranked = wildcards.into_iter().zip(1..);
        ranked.map(|(host, rank)| (host.clone(), rank)).collect()
    }
}
