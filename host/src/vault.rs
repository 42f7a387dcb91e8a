//! Resolves references to values in vaults: `{vault://<vault>/<path>[?<options>][#<version>]}`.
//! Source: Kong 3.9, `kong.pdk.vault`; the texts that say why a reference is not resolved are its.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use percent_encoding::percent_decode_str;
use rustix::fs::OFlags;
use serde_json::Value;

use crate::entity::vault::{Source, Vault, is_variable_prefix};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The vaults that references may name, by their prefixes. The environment is always there.
#[derive(Debug, Clone, Default)]
pub struct Vaults(HashMap<String, Source>);

impl FromIterator<Vault> for Vaults {
    fn from_iter<I: IntoIterator<Item = Vault>>(vaults: I) -> Self {
        let vaults = vaults.into_iter();
        Self(vaults.map(|vault| (vault.prefix, vault.source)).collect())
    }
}

/// Whether a text is a reference.
pub fn is_reference(text: &str) -> bool {
    text.starts_with("{vault://") && text.ends_with('}')
}

/// The value that a reference names.
///
/// # Errors
/// Why there is none, in Kong's words.
pub fn resolve(reference: &str, vaults: &Vaults) -> Result<String, String> {
    resolve_in(reference, vaults, &|name| std::env::var(name).ok())
}

/// Looks up a variable of the environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

fn resolve_in(text: &str, vaults: &Vaults, environment: Environment<'_>) -> Result<String, String> {
    let reference = Reference::parse(text)?;
    let own = Source::Env { prefix: None };
    let source = match vaults.0.get(&reference.vault) {
        Some(source) => source,
        None if reference.vault == "env" => &own,
        None => return Err(format!("could not find vault ({})", reference.vault)),
    };
    let value = match source {
        Source::Env { prefix } => {
            let given = reference
                .prefix
                .as_deref()
                .filter(|text| is_variable_prefix(text));
            let prefix = given.or(prefix.as_deref()).unwrap_or_default();
            let name = format!("{prefix}{}", reference.resource).replace('-', "_");
            let previous = if reference.version == Some(2) {
                "_PREVIOUS"
            } else {
                ""
            };
            environment(&format!("{}{previous}", name.to_ascii_uppercase()))
        }
        Source::File { folder } => read(folder, &reference.resource)?,
    };
    let value = value.ok_or("could not get value from external vault (no value found)")?;
    match &reference.key {
        Some(key) => {
            subfield(&value, key).map_err(|why| format!("could not get subfield value: {why}"))
        }
        None => Ok(value),
    }
}

/// The content of a file below a folder, without the end of its last line; none if there is no
/// such file.
fn read(folder: &Path, resource: &str) -> Result<Option<String>, String> {
    let path = Path::new(resource);
    if !path
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return Ok(None);
    }
    // To open a named pipe would wait for who writes to it.
    let mut options = std::fs::OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32);
    let Ok(file) = options.open(folder.join(path)) else {
        return Ok(None);
    };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(None);
    }
    let why =
        |why: &dyn std::fmt::Display| format!("could not get value from external vault ({why})");
    let mut text = String::new();
    let read = file.take(LARGEST + 1).read_to_string(&mut text);
    read.map_err(|error| why(&error))?;
    if text.len() as u64 > LARGEST {
        return Err(why(&"the file is larger than 1 MiB"));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Ok(Some(line.to_owned()))
}

/// A text in a JSON object.
fn subfield(value: &str, key: &str) -> Result<String, String> {
    let json: Value = serde_json::from_str(value)
        .map_err(|error| format!("unable to json decode value ({error})"))?;
    let unexpected =
        |kind: &str| format!("unexpected {kind} value in JSON secret for subfield {key}");
    match json.get(key) {
        None | Some(Value::Null) => Err(format!("subfield {key} not found in JSON secret")),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(_)) => Err(unexpected("number")),
        Some(Value::Bool(_)) => Err(unexpected("boolean")),
        Some(Value::Array(_) | Value::Object(_)) => Err(unexpected("table")),
    }
}

/// The parts of a reference.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    vault: String,
    resource: String,
    key: Option<String>,
    /// The prefix of variables, in place of that of the vault.
    prefix: Option<String>,
    version: Option<u32>,
}

