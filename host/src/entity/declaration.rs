//! The parts of a declaration. All that the Admin API knows of an entity is declared with them.

use serde_json::Value;

use super::entity_check::EntityCheck;
use super::field::{Field, Shape};
use super::reference::{Reference, UniqueKey};
use super::subschema::Subschemas;
use super::{Kind, Row};

/// The declaration of an entity. An entity lists only the fields that differ from
/// [`Declaration::of`].
#[derive(Debug)]
pub struct Declaration {
    /// Which entity.
    pub kind: Kind,
    /// Its name in the store, in errors and in `/schemas`, such as `keyauth_credentials`.
    pub name: &'static str,
    /// The name of one row in the log, such as `target`.
    pub singular: &'static str,
    /// Which endpoints it has.
    pub endpoints: Endpoints,
    /// The name of its collection in paths, such as `key-auths`.
    pub path: &'static str,
    /// The name in a path below a row that the entity refers to, such as `key-auth` in
    /// `/consumers/{consumer}/key-auth`.
    pub nested_path: &'static str,
    /// The field by which a path may name a row, in addition to its id, if there is one.
    pub endpoint_key: Option<&'static str>,
    /// The key in a path below a parent row, if it is another field, such as the target of an
    /// upstream: one that is unique only below its parent.
    pub nested_key: Option<&'static str>,
    /// The reference to the owner of a row, if rows have an owner.
    pub owner: Option<&'static str>,
    /// The order of lists below a row that the entity refers to. All other lists are in the order
    /// of ids.
    pub nested_order: ListOrder,
    /// The order of the ids that are given to new rows.
    pub id_order: IdOrder,
    /// Fields that keep their values when a PUT of an existing row does not name them. All others
    /// return to their defaults.
    pub kept_by_put: &'static [&'static str],
    /// Whether a PUT below another parent moves a row to that one, as it does for decK's
    /// credentials. Otherwise it finds no such row.
    pub put_moves: bool,
    /// Its fields, in the order in which they are shown.
    pub fields: &'static [Field],
    /// The combinations of fields that must be unique.
    pub unique: &'static [UniqueKey],
    /// Whether times are seconds with a fraction, instead of whole seconds.
    pub fractional_times: bool,
    /// Rewrites the input of a request before it is checked (shorthands, couplings), given the row
    /// that the request changes, if any.
    pub expand: fn(&mut Row, Option<&Row>),
    /// Brings a whole row into the form in which it is stored, after its fields were found to be
    /// right.
    pub normalize: fn(&mut Row),
    /// The fields that depend on the value of another field, if there are any.
    pub subschemas: Option<Subschemas>,
    /// Rules across fields.
    pub entity_checks: &'static [EntityCheck],
    /// Pairs of a field that exists only with other settings of the gateway, and a hint that the
    /// error about the unknown field adds.
    pub hints_for_unknown_fields: &'static [(&'static str, &'static str)],
}

/// Which endpoints of an entity are generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoints {
    /// A collection, and another one below each row that the entity can refer to.
    All,
    /// Only the collections below a row that the entity refers to.
    NestedOnly,
    /// None: the entity has handlers of its own.
    Own,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOrder {
    /// Ascending ids; an offset names the first row.
    ById,
    /// The newest row first; an offset is a number of rows. The list in the order of ids is at
    /// `all` below it.
    NewestFirst,
}

/// The order of the ids that are given to new rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdOrder {
    /// A later id is greater.
    Ascending,
    /// A later id is smaller.
    Descending,
}

impl Declaration {
    /// The defaults of a declaration: an entity with all endpoints, under one name everywhere.
    pub(super) const fn of(kind: Kind, name: &'static str, singular: &'static str) -> Self {
        Self {
            kind,
            name,
            singular,
            endpoints: Endpoints::All,
            path: name,
            nested_path: name,
            endpoint_key: None,
            nested_key: None,
            owner: None,
            nested_order: ListOrder::ById,
            id_order: IdOrder::Ascending,
            kept_by_put: &[],
            put_moves: true,
            fields: &[],
            unique: &[],
            fractional_times: false,
            expand: no_expansion,
            normalize: no_normalization,
            subschemas: None,
            entity_checks: &[],
            hints_for_unknown_fields: &[],
        }
    }

    /// The fields that refer to rows of other entities, at any depth in a row.
    pub fn references(&self) -> Vec<Reference> {
        references(self.fields)
    }

