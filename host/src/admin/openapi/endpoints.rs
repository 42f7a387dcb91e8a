//! The endpoints that are not generated from an entity's declaration, described by hand.

use http::Method;
use serde_json::{Value, json};

use super::schemas;
use crate::entity::balancer::CANARY;

/// What an endpoint takes and answers.
pub(super) struct Described {
    pub(super) summary: &'static str,
    /// Parameters of the query: name, schema, what it does.
    pub(super) query: Vec<(&'static str, Value, &'static str)>,
    /// The body of the request: its media type and schema.
    pub(super) body: Option<(&'static str, Value)>,
    /// The status of success, and the media type and the schema of its body, if it has one.
    pub(super) success: Vec<(u16, Option<(&'static str, Value)>)>,
}

const JSON: &str = "application/json";
const WASM: &str = "application/wasm";

impl Described {
    fn new(summary: &'static str) -> Self {
        Self {
            summary,
            query: Vec::new(),
            body: None,
            success: Vec::new(),
        }
    }

    /// Answers this status with an object of any fields.
    fn answers(self, status: u16) -> Self {
        self.shows(status, json!({ "type": "object" }))
    }

    fn shows(self, status: u16, schema: Value) -> Self {
        self.sends(status, JSON, schema)
    }

    fn sends(mut self, status: u16, media_type: &'static str, schema: Value) -> Self {
        self.success.push((status, Some((media_type, schema))));
        self
    }

    fn without_content(mut self) -> Self {
        self.success.push((204, None));
        self
    }

    fn takes(mut self, media_type: &'static str, schema: Value) -> Self {
        self.body = Some((media_type, schema));
        self
    }

    pub(super) fn query(mut self, name: &'static str, schema: Value, about: &'static str) -> Self {
        self.query.push((name, schema, about));
        self
    }

    pub(super) fn pages(self) -> Self {
        let size = json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 });
        self.query("size", size, "How many entries a page has")
            .query(
                "offset",
                json!({ "type": "string" }),
                "Where the page begins",
            )
    }
}

/// A list with one page of entries.
pub(super) fn page(entry: &Value) -> Value {
    json!({
        "type": "object",
        "properties": {
            "data": { "type": "array", "items": entry },
            "next": { "type": ["string", "null"] },
            "offset": { "type": "string" },
        },
        "required": ["data", "next"],
    })
}

/// The description of an endpoint, if it has one here. The names of the parameters do not matter.
pub(super) fn described(path: &str, method: &Method) -> Option<Described> {
    let is = |shape: &str| {
        let same = |(one, other): (&str, &str)| {
            one == other || (one.starts_with('{') && other.starts_with('{'))
        };
        path.split('/').count() == shape.split('/').count()
            && path.split('/').zip(shape.split('/')).all(same)
    };
    let (get, post, put) = (
        *method == Method::GET,
        *method == Method::POST,
        *method == Method::PUT,
    );
    let message = json!({
        "type": "object",
        "properties": { "message": { "type": "string" } },
        "required": ["message"],
    });
    let any = json!({ "type": "object" });
    let bytes = json!({ "type": "string", "format": "binary" });
    Some(if is("/") && get {
        Described::new("What the node is, and its settings").shows(200, json!({
            "type": "object",
            "required": ["tagline", "version", "edition", "hostname", "node_id", "plugins", "configuration"],
        }))
    } else if is("/status") && get {
        let unit = json!({ "type": "string", "enum": ["b", "B", "k", "K", "m", "M", "g", "G"] });
        Described::new("Connections, requests, memory and the state of the store")
            .query("unit", unit, "Unit of sizes")
            .query(
                "scale",
                json!({ "type": "string" }),
                "Decimal places of sizes",
            )
            .shows(
                200,
                json!({ "type": "object", "required": ["memory", "server", "database"] }),
            )
    } else if is("/status/ready") && get {
        Described::new("Whether changes can be stored").shows(200, message)
    } else if is("/metrics") && get {
        let text = json!({ "type": "string" });
        Described::new("Metrics, for Prometheus").sends(200, "text/plain", text)
    } else if (is("/endpoints") || is("/openapi.json")) && get {
        let summary = match is("/endpoints") {
            true => "Every path",
            false => "This document",
        };
        Described::new(summary).answers(200)
    } else if is("/debug/node/log-level") && get {
        Described::new("The level of the log").shows(200, message)
    } else if (is("/debug/node/log-level/{}") || is("/debug/cluster/log-level/{}")) && put {
        let seconds = json!({ "type": "string" });
        Described::new("Changes the level of the log")
            .query(
                "timeout",
                seconds,
                "Seconds until the setting is in effect again",
            )
            .shows(200, message)
    } else if is("/tags") && get {
        Described::new("Every tag, with the entities that have it")
            .pages()
            .shows(200, page(&super::reference("Tag")))
    } else if is("/tags/{}") && get {
        Described::new("The entities that have a tag")
            .pages()
            .shows(200, page(&super::reference("Tag")))
    } else if is("/cache/{}") && get {
        Described::new("A cached entity; none is ever cached").answers(200)
    } else if (is("/cache") || is("/cache/{}")) && *method == Method::DELETE {
        Described::new("Purges the cache, which is empty").without_content()
    } else if is("/config") && get {
        Described::new("The configuration as one document, without a database").answers(200)
    } else if is("/config") && post {
        let flag = json!({ "type": "string" });
        Described::new("Loads a declarative configuration, without a database")
            .query("check_hash", flag.clone(), "1: only if its hash differs")
            .query("flatten_errors", flag, "1: errors as a list, too")
            .answers(201)
    } else if is("/pointsman/config") && get {
        Described::new("The configuration as a declarative document")
            .query(
                "secrets",
                json!({ "type": "boolean" }),
                "Whether with secrets",
            )
            .sends(200, "application/yaml", json!({ "type": "object" }))
    } else if is("/pointsman/config") && put {
        Described::new("Makes the configuration that of a declarative document")
            .query(
                "dry_run",
                json!({ "type": "boolean" }),
                "Whether it is only compared",
            )
            .query(
                "channel",
                json!({ "type": "string", "enum": ["main", "canary"] }),
                "canary: only at the gateways of that channel",
            )
            .query(
                "max_error_ratio",
                json!({ "type": "number" }),
                "With channel=canary: a bound, as of a canary of a balancer; so are max_error_percent, \
                 max_p99_ms, max_p99_ratio, min_requests, duration and promote",
            )
            .takes("application/yaml", json!({ "type": "object" }))
            .answers(200)
    } else if is("/pointsman/rollout") && get {
        Described::new(
            "What only the gateways of the channel canary have yet, or how that has ended",
        )
        .answers(200)
    } else if is("/pointsman/rollout") && *method == Method::DELETE {
        Described::new("Has the gateways of the channel canary have what the others have")
            .without_content()
    } else if is("/pointsman/rollout/promote") && post {
        Described::new("Has all gateways have what the channel canary has").answers(200)
    } else if is("/acme") && *method == Method::PATCH {
        Described::new("Requests the certificates of `acme` now that wait for their next try")
            .answers(202)
    } else if get && (is("/acme/certificates") || is("/acme/certificates/{}")) {
        Described::new("What was requested by `acme`: certificates, errors, next tries")
            .answers(200)
    } else if get && (is("/balancers") || is("/balancers/{}/versions")) {
        Described::new("Lists what was uploaded")
            .pages()
            .shows(200, page(&any))
    } else if is("/balancers") && post {
        Described::new("Uploads a component as a balancer")
            .query("name", json!({ "type": "string" }), "Name of the balancer")
            .query(
                "tags",
                json!({ "type": "string" }),
                "Its tags, separated by commas",
            )
            .takes(WASM, bytes)
            .answers(201)
    } else if is("/balancers/{}") && put || is("/balancers/{}/versions") && post {
        Described::new("Uploads a component as a new version")
            .takes(WASM, bytes)
            .answers(200)
            .answers(201)
            .answers(202)
    } else if is("/balancers/{}") && *method == Method::PATCH {
        let tags =
            json!({ "type": ["array", "null"], "items": { "type": "string", "minLength": 1 } });
        let tags = json!({
            "type": "object",
            "properties": { "tags": tags },
            "additionalProperties": false,
        });
        Described::new("Changes the tags of a balancer")
            .takes(JSON, tags)
            .answers(200)
    } else if is("/balancers/{}/component") || is("/balancers/{}/versions/{}/component") {
        Described::new("The component").sends(200, WASM, bytes)
    } else if is("/balancers/{}/versions/{}/promote") || is("/balancers/{}/rollback") {
        Described::new("Makes a version active").answers(200)
    } else if is("/balancers/{}/versions/{}/canary") && post {
        Described::new("Gives a version a share of the picks")
            .takes(JSON, schemas::fields(CANARY))
            .answers(200)
            .answers(201)
    } else if is("/balancers/{}/versions/{}/canary") && *method == Method::DELETE {
        Described::new("Ends a canary")
            .answers(200)
            .without_content()
    } else if (is("/balancers/{}") || is("/balancers/{}/versions/{}")) && *method == Method::DELETE
    {
        Described::new("Deletes what was uploaded").without_content()
    } else if is("/upstreams/{}/targets/{}/healthy")
        || is("/upstreams/{}/targets/{}/unhealthy")
        || is("/upstreams/{}/targets/{}/{}/healthy")
        || is("/upstreams/{}/targets/{}/{}/unhealthy")
    {
        Described::new("Sets the health of a target or of one address").without_content()
    } else if is("/upstreams/{}/targets/{}/facts") && get {
        Described::new("The reported values of a target, which balancers read").answers(200)
    } else if is("/upstreams/{}/targets/{}/facts") && *method == Method::PATCH {
        let number = json!({ "type": ["number", "null"], "minimum": 0 });
        let values = json!({ "type": "object", "additionalProperties": number });
        Described::new("Sets reported values of a target, which balancers read")
            .takes(JSON, values)
            .answers(200)
    } else if is("/upstreams/{}/explain") && post {
        Described::new("Why the balancer picks what it picks")
            .takes(JSON, schemas::fields(crate::admin::explain::FIELDS))
            .answers(200)
    } else if is("/pointsman/explain") && post {
        Described::new("Which route a request takes, and why not the others")
            .takes(JSON, schemas::fields(crate::admin::explain::FIELDS))
            .answers(200)
    } else if is("/pointsman/simulate") && get {
        Described::new("The scenarios of the simulator that ship").answers(200)
    } else if is("/pointsman/simulate") && post {
        Described::new("Compares balancers on a simulated fleet")
            .takes(JSON, schemas::fields(crate::admin::simulate::FIELDS))
            .answers(200)
    } else if (is("/pointsman/live") || is("/upstreams/{}/live")) && get {
        let events = json!({ "type": "string" });
        Described::new("What happens now, as server-sent events, one a second").sends(
            200,
            "text/event-stream",
            events,
        )
    } else if is("/upstreams/{}/record") && post {
        Described::new("Records the picks of an upstream")
            .query("seconds", json!({ "type": "integer" }), "Longest duration")
            .query("max_bytes", json!({ "type": "integer" }), "Largest size")
            .query(
                "facts",
                json!({ "type": "boolean" }),
                "Whether facts of requests are recorded",
            )
            .sends(200, "application/vnd.pointsman.trace", bytes)
    } else {
        return None;
    })
}

/// An endpoint without a description: it answers JSON.
pub(super) fn generic(method: &Method) -> Described {
    let described = Described::new("See docs/admin-api.md");
    match *method {
        Method::DELETE => described.answers(200).without_content(),
        Method::POST => described.answers(200).answers(201).without_content(),
        _ => described.answers(200).without_content(),
    }
}