impl Reference {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{why} [{text}]");
        let url = text
            .strip_prefix("{vault://")
            .and_then(|rest| rest.strip_suffix('}'));
        let url = url.ok_or_else(|| wrong("not a reference"))?;
        let (url, version) = match url.split_once('#') {
            Some((url, version)) => (url, Some(version)),
            None => (url, None),
        };
        let version = version.map(|version| {
            let number = version.parse();
            number.map_err(|_| wrong("reference url has invalid version"))
        });
        let (url, options) = url.split_once('?').unwrap_or((url, ""));
        let (vault, path) = url
            .split_once('/')
            .ok_or_else(|| wrong("reference url is missing path"))?;
        if path.is_empty() {
            return Err(wrong("reference url has empty path"));
        }
        let whole = path.ends_with('/');
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let mut segments: Vec<String> = segments
            .map(|segment| {
                let decoded = percent_decode_str(segment).decode_utf8();
                decoded.map(|text| text.into_owned())
            })
            .collect::<Result<_, _>>()
            .map_err(|_| wrong("reference url has invalid path"))?;
        let key = if segments.len() > 1 && !whole {
            segments.pop()
        } else {
            None
        };
        if segments.is_empty() {
            return Err(wrong("reference url has invalid path"));
        }
        let mut options = form_urlencoded::parse(options.as_bytes());
        let prefix = options.find(|(name, _)| name == "prefix");
        Ok(Self {
            vault: vault.to_owned(),
            resource: segments.join("/"),
            key,
            prefix: prefix.map(|(_, prefix)| prefix.into_owned()),
            version: version.transpose()?,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "MY_SECRET" => r#"{"user":"u","n":1,"b":true,"o":{}}"#,
            "SSL_KEY" => "key",
            "KEY" => "plain",
            "KEY_PREVIOUS" => "old",
            "A/B" => "path",
            "EMPTY" => "",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn vaults() -> Vaults {
        let ssl = Source::Env {
            prefix: Some("ssl-".into()),
        };
        [Vault {
            prefix: "ssl".into(),
            source: ssl,
        }]
        .into_iter()
        .collect()
    }

    fn resolved(text: &str) -> Result<String, String> {
        resolve_in(text, &vaults(), &environment)
    }

    #[test]
    fn references_name_variables_of_the_environment() {
        for (reference, value) in [
            ("{vault://env/key}", "plain"),
            ("{vault://env/my-secret/user}", "u"),
            ("{vault://env//my%2Dsecret//user}", "u"),
            ("{vault://env/a/b/}", "path"),
            ("{vault://env/key/}", "plain"),
            ("{vault://env/empty}", ""),
            ("{vault://env/key#2}", "old"),
            ("{vault://env/key#1}", "plain"),
            ("{vault://ssl/key}", "key"),
            ("{vault://env/key?prefix=SSL_}", "key"),
            ("{vault://env/key?prefix=1_&x=y}", "plain"),
        ] {
            assert_eq!(resolved(reference).as_deref(), Ok(value), "{reference}");
        }
    }

    #[test]
    fn what_is_not_resolved_has_kongs_reasons() {
        for (reference, why) in [
            ("{vault://other/key}", "could not find vault (other)"),
            (
                "{vault://env/none}",
                "could not get value from external vault (no value found)",
            ),
            (
                "{vault://env/my-secret/pass}",
                "could not get subfield value: subfield pass not found in JSON secret",
            ),
            (
                "{vault://env/my-secret/n}",
                "could not get subfield value: unexpected number value in JSON secret for subfield n",
            ),
            ("vault://env/key", "not a reference [vault://env/key]"),
            (
                "{vault://env}",
                "reference url is missing path [{vault://env}]",
            ),
            (
                "{vault://env/}",
                "reference url has empty path [{vault://env/}]",
            ),
            (
                "{vault://env///}",
                "reference url has invalid path [{vault://env///}]",
            ),
            (
                "{vault://env/a%ff}",
                "reference url has invalid path [{vault://env/a%ff}]",
            ),
            (
                "{vault://env/a#x}",
                "reference url has invalid version [{vault://env/a#x}]",
            ),
        ] {
            assert_eq!(resolved(reference), Err(why.to_owned()));
        }
        let why = resolved("{vault://env/key/user}").unwrap_err();
        assert!(why.contains("unable to json decode value ("), "{why}");
    }

    #[test]
    fn files_are_read_below_their_folder_alone() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("vault");
        std::fs::create_dir_all(folder.join("db")).unwrap();
        std::fs::write(outer.path().join("outside"), "o").unwrap();
        std::fs::write(folder.join("token"), "t\n").unwrap();
        std::fs::write(folder.join("db").join("login"), r#"{"user":"u"}"#).unwrap();
        std::fs::write(folder.join("large"), vec![b'x'; LARGEST as usize + 1]).unwrap();
        std::fs::write(folder.join("binary"), [0xff]).unwrap();
        let source = Source::File { folder };
        let vaults: Vaults = [Vault {
            prefix: "files".into(),
            source,
        }]
        .into_iter()
        .collect();
        assert_eq!(
            resolve("{vault://files/token}", &vaults).as_deref(),
            Ok("t")
        );
        assert_eq!(
            resolve("{vault://files/db/login/user}", &vaults).as_deref(),
            Ok("u")
        );
        for absent in [
            "none",
            "%2E%2E/outside/",
            "..%2Foutside",
            "%2Fetc%2Fhostname",
            "db",
        ] {
            let found = resolve(&format!("{{vault://files/{absent}}}"), &vaults);
            assert!(found.is_err(), "{absent} {found:?}");
        }
        for wrong in ["large", "binary"] {
            let why = resolve(&format!("{{vault://files/{wrong}}}"), &vaults).unwrap_err();
            assert!(
                why.starts_with("could not get value from external vault ("),
                "{why}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_reference_is_resolved_or_refused(text in "\\{vault://[a-z/?#=%0-9]{0,20}\\}") {
            let _ = resolved(&text);
        }
    }
}