    /// The field by which a path below another row may name a row, in addition to its id.
    pub fn nested_key(&self) -> Option<&'static str> {
        self.nested_key.or(self.endpoint_key)
    }

    /// Whether the value must not appear in error messages. The row itself shows it, as in Kong.
    pub fn is_secret(&self, field: &str) -> bool {
        let mut fields = self.fields.iter();
        fields.any(|known| known.name == field && known.secret)
    }

    /// Takes out of a row what is not stored in it.
    pub fn remove_transient(&self, row: &mut Row) {
        for field in self.fields.iter().filter(|field| field.transient) {
            row.shift_remove(field.name);
        }
    }

    /// A value of a field in the form in which it is compared with other values.
    pub fn compared(&self, field: &str, value: &Value) -> Value {
        let field = self.fields.iter().find(|known| known.name == field);
        let form = field.and_then(|field| field.compared_as);
        let same = form.zip(value.as_str()).and_then(|(form, text)| form(text));
        same.map_or_else(|| value.clone(), Value::from)
    }
}

fn no_expansion(_: &mut Row, _: Option<&Row>) {}

fn no_normalization(_: &mut Row) {}

/// The references among fields, those of their records included.
fn references(fields: &[Field]) -> Vec<Reference> {
    let mut found = Vec::new();
    collect(fields, "", &mut found);
    found
}

fn collect(fields: &[Field], record: &str, found: &mut Vec<Reference>) {
    for field in fields {
        let name = || format!("{record}{}", field.name);
        let (target, is_array) = match &field.shape {
            Shape::Array(element) | Shape::Set(element) => (element.reference, true),
            _ => (field.reference, false),
        };
        if let Some(target) = target {
            // Leaked once for each declaration: `Kind::references` keeps the result.
            let name: &'static str = if record.is_empty() {
                field.name
            } else {
                Box::leak(name().into_boxed_str())
            };
            found.push(Reference {
                field: name,
                is_array,
                to: target.to,
                by: target.by,
                on_delete: target.on_delete,
                has_endpoint: target.has_endpoint,
            });
        }
        if let Shape::Record(fields) = field.shape {
            collect(fields, &format!("{}.", name()), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::entity::{OnDelete, ReferenceBy};

    const CERTIFICATE: Field =
        Field::element(Shape::Uuid).refers_to(Kind::Balancer, ReferenceBy::PlainId);

    const FIELDS: &[Field] = &[
        Field::reference("service", Kind::Service).on_delete(OnDelete::Cascade),
        Field::reference("fallback", Kind::Service),
        Field::array("certificates", &CERTIFICATE),
        Field::record(
            "tls",
            &[Field::record(
                "client",
                &[
                    Field::string("balancer").refers_to(
                        Kind::Balancer,
                        ReferenceBy::Field {
                            name: "name",
                            reserved: &[],
                        },
                    ),
                    Field::set("authorities", &CERTIFICATE),
                ],
            )],
        ),
    ];

    fn row(value: Value) -> Row {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn references_are_found_in_records_and_arrays() {
        let found = references(FIELDS);
        let found: Vec<_> = found.iter().map(|r| (r.field, r.is_array)).collect();
        assert_eq!(
            found,
            [
                ("service", false),
                ("fallback", false),
                ("certificates", true),
                ("tls.client.balancer", false),
                ("tls.client.authorities", true),
            ]
        );
    }

    #[test]
    fn two_references_to_one_entity_have_rules_of_their_own() {
        let rules: Vec<OnDelete> = references(FIELDS)
            .iter()
            .filter(|reference| reference.to == Kind::Service)
            .map(|reference| reference.on_delete)
            .collect();
        assert_eq!(rules, [OnDelete::Cascade, OnDelete::Restrict]);
    }

    #[test]
    fn the_values_of_a_reference_are_one_for_each_row_referred_to() {
        let row = row(json!({
            "service": { "id": "1" },
            "fallback": null,
            "certificates": ["2", "3"],
            "tls": { "client": { "balancer": "b", "authorities": [] } },
        }));
        let values: Vec<Vec<Value>> = references(FIELDS)
            .iter()
            .map(|reference| reference.values(&row).into_iter().cloned().collect())
            .collect();
        assert_eq!(
            values,
            [
                vec![json!({ "id": "1" })],
                vec![],
                vec![json!("2"), json!("3")],
                vec![json!("b")],
                vec![],
            ]
        );
        for reference in references(FIELDS) {
            assert!(reference.values(&Row::new()).is_empty());
        }
    }
}
