//! A route: which requests go to a service. Source: Kong 3.9, `routes`.

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

/// What the data plane reads of a route.
#[derive(Debug, Clone, Deserialize)]
pub struct Route {
    /// Primary key.
    pub id: Uuid,
    /// Unique name.
    pub name: Option<String>,
    /// Protocols that it serves: `http`, `https`, …
    pub protocols: Vec<String>,
    /// Methods that it matches; any if none.
    pub methods: Option<Vec<String>>,
    /// Hosts that it matches, `*` as the leftmost or rightmost label; any if none.
    pub hosts: Option<Vec<String>>,
    /// Prefixes (`/…`) and regular expressions (`~/…`) that it matches; any if none.
    pub paths: Option<Vec<String>>,
    /// Header values that it matches: all names, any value of each; `~*` in front marks a regular
    /// expression.
    pub headers: Option<BTreeMap<String, Vec<String>>>,
    /// Server names of TLS that it matches.
    pub snis: Option<Vec<String>>,
    /// The answer to a plain request for a route that serves https only.
    pub https_redirect_status_code: u16,
    /// Rank among the regular expressions.
    pub regex_priority: i64,
    /// Whether the matched path is removed before the request is sent on.
    pub strip_path: bool,
    /// `v0` or `v1`; the second is honoured by Kong's `traditional` router alone.
    pub path_handling: Option<String>,
    /// Whether the client's `Host` is sent on.
    pub preserve_host: bool,
    /// The service that gets the requests.
    pub service: Option<Reference>,
}

/// The value of a field that names another row.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Reference {
    /// Primary key of that row.
    pub id: Uuid,
}
