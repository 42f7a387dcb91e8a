//! Paths that Kong has and that do not exist here. The answer says so, so that the client does not
//! look for a mistyped path. Paths that only Kong Enterprise has are answered as by Kong: not
//! found.

use http::{StatusCode, Uri};

use super::error::Error;
use crate::entity::Kind;

/// Collections and endpoints of Kong that do not exist here, by the segment of a path that names
/// them, with their name in the answer. Source: Kong 3.9, `kong.api.routes`, and the plugins that
/// add entities.
const ABSENT: &[(&str, &str)] = &[
    ("acme", "acme"),
    ("filter-chains", "filter-chains"),
    ("filters", "filter-chains"),
    ("hmac-auth", "hmac-auth"),
    ("hmac-auths", "hmac-auths"),
    ("oauth2", "oauth2"),
    ("oauth2_tokens", "oauth2_tokens"),
    ("session", "session"),
    ("sessions", "sessions"),
];

/// Endpoints of Kong that can have no meaning here, by their first segment, with the reason.
const WITHOUT_MEANING: &[(&str, &str)] = &[
    (
        "clustering",
        "this gateway is a node by itself, not a control plane or data plane of Kong's hybrid mode",
    ),
    (
        "timers",
        "this gateway has no timers of Lua; its tasks are counted at /, and /metrics measures it",
    ),
];

/// The answer where no endpoint has this path.
pub(super) async fn answer(uri: Uri) -> Error {
    let first = uri.path().split('/').nth(1);
    let mut without_meaning = WITHOUT_MEANING.iter();
    if let Some((_, reason)) = without_meaning.find(|(segment, _)| Some(*segment) == first) {
        return Error::Plain(StatusCode::NOT_FOUND, (*reason).into());
    }
    let Some(name) = absent(uri.path()) else {
        return Error::not_found();
    };
    let there = Kind::ALL
        .iter()
        .filter(|kind| ![Kind::BalancerVersion, Kind::Rollout].contains(kind));
    let there: Vec<&str> = there.map(|kind| kind.declaration().path).collect();
    let message = format!(
        "Pointsman does not have Kong's '{name}'; it has {}",
        there.join(", ")
    );
    Error::Plain(StatusCode::NOT_FOUND, message)
}

/// The entity or endpoint of Kong that a path names and that does not exist here. In a path
/// collections and keys alternate.
fn absent(path: &str) -> Option<&'static str> {
    let collections = path.trim_matches('/').split('/').step_by(2);
    let known = collections.filter_map(|segment| {
        let mut absent = ABSENT.iter();
        absent.find(|(known, _)| *known == segment)
    });
    known.last().map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_exists_is_called_absent() {
        for kind in Kind::ALL {
            let declaration = kind.declaration();
            let references = kind.references().iter();
            let fields = references.filter(|reference| reference.has_endpoint);
            let names = fields.map(|reference| reference.field);
            for name in names.chain([declaration.path, declaration.nested_path]) {
                assert_eq!(absent(&format!("/{name}")), None);
            }
        }
    }

    #[test]
    fn a_path_names_its_last_collection() {
        assert_eq!(absent("/hmac-auths"), Some("hmac-auths"));
        assert_eq!(absent("/consumers/x/hmac-auth/y"), Some("hmac-auth"));
        assert_eq!(
            absent("/services/acme/filter-chains"),
            Some("filter-chains")
        );
        assert_eq!(absent("/services/acme/x"), None);
        assert_eq!(absent("/consumers/x/key-auth/y"), None);
        assert_eq!(absent("/"), None);
    }
}
