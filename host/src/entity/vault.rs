//! A vault: where the values that `{vault://…}` references name come from. Source: Kong 3.9,
//! `vaults`.
//!
//! The settings of a vault depend on its type, `name`: `env` is Kong's, `file` an extension.

use std::path::PathBuf;

use serde::Deserialize;

use super::declaration::Declaration;
use super::field::{Check, Field, TextPattern};
use super::subschema::{Subschema, Subschemas};
use super::{Kind, UniqueKey};

/// The types of vaults.
pub static TYPES: &[&Subschema] = &[&ENV, &FILE];

/// Where the values that references name come from.
pub static DECLARATION: Declaration = Declaration {
    endpoint_key: Some("prefix"),
    unique: &[UniqueKey::of(&["prefix"])],
    fields: &[
        Field::id(),
        Field::string("prefix").required().check(&[
            Check::Matches(&TextPattern {
                lua: "^[a-z][a-z%d-]-[a-z%d]+$",
                holds: is_prefix,
                message: None,
            }),
            Check::NotOneOf(&["env", "file"]),
        ]),
        Field::string("name").required(),
        Field::string("description"),
        Field::record("config", &[]),
        Field::created_at(),
        Field::updated_at(),
        Field::tags(),
    ],
    subschemas: Some(Subschemas {
        by: "name",
        of: |name| TYPES.iter().find(|vault| vault.name == name).copied(),
        unknown: |name| format!("vault '{name}' is not installed"),
        hint: None,
        absent: None,
    }),
    ..Declaration::of(Kind::Vault, "vaults", "vault")
};

/// The environment of the process.
static ENV: Subschema = Subschema {
    name: "env",
    fields: &[Field::record(
        "config",
        &[
            Field::string("prefix").check(&[Check::Matches(&TextPattern {
                lua: "^[%a_-][%a%d_-]*$",
                holds: is_variable_prefix,
                message: None,
            })]),
        ],
    )],
    entity_checks: &[],
};

/// Files below a folder, as orchestrators mount secrets.
static FILE: Subschema = Subschema {
    name: "file",
    fields: &[Field::record(
        "config",
        &[Field::string("folder")
            .required()
            .check(&[Check::Text(absolute)])],
    )
    .required()],
    entity_checks: &[],
};

fn is_prefix(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() >= 2
        && text.bytes().all(allowed)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
}

/// The beginning of the name of a variable.
pub(crate) fn is_variable_prefix(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b'-';
    text.bytes().next().is_some_and(letter) && text.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

/// The gateway may be started in any folder.
fn absolute(text: &str) -> Result<(), String> {
    if text.starts_with('/') {
        Ok(())
    } else {
        Err("should start with: /".into())
    }
}

/// What the data plane reads of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Vault {
    /// The name of the vault in references.
    pub prefix: String,
    /// Its type and settings.
    #[serde(flatten)]
    pub source: Source,
}

/// Where values come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "name", content = "config", rename_all = "lowercase")]
pub enum Source {
    /// The environment of the process.
    Env {
        /// What the names of all variables begin with.
        prefix: Option<String>,
    },
    /// Files below a folder.
    File {
        /// The folder.
        folder: PathBuf,
    },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::entity::Violation;

    fn create(input: &Value) -> Result<Vault, String> {
        let input = input.as_object().cloned().unwrap();
        match DECLARATION.create(Uuid::from_u128(1), input) {
            Ok(row) => Ok(serde_json::from_value(row.into()).unwrap()),
            Err(Violation::Schema(violations)) => Err(violations.message()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_vault_of_files_has_a_folder() {
        for config in [json!(null), json!({})] {
            let input = json!({ "prefix": "files", "name": "file", "config": config });
            assert!(create(&input).is_err(), "{config}");
        }
        let folder = json!({ "folder": "/secrets" });
        let files = create(&json!({ "prefix": "files", "name": "file", "config": folder }));
        let folder = PathBuf::from("/secrets");
        assert_eq!(files.unwrap().source, Source::File { folder });
    }

    #[test]
    fn a_vault_of_the_environment_without_settings_is_read() {
        let row = json!({ "prefix": "my-env", "name": "env", "config": null });
        let row = row.as_object().cloned().unwrap();
        let vault: Vault = crate::entity::view(Kind::Vault, row).unwrap();
        assert_eq!(vault.source, Source::Env { prefix: None });
    }

    #[test]
    fn a_prefix_can_be_the_host_of_a_url() {
        for right in ["ab", "my-vault", "a1"] {
            assert!(is_prefix(right), "{right}");
        }
        for wrong in ["", "a", "1a", "a-", "A1", "a_b", "-a"] {
            assert!(!is_prefix(wrong), "{wrong}");
        }
        assert!(is_variable_prefix("SSL_") && is_variable_prefix("-a1"));
        assert!(!is_variable_prefix("1a") && !is_variable_prefix("") && !is_variable_prefix("a="));
    }
}
