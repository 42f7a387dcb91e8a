//! `/schemas/…`: a declaration in the form in which Kong describes its entities to clients. Source:
//! Kong 3.9, `kong.api.routes.kong`.
//!
//! One walk over the declaration. A check that is a function is not shown, as in Kong. Fields that
//! Kong does not have are left out: a client adds the defaults that it reads here to what it sends,
//! and compares that with the answer, which does not show them.

use serde_json::{Value, json};

use super::Row;
use super::declaration::Declaration;
use super::entity_check::{EntityCheck, Match};
use super::field::{Check, Deprecation, Field, Preset, Shape, Shorthand};
use super::reference::{OnDelete, UniqueKey};
use super::subschema::Subschema;

impl Declaration {
    /// The fields of the entity, and its rules across them.
    pub fn schema(&self) -> Value {
        let walk = Walk {
            unique: self.unique,
            fractional_times: self.fractional_times,
        };
        json!({
            "fields": walk.fields(self.fields),
            "entity_checks": entity_checks(self.entity_checks),
        })
    }
}

impl Subschema {
    /// The fields of this schema that its entity does not have.
    pub fn schema(&self) -> Value {
        let walk = Walk {
            unique: &[],
            fractional_times: false,
        };
        json!({
            "fields": walk.fields(self.fields),
            "entity_checks": entity_checks(self.entity_checks),
        })
    }
}

/// What is needed of the entity to show its fields.
struct Walk {
    unique: &'static [UniqueKey],
    fractional_times: bool,
}

impl Walk {
    fn fields(&self, fields: &[Field]) -> Value {
        let is_shown =
            |field: &&Field| !field.extension && !matches!(field.shape, Shape::TimeToLive);
        let shown = fields.iter().filter(is_shown);
        let shown = shown.map(|field| {
            let mut attributes = self.attributes(field);
            if self.unique.iter().any(|key| key.fields == [field.name]) {
                attributes.insert("unique".into(), true.into());
            }
            if field.refuses_null() {
                attributes.insert("required".into(), true.into());
            }
            json!({ field.name: attributes })
        });
        shown.collect()
    }

    /// The attributes of a field, or of an element of one.
    fn attributes(&self, field: &Field) -> Row {
        let mut shown = self.shape(field);
        let is_generated = matches!(field.default, Preset::Generated(_));
        let flags = [
            ("required", field.required),
            ("auto", is_generated),
            ("encrypted", field.secret),
            ("transient", field.transient),
            ("referenceable", field.referenceable),
        ];
        let flags = flags.into_iter().filter(|(_, is_set)| *is_set);
        shown.extend(flags.map(|(name, _)| (name.to_owned(), true.into())));
        if !is_generated && !matches!(field.default, Preset::Null) {
            let default = match field.default {
                Preset::Computed(compute) => compute(),
                _ => field.preset(),
            };
            shown.insert("default".into(), default);
        }
        if field.may_be_empty {
            shown.insert("len_min".into(), 0.into());
        }
        shown.extend(field.checks.iter().filter_map(check));
        if let Some(deprecation) = field.deprecation {
            shown.insert("deprecation".into(), deprecated(&deprecation).into());
        }
        if !field.shorthands.is_empty() {
            shown.insert("shorthand_fields".into(), self.shorthands(field.shorthands));
        }
        if !field.entity_checks.is_empty() {
            let checks = entity_checks(field.entity_checks);
            shown.insert("entity_checks".into(), checks);
        }
        shown
    }

    /// The earlier names for fields inside a record.
    fn shorthands(&self, shorthands: &[Shorthand]) -> Value {
        let shown = shorthands.iter().map(|shorthand| {
            let mut attributes = self.attributes(&shorthand.field);
            let mut deprecation = deprecated(&Deprecation {
                message: shorthand.message,
                old_default: None,
            });
            if shorthand.is_echoed {
                deprecation.insert("replaced_with".into(), json!([{ "path": shorthand.path }]));
            }
            attributes.insert("deprecation".into(), deprecation.into());
            json!({ shorthand.field.name: attributes })
        });
        shown.collect()
    }

