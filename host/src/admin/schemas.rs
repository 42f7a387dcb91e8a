//! `/schemas/…`: what an entity or a plugin consists of, and whether a row of it would be accepted.
//! Source: Kong 3.9, `kong.api.routes.kong`.

use axum::Json;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Value, json};

use super::arguments::Path;
use super::error::Error;
use super::writes::given_id;
use super::{ApiEndpoint, ApiResult, BODY_LIMIT, decode};
use crate::entity::kongs_own::schema_only;
use crate::entity::{Kind, Subschema};

const READ: &str = "GET, HEAD, OPTIONS";
const VALIDATE: &str = "OPTIONS, POST";

pub(super) fn endpoints() -> Vec<ApiEndpoint> {
    let mut endpoints: Vec<ApiEndpoint> = vec![
        ("/schemas/{name}".into(), get(entity), READ),
        (
            "/schemas/{name}/validate".into(),
            post(validate_entity),
            VALIDATE,
        ),
    ];
    for kind in Kind::ALL {
        if kind.declaration().subschemas.is_some() {
            endpoints.extend(of_subschemas(kind));
        }
    }
    endpoints
}

/// `GET /schemas/{entity}`.
async fn entity(Path(name): Path<String>) -> Result<Json<Value>, Error> {
    if let Some(schema) = schema_only(&name) {
        return Ok(Json(schema.schema()));
    }
    Ok(Json(kind_named(&name)?.declaration().schema()))
}

/// `POST /schemas/{entity}/validate`.
async fn validate_entity(Path(name): Path<String>, request: Request) -> ApiResult {
    validate(kind_named(&name)?, request).await
}

/// `/schemas/plugins/{name}` and `/schemas/plugins/validate`, and the same for other entities whose
/// fields depend on a name.
fn of_subschemas(kind: Kind) -> [ApiEndpoint; 2] {
    let path = format!("/schemas/{}", kind.name());
    let schema = get(move |Path(name): Path<String>| async move {
        Ok::<_, Error>(Json(subschema(kind, &name)?.schema()))
    });
    let validate = post(move |request: Request| validate(kind, request));
    [
        (format!("{path}/{{name}}"), schema, READ),
        (format!("{path}/validate"), validate, VALIDATE),
    ]
}

fn kind_named(name: &str) -> Result<Kind, Error> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    kind.ok_or_else(|| none_named("entity", name))
}

/// The part of a schema that depends on this name.
///
/// # Errors
/// The entity has nothing of this name.
pub(super) fn subschema(kind: Kind, name: &str) -> Result<&'static Subschema, Error> {
    let declaration = kind.declaration();
    let subschemas = declaration.subschemas.as_ref();
    let found = subschemas.and_then(|subschemas| (subschemas.of)(name));
    found.ok_or_else(|| {
        // As in Kong a 404, by which its clients tell a plugin without a schema.
        let absent = subschemas.and_then(|subschemas| subschemas.absent?(name));
        let missing = |message| Error::Plain(StatusCode::NOT_FOUND, message);
        absent.map_or_else(|| none_named(declaration.singular, name), missing)
    })
}

fn none_named(what: &str, name: &str) -> Error {
    let message = format!("No {what} named '{name}'");
    Error::Plain(StatusCode::NOT_FOUND, message)
}

/// Whether a POST of this entity would find all fields right. Nothing is stored, and the row is
/// compared with no other row.
async fn validate(kind: Kind, request: Request) -> ApiResult {
    let input = decode::entity(kind, None, request, BODY_LIMIT).await?;
    let id = given_id(&input)?.unwrap_or_default();
    let created = kind.declaration().create(id, input);
    created.map_err(|violation| Error::from(violation).into_verdict())?;
    let message = json!({ "message": "schema validation successful" });
    Ok(Json(message).into_response())
}
