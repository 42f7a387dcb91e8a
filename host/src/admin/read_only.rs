//! Entities of a gateway without a database: a request cannot change them one by one. Source: Kong
//! 3.9, `kong.db.strategies.off`.

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use http::Method;

use super::error::Error;
use super::{Admin, ApiEndpoint};
use crate::entity::{Kind, uuid};

/// The endpoints of an entity with their writes refused, if there is no database.
pub(super) fn endpoints(
    admin: &Admin,
    kind: Kind,
    endpoints: Vec<ApiEndpoint>,
) -> Vec<ApiEndpoint> {
    if admin.config.database {
        return endpoints;
    }
    let refused = endpoints.into_iter().map(|(path, methods, allowed)| {
        let is_item = path.ends_with('}');
        let refuse = move |request: Request, next: Next| async move {
            match refusal(kind, is_item, allowed, &request) {
                Some(error) => error.into_response(),
                None => next.run(request).await,
            }
        };
        (path, methods.layer(from_fn(refuse)), allowed)
    });
    refused.collect()
}

fn refusal(kind: Kind, is_item: bool, allowed: &str, request: &Request) -> Option<Error> {
    let method = request.method();
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "create or update",
        Method::PATCH => "update",
        Method::DELETE => "remove",
        _ => return None,
    };
    // Other methods get the answer that they always get.
    allowed
        .split(", ")
        .any(|known| known == method.as_str())
        .then(|| {
            let last = request.uri().path().rsplit('/').next().unwrap_or_default();
            let by_name = is_item && uuid(last).is_none();
            let key = kind.declaration().endpoint_key.filter(|_| by_name);
            Error::no_database(verb, kind, key)
        })
}