    fn shape(&self, field: &Field) -> Row {
        let inner = |field: &Field| Value::from(self.attributes(field));
        let shown = match &field.shape {
            Shape::String => json!({ "type": "string" }),
            Shape::Integer => json!({ "type": "integer" }),
            Shape::Number => json!({ "type": "number" }),
            Shape::Boolean => json!({ "type": "boolean" }),
            Shape::Uuid => json!({ "type": "string", "uuid": true }),
            Shape::Id => json!({ "type": "string", "uuid": true, "auto": true }),
            Shape::CreatedAt | Shape::UpdatedAt => {
                let of = if self.fractional_times {
                    "number"
                } else {
                    "integer"
                };
                json!({ "type": of, "timestamp": true, "auto": true })
            }
            Shape::Array(element) => json!({ "type": "array", "elements": inner(element) }),
            Shape::Set(element) => json!({ "type": "set", "elements": inner(element) }),
            Shape::Map { names, values } => {
                let mut keys = Row::from_iter([("type".to_owned(), "string".into())]);
                keys.extend(names.iter().filter_map(check));
                json!({ "type": "map", "keys": keys, "values": inner(values) })
            }
            // A subschema has the fields.
            Shape::Record([]) => json!({ "type": "record", "abstract": true }),
            Shape::Record(fields) => json!({ "type": "record", "fields": self.fields(fields) }),
            Shape::Reference(to) => json!({ "type": "foreign", "reference": to.name() }),
            Shape::TimeToLive => json!({ "type": "integer" }),
            Shape::Any | Shape::Settings => json!({ "type": "json" }),
        };
        let Value::Object(mut shown) = shown else {
            return Row::new();
        };
        let cascades = (field.reference).is_some_and(|to| to.on_delete == OnDelete::Cascade);
        if cascades && matches!(field.shape, Shape::Reference(_)) {
            shown.insert("on_delete".into(), "cascade".into());
        }
        shown
    }
}

fn deprecated(deprecation: &Deprecation) -> Row {
    let mut shown = Row::new();
    shown.insert("message".into(), deprecation.message.into());
    shown.insert("removal_in_version".into(), "4.0".into());
    if let Some(old_default) = deprecation.old_default {
        shown.insert("old_default".into(), old_default.into());
    }
    shown
}

/// A check as an attribute; none for a check that is a function.
fn check(check: &Check) -> Option<(String, Value)> {
    let (name, value) = match check {
        Check::Between(least, most) => ("between", json!([least, most])),
        Check::BetweenNumbers(least, most) => ("between", json!([least, most])),
        Check::GreaterThan(bound) => ("gt", json!(bound)),
        Check::OneOf(words) => ("one_of", json!(words)),
        Check::NotOneOf(words) => ("not_one_of", json!(words)),
        Check::OneOfIntegers(numbers) => ("one_of", json!(numbers)),
        Check::AtLeast(count) => ("len_min", json!(count)),
        Check::ExclusiveSubsets(subsets) => ("mutually_exclusive_subsets", json!(subsets)),
        Check::Nothing(_) => ("eq", Value::Null),
        Check::Matches(pattern) => ("match", json!(pattern.lua)),
        Check::Regex => ("is_regex", true.into()),
        Check::Text(_) | Check::List(_) | Check::Record(_) => return None,
    };
    Some((name.to_owned(), value))
}

fn entity_checks(checks: &[EntityCheck]) -> Value {
    let shown = checks.iter().map(|check| match check {
        EntityCheck::AtLeastOneOf(fields) => json!({ "at_least_one_of": fields }),
        EntityCheck::OnlyOneOf(fields) => json!({ "only_one_of": fields }),
        EntityCheck::MutuallyRequired(fields) => json!({ "mutually_required": fields }),
        EntityCheck::MutuallyExclusive(fields) => json!({ "mutually_exclusive": fields }),
        EntityCheck::Distinct(fields) => json!({ "distinct": fields }),
        EntityCheck::Conditional {
            if_field,
            if_match,
            then_field,
            then_match,
        } => json!({ "conditional": {
            "if_field": if_field,
            "if_match": matched(*if_match),
            "then_field": then_field,
            "then_match": matched(*then_match),
        } }),
        EntityCheck::Custom { fields, .. } => {
            json!({ "custom_entity_check": { "field_sources": fields } })
        }
    });
    shown.collect()
}

fn matched(matched: Match) -> Value {
    match matched {
        Match::Null => json!({ "eq": null }),
        Match::NotNull | Match::Passes(_) => json!({ "required": true }),
        Match::Is(text) => json!({ "eq": text }),
        Match::GreaterThan(bound) => json!({ "gt": bound }),
        Match::Contains(text) => json!({ "contains": text }),
        Match::OneOf(texts) => json!({ "one_of": texts }),
        Match::NotOneOf(texts) => json!({ "not_one_of": texts }),
    }
}
