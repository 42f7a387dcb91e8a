//! Policies that decide whose requests are served. None of them is converted, so what they guard is
//! answered by the gateway itself.

use super::{At, Left, Manifests, Resource};

/// Kinds of such policies: of Envoy Gateway, of Istio, and of Kuadrant.
const KINDS: [&str; 4] = [
    "SecurityPolicy",
    "AuthorizationPolicy",
    "RequestAuthentication",
    "AuthPolicy",
];

pub(super) fn is_guard(resource: &Resource) -> bool {
    KINDS.contains(&resource.kind.as_str())
}

/// What such policies guard.
pub(super) struct Guarded {
    targets: Vec<GuardedTarget>,
}

/// What a policy is for: a gateway or a route, or all of a namespace.
struct GuardedTarget {
    namespace: String,
    resource: Option<(String, String)>,
}

impl Guarded {
    pub(super) fn read(manifests: &Manifests, left: &mut Left) -> Self {
        let mut targets = Vec::new();
        for policy in manifests.resources.iter().filter(|policy| is_guard(policy)) {
            let top = At::top(policy);
            left.add(
                &top,
                "not converted: requests for what it guards are answered with 503",
            );
            let spec = top.get("spec");
            let named = spec.iter().flat_map(|spec| {
                let one = spec.get("targetRef");
                one.into_iter().chain(spec.list("targetRefs"))
            });
            let of = |resource| GuardedTarget {
                namespace: policy.namespace.clone(),
                resource,
            };
            let named = named.filter_map(|at| {
                let kind = at.text("kind")?.to_owned();
                Some(of(Some((kind, at.text("name")?.to_owned()))))
            });
            let before = targets.len();
            targets.extend(named);
            // Without a name it is for what labels select, which are not evaluated.
            if targets.len() == before {
                targets.push(of(None));
            }
        }
        Self { targets }
    }

    /// Whether a policy guards a route, or one of the gateways that it names.
    pub(super) fn contains(&self, route: &Resource, spec: &At<'_>) -> bool {
        let parents = spec.list("parentRefs");
        let parents: Vec<(&str, &str)> = parents
            .iter()
            .filter_map(|at| {
                let namespace = at.text("namespace").unwrap_or(&route.namespace);
                Some((namespace, at.text("name")?))
            })
            .collect();
        self.targets.iter().any(|target| {
            let namespace = target.namespace.as_str();
            match &target.resource {
                Some((kind, name)) if kind == "Gateway" => {
                    parents.contains(&(namespace, name.as_str()))
                }
                Some((kind, name)) if *kind == route.kind => {
                    namespace == route.namespace && *name == route.name
                }
                // The service that a route leads to, say.
                Some((kind, _)) if kind.ends_with("Route") => false,
                Some(_) | None => namespace == route.namespace,
            }
        })
    }
}
