//! The settings of a balancer, before an upstream has them: they must fit the schema that the balancer
//! has given, and please the balancer itself.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Admin;
use super::entities::id_of;
use crate::balancer::{self, Plugin};
use crate::entity::{Kind, Row};
use crate::error::Error;

/// Checks the settings of an upstream's balancer. A balancer that is not there is for others to find.
///
/// # Errors
/// Which field is wrong, and how.
pub(super) async fn check(admin: &Admin, upstream: &Row) -> Result<(), Error> {
    let algorithm = upstream.get("algorithm").cloned().unwrap_or_default();
    let Some(stored) = admin.store.find(Kind::Balancer, &["name"], &[&algorithm])? else {
        return Ok(());
    };
    let schema = stored.row.get("description");
    let schema = schema.and_then(|description| description.get("config_schema"));
    let given = given(upstream);
    let nothing = json!({});
    let config = given.unwrap_or(&nothing);
    if let Some(wrong) = schema.and_then(|schema| misfits(schema, config)) {
        return Err(refused(wrong));
    }
    if given.is_none() {
        return Ok(());
    }
    let Some(component) = admin.store.blob(Kind::Balancer, id_of(&stored.row))? else {
        return Ok(());
    };
    let plugin = admin.engine.load(component).await?;
    try_out(admin, &plugin, config).await.map_err(refused)
}

/// Checks the settings of an upstream against a component that is to take the place of its balancer.
///
/// # Errors
/// What is wrong, by field or as a whole.
pub(super) async fn check_with(
    admin: &Admin,
    plugin: &Arc<Plugin>,
    upstream: &Row,
) -> Result<(), Value> {
    let given = given(upstream);
    let nothing = json!({});
    if let Some(wrong) = misfits(&plugin.config_schema, given.unwrap_or(&nothing)) {
        return Err(wrong);
    }
    match given {
        Some(config) => try_out(admin, plugin, config).await,
        None => Ok(()),
    }
}

fn given(upstream: &Row) -> Option<&Value> {
    let config = upstream.get("pointsman")?.get("balancer_config")?;
    (!config.is_null()).then_some(config)
}

/// Asks the component itself.
async fn try_out(admin: &Admin, plugin: &Arc<Plugin>, config: &Value) -> Result<(), Value> {
    let (engine, plugin) = (admin.engine.clone(), plugin.clone());
    let text = config.to_string();
    let tried =
        tokio::task::spawn_blocking(move || balancer::try_settings(&engine, &plugin, &text));
    match tried.await {
        Ok(Err(sentence)) => Err(sentence.into()),
        // A task that panicked is no fault of the settings.
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

fn refused(wrong: Value) -> Error {
    Error::field("pointsman", json!({ "balancer_config": wrong }))
}

/// What does not fit, by field; none if all does.
fn misfits(schema: &Value, config: &Value) -> Option<Value> {
    let validator = match jsonschema::validator_for(schema) {
        Ok(validator) => validator,
        Err(error) => return Some(format!("the balancer's own schema is wrong: {error}").into()),
    };
    let mut fields = Row::new();
    for error in validator.iter_errors(config) {
        let place = error.instance_path().to_string();
        let message = error.to_string();
        if place.is_empty() {
            return Some(message.into());
        }
        let name = place.trim_start_matches('/').replace('/', ".");
        fields.entry(name).or_insert(message.into());
    }
    (!fields.is_empty()).then(|| fields.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_by_field() {
        let schema = json!({
            "type": "object",
            "properties": {"size": {"type": "integer", "minimum": 2}, "deep": {"type": "object",
                "properties": {"name": {"type": "string"}}}},
            "additionalProperties": false,
        });
        assert_eq!(misfits(&schema, &json!({"size": 3})), None);
        let wrong = misfits(&schema, &json!({"size": 1, "deep": {"name": 5}})).unwrap_or_default();
        assert!(
            wrong["size"]
                .as_str()
                .is_some_and(|text| text.contains("2")),
            "{wrong}"
        );
        assert!(wrong["deep.name"].is_string(), "{wrong}");
        let wrong = misfits(&schema, &json!({"other": 1})).unwrap_or_default();
        assert!(
            wrong.as_str().is_some_and(|text| text.contains("other")),
            "{wrong}"
        );
        assert!(misfits(&schema, &json!([])).is_some());
        assert!(misfits(&json!({"type": 5}), &json!({})).is_some());
    }
}
