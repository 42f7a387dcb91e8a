//! HTTPRoutes and GRPCRoutes: a service for each rule, with a route for each of its matches.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::ids;
use super::super::nginx::{CLOSED, refusal};
use super::backends::{Backends, Destination};
use super::filters::Filters;
use super::gateways::{Entry, Listeners};
use super::matches::{Matched, of_grpc, of_http};
use super::policies::Guarded;
use super::{At, Left, Lists, Manifests, millis};
use crate::entity::Row;

pub(super) fn convert(
    manifests: &Manifests,
    listeners: &Listeners,
    backends: &mut Backends<'_>,
    left: &mut Left,
    lists: &mut Lists,
) {
    let guarded = Guarded::read(manifests, left);
    for (kind, is_grpc) in [("HTTPRoute", false), ("GRPCRoute", true)] {
        for route in manifests.of_kind(kind) {
            let top = At::top(route);
            let Some(spec) = top.get("spec") else {
                left.add(&top, "it has no spec");
                continue;
            };
            left.others(&spec, &["parentRefs", "hostnames", "rules"]);
            let entries = listeners.entries(&spec, left);
            let mut rules = spec.list("rules");
            if rules.is_empty() {
                left.add(&spec, "it has no rules");
            }
            for (number, rule) in rules.drain(..).enumerate() {
                let (namespace, name) = (&route.namespace, &route.name);
                let key = (namespace.clone(), name.clone());
                // Routes of the two kinds may have one name.
                let name = match is_grpc && manifests.find("HTTPRoute", &key).is_some() {
                    true => format!("{namespace}.{name}.grpc.{}", number + 1),
                    false => format!("{namespace}.{name}.{}", number + 1),
                };
                let mut converting = Rule {
                    name,
                    is_grpc,
                    is_guarded: guarded.contains(route, &spec),
                    entries: &entries,
                    left: &mut *left,
                    lists: &mut *lists,
                };
                converting.convert(&rule, backends);
            }
        }
    }
}

struct Rule<'a> {
    /// The name of its service, and the beginning of the names of its routes.
    name: String,
    is_grpc: bool,
    /// Whether a policy that is not converted decides whose requests are served.
    is_guarded: bool,
    entries: &'a [Entry],
    left: &'a mut Left,
    lists: &'a mut Lists,
}

