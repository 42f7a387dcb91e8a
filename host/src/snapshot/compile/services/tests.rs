#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::super::balancers::Balancers;
use super::*;
use crate::balancer::{SHIPPED, ShadowThread, tests::engine};
use crate::config::{Dns, DnsType};
use crate::snapshot::Published;
use crate::store;
use crate::upstream::{Memory, SessionKey};

fn context(folder: &std::path::Path, probing: tokio::runtime::Handle) -> Context {
    let (_cache, engine) = engine();
    let default = engine.load_trusted(SHIPPED[0].component).unwrap();
    Context {
        published: Arc::new(Published::default()),
        store: Arc::new(store::open_test(folder)),
        engine,
        default,
        shadows: ShadowThread::default(),
        names: Arc::new(Names::new(&Dns {
            resolvers: Vec::new(),
            order: vec![DnsType::A],
            hosts_file: "/dev/null".into(),
            min_ttl: Duration::from_secs(1),
        })),
        memory: Arc::new(Memory::open(folder)),
        probing,
        sessions: SessionKey::of_process(),
        client_certificate: None,
    }
}

/// Services with what they are compiled from.
struct Compiled {
    upstreams: Upstreams,
    services: Services,
    client_certificates: ClientCertificates,
    ca_certificates: CaCertificates,
    new_names: NewNames,
}

impl Compiled {
    fn new(context: &Context) -> Self {
        Self {
            upstreams: Upstreams::default(),
            services: Services::default(),
            client_certificates: ClientCertificates::default(),
            ca_certificates: CaCertificates::default(),
            new_names: NewNames::new(Arc::clone(&context.names)),
        }
    }

    fn put(&mut self, kind: Kind, id: Uuid, row: Option<Row>) {
        let part: &mut dyn Part = match kind {
            Kind::Upstream => &mut self.upstreams,
            _ => &mut self.services,
        };
        match row {
            Some(row) => part.put(id, row),
            None => part.delete(id),
        }
    }

    /// Returns how many services were compiled.
    fn rebuild(&mut self, context: &Context) -> usize {
        let before = self.services.compiled.clone();
        let balancers = Balancers::default();
        let certificates = &self.client_certificates;
        let rebuilt = self
            .upstreams
            .rebuild(context, &balancers, false, certificates);
        let parts = Parts {
            context,
            upstreams: &self.upstreams,
            client_certificates: certificates,
            ca_certificates: &self.ca_certificates,
            new_names: &self.new_names,
        };
        self.services.rebuild(&parts, &rebuilt.hosts);
        let services = self.services.compiled.iter();
        let is_new = |(id, service): &(&Uuid, &Arc<Service>)| {
            !before.get(*id).is_some_and(|old| Arc::ptr_eq(old, service))
        };
        services.filter(is_new).count()
    }

    /// Where each service goes: whether the upstream is one of the Admin API, and its name.
    fn ways(&self) -> BTreeMap<Uuid, (bool, String)> {
        let services = self.services.compiled.iter();
        let way = |service: &Service| {
            let upstream = &service.upstream;
            (upstream.named, upstream.name.to_string())
        };
        services.map(|(id, service)| (*id, way(service))).collect()
    }
}

fn upstream(id: u128, name: &str) -> Row {
    let row = json!({ "id": Uuid::from_u128(id), "name": name, "algorithm": "round-robin" });
    row.as_object().unwrap().clone()
}

fn service(id: u128, host: &str, port: u16) -> Row {
    let row = json!({ "id": Uuid::from_u128(id), "host": host, "port": port, "protocol": "http" });
    row.as_object().unwrap().clone()
}

/// Hosts of services, and names of upstreams that lead to the first ones.
const HOSTS: [&str; 5] = ["a", "a.", "b", "127.0.0.1", "c.example"];
const NAMES: [&str; 4] = ["a", "A", "b.", "127.0.0.1"];

/// Changes of a row: the kind, the id, and where a service goes or what an upstream is called; none
/// to delete it.
type Step = (bool, u128, Option<(usize, u16)>);

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn commits() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let way = prop::option::weighted(0.8, (0..HOSTS.len(), 1_u16..3));
    let step = (any::<bool>(), 0_u128..6, way);
    prop::collection::vec(prop::collection::vec(step, 1..4), 1..12)
}

#[test]
fn what_is_compiled_after_each_change_is_what_is_compiled_from_all_rows() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), runtime.handle().clone());
    proptest!(ProptestConfig::with_cases(64), |(commits in commits())| {
        let mut incremental = Compiled::new(&context);
        let mut rows: BTreeMap<(bool, u128), Row> = BTreeMap::new();
        for commit in commits {
            for (is_upstream, id, way) in commit {
                let row = way.map(|(host, port)| match is_upstream {
                    true => upstream(id, NAMES[host % NAMES.len()]),
                    false => service(id, HOSTS[host], port),
                });
                let kind = if is_upstream { Kind::Upstream } else { Kind::Service };
                incremental.put(kind, Uuid::from_u128(id), row.clone());
                match row {
                    Some(row) => rows.insert((is_upstream, id), row),
                    None => rows.remove(&(is_upstream, id)),
                };
            }
            incremental.rebuild(&context);
            let mut whole = Compiled::new(&context);
            for ((is_upstream, id), row) in &rows {
                let kind = if *is_upstream { Kind::Upstream } else { Kind::Service };
                whole.put(kind, Uuid::from_u128(*id), Some(row.clone()));
            }
            whole.rebuild(&context);
            prop_assert_eq!(incremental.ways(), whole.ways());
            let plain = |of: &Compiled| of.services.plain.all.keys().cloned().collect::<Vec<_>>();
            prop_assert_eq!(plain(&incremental), plain(&whole));
            // No service goes to an upstream as it was before.
            for (id, service) in incremental.services.compiled.iter() {
                let host = &incremental.services.settings[id].host;
                let own = incremental.services.plain.by_service.get(id);
                let own = own.map(|place| &incremental.services.plain.all[place].upstream);
                let upstream = incremental.upstreams.of_host(host).or(own).unwrap();
                prop_assert!(Arc::ptr_eq(&service.upstream, upstream));
            }
        }
    });
}

#[test]
fn a_change_compiles_only_the_services_that_it_affects() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), runtime.handle().clone());
    let mut compiled = Compiled::new(&context);
    let id = Uuid::from_u128;
    for number in 0..1000 {
        compiled.put(
            Kind::Service,
            id(number),
            Some(service(number, "127.0.0.1", 80)),
        );
    }
    compiled.put(Kind::Service, id(1000), Some(service(1000, "a", 80)));
    assert_eq!(compiled.rebuild(&context), 1001);
    compiled.put(
        Kind::Service,
        id(1001),
        Some(service(1001, "127.0.0.1", 80)),
    );
    assert_eq!(compiled.rebuild(&context), 1);
    compiled.put(Kind::Upstream, id(1), Some(upstream(1, "a")));
    assert_eq!(compiled.rebuild(&context), 1);
    compiled.put(Kind::Upstream, id(2), Some(upstream(2, "b")));
    assert_eq!(compiled.rebuild(&context), 0);
    compiled.put(Kind::Upstream, id(1), None);
    assert_eq!(compiled.rebuild(&context), 1);
}