impl Rule<'_> {
    fn convert(&mut self, rule: &At<'_>, backends: &Backends<'_>) {
        let known = [
            "name",
            "matches",
            "filters",
            "backendRefs",
            "timeouts",
            "retry",
            "sessionPersistence",
        ];
        let mut is_open = self.left.others(rule, &known) && !self.is_guarded;
        let filters = Filters::read(rule, self.left);
        let matches = rule.list("matches");
        let mut matched: Vec<Matched> = match self.is_grpc {
            false => matches.iter().map(|at| of_http(at, self.left)).collect(),
            true => matches.iter().map(|at| of_grpc(at, self.left)).collect(),
        };
        if matches.is_empty() {
            matched.push(Matched::everything());
        }
        if self.entries.is_empty() {
            return;
        }
        let filters = filters.unwrap_or_else(|| {
            is_open = false;
            Filters::default()
        });
        if filters.prefix.is_some() && matched.iter().any(|matched| !matched.is_prefix) {
            self.left
                .add(rule, "only a prefix of a path can be replaced");
            is_open = false;
        }
        // A redirect is answered by a plugin, and no request is sent.
        let destination = match is_open && filters.redirect.is_none() {
            true => backends.destination(rule, self.left),
            false => None,
        };
        if is_open && filters.redirect.is_none() && destination.is_none() {
            self.left.add(rule, "it has no backend");
            is_open = false;
        }
        let (mut passed, mut count) = (Vec::new(), 0);
        for matched in &matched {
            for entry in self.entries {
                count += 1;
                let name = format!("{}.{count}", self.name);
                let is_open = is_open && !matched.is_wider;
                let route = match is_open {
                    true => self.route(rule, name.clone(), matched, entry, &filters),
                    false => None,
                };
                match route {
                    Some(route) if destination.is_some() => passed.push(route),
                    Some(route) => self.lists.add_route(route, rule),
                    None => self.close(rule, name, matched, entry),
                }
            }
        }
        if let Some(destination) = destination
            && !passed.is_empty()
        {
            let mut service = self.service(rule, &filters, &destination);
            service.insert("routes".into(), passed.into());
            self.lists.add_service(service, rule);
        }
    }

    /// Answers the requests of a match that cannot be passed on as the rule says, so that no wider
    /// rule takes them.
    fn close(&mut self, rule: &At<'_>, name: String, matched: &Matched, entry: &Entry) {
        let why = "its requests are answered with 503, since the file cannot express it";
        self.left.add(rule, why);
        let mut route = self.fields(name, matched, entry);
        // Of two routes for the same requests the one with the greater id answers.
        let mut id = ids::of("routes", route["name"].as_str().unwrap_or_default()).into_bytes();
        id[..4].fill(0xff);
        route.insert("id".into(), Uuid::from_bytes(id).to_string().into());
        route.insert("tags".into(), json!([CLOSED]));
        route.insert("plugins".into(), json!([refusal(503)]));
        self.lists.add_route(route.into(), rule);
    }

    fn service(&mut self, rule: &At<'_>, filters: &Filters, destination: &Destination) -> Row {
        let protocol = match (self.is_grpc, destination.tls.is_some()) {
            (false, false) => "http",
            (false, true) => "https",
            (true, false) => "grpc",
            (true, true) => "grpcs",
        };
        let mut service = Row::from_iter([
            ("name".to_owned(), Value::from(self.name.as_str())),
            ("protocol".to_owned(), protocol.into()),
        ]);
        let upstream = self.upstream(rule, filters, destination);
        match (&destination.single, &upstream) {
            (Some((host, port)), None) => {
                service.insert("host".into(), host.as_str().into());
                service.insert("port".into(), (*port).into());
            }
            _ => {
                service.insert("host".into(), self.name.as_str().into());
            }
        }
        if let Some(upstream) = upstream {
            self.lists.add_upstream(upstream, rule);
        }
        if destination.is_h2c && !self.is_grpc {
            service.insert("pointsman".into(), json!({ "http2": true }));
        }
        if let Some(prefix) = &filters.prefix
            && !prefix.trim_end_matches('/').is_empty()
        {
            let prefix = prefix.trim_end_matches('/');
            service.insert("path".into(), prefix.into());
        }
        if let Some(timeouts) = rule.get("timeouts") {
            self.timeouts(&timeouts, &mut service);
        }
        if let Some(retry) = rule.get("retry") {
            self.left.others(&retry, &["attempts", "codes"]);
            if let Some(attempts) = retry.number("attempts") {
                service.insert("retries".into(), attempts.into());
            }
            let codes = retry.list("codes");
            let codes: Vec<&Value> = codes.iter().map(|at| at.value).collect();
            if !codes.is_empty() {
                let own = service.entry("pointsman").or_insert_with(|| json!({}));
                own["retry"] = json!({ "statuses": codes });
            }
        }
        service
    }

    fn timeouts(&mut self, timeouts: &At<'_>, service: &mut Row) {
        self.left.others(timeouts, &["request", "backendRequest"]);
        if let Some(request) = timeouts.get("request") {
            let why = "there is no timeout for a whole request; those of the service are for its \
                       parts";
            self.left.add(&request, why);
        }
        if let Some(at) = timeouts.get("backendRequest") {
            match at.value.as_str().and_then(millis) {
                // Zero stands for no timeout.
                Some(0) => self.left.add(&at, "there is always a timeout"),
                Some(millis) => {
                    for field in ["connect_timeout", "write_timeout", "read_timeout"] {
                        service.insert(field.into(), millis.min(2_147_483_646).into());
                    }
                }
                None => self.left.add(&at, "it is not a duration"),
            }
        }
    }

    /// The upstream of a service; none if a name alone is enough.
    fn upstream(
        &mut self,
        rule: &At<'_>,
        filters: &Filters,
        destination: &Destination,
    ) -> Option<Row> {
        let mut upstream = Row::new();
        if let Some(host) = &filters.host {
            upstream.insert("host_header".into(), host.as_str().into());
        }
        if let Some(tls) = &destination.tls {
            upstream.insert("pointsman".into(), json!({ "tls": tls }));
        }
        if let Some(session) = rule.get("sessionPersistence") {
            self.session(&session, &mut upstream);
        }
        let is_plain = upstream.is_empty() && destination.single.is_some();
        if is_plain || filters.redirect.is_some() {
            return None;
        }
        let targets = destination.targets.iter();
        let targets = targets.map(|(target, weight)| json!({ "target": target, "weight": weight }));
        let mut named = Row::from_iter([("name".to_owned(), Value::from(self.name.as_str()))]);
        named.extend(upstream);
        named.insert("targets".into(), targets.collect());
        Some(named)
    }

    fn session(&mut self, session: &At<'_>, upstream: &mut Row) {
        self.left
            .others(session, &["sessionName", "type", "absoluteTimeout"]);
        if session.text("type").is_some_and(|kind| kind != "Cookie") {
            self.left.add(session, "sessions are kept by cookies alone");
            return;
        }
        upstream.insert("algorithm".into(), "sticky-sessions".into());
        let name = session.text("sessionName").unwrap_or("session");
        upstream.insert("sticky_sessions_cookie".into(), name.into());
        if let Some(at) = session.get("absoluteTimeout") {
            self.left
                .add(&at, "sessions end with the cookie, when the client ends");
        }
    }

    fn route(
        &mut self,
        rule: &At<'_>,
        name: String,
        matched: &Matched,
        entry: &Entry,
        filters: &Filters,
    ) -> Option<Value> {
        let mut plugins = filters.plugins.clone();
        if let Some(redirect) = &filters.redirect {
            let hosts: Vec<&str> = entry.hosts.iter().map(String::as_str).collect();
            match redirect.plugin(&hosts, entry.has_tls) {
                Ok(plugin) => plugins.push(plugin),
                Err(why) => {
                    self.left.add(rule, why);
                    return None;
                }
            }
        }
        let mut route = self.fields(name, matched, entry);
        // Kubernetes sends the host of the request and the whole path.
        route.insert("preserve_host".into(), filters.host.is_none().into());
        route.insert("strip_path".into(), filters.prefix.is_some().into());
        if !plugins.is_empty() {
            route.insert("plugins".into(), plugins.into());
        }
        Some(route.into())
    }

    /// The fields of a route by which requests are matched.
    fn fields(&self, name: String, matched: &Matched, entry: &Entry) -> Row {
        let (plain, over_tls) = match self.is_grpc {
            true => ("grpc", "grpcs"),
            false => ("http", "https"),
        };
        let protocols = match entry.has_tls {
            None => json!([plain, over_tls]),
            Some(true) => json!([over_tls]),
            Some(false) => json!([plain]),
        };
        let mut route = Row::from_iter([
            ("name".to_owned(), Value::from(name)),
            ("protocols".to_owned(), protocols),
        ]);
        if !entry.hosts.is_empty() {
            route.insert("hosts".into(), json!(entry.hosts));
        }
        route.extend(matched.fields.clone());
        route
    }
}
