//! What certificates have beyond their declaration: the list of their server names. They are rows
//! of `snis`, which are written together with their certificate. Source: Kong 3.9,
//! `kong.db.dao.certificates` and `kong.api.routes.certificates`.

use futures_util::FutureExt;
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Admin;
use super::error::Error;
use super::hooks::{Alias, Hooks};
use super::key::Key;
use super::rows::id_of;
use super::writes::new_id;
use crate::entity::{Kind, Row};
use crate::store::{Stored, Write};

const SNIS: &str = "snis";

pub(super) const HOOKS: Hooks = Hooks {
    alias: Some(Alias {
        find: by_server_name,
        absent: || Error::Plain(StatusCode::NOT_FOUND, "SNI not found".into()),
        put: add_server_name,
    }),
    absent: Key::missing,
    check: |admin, row| std::future::ready(server_names(admin, row)).boxed(),
    show: |admin, row| {
        let snis = of_certificate(admin, id_of(row))?;
        let names = names(&snis);
        row.insert(SNIS.into(), names.into());
        Ok(())
    },
    parts: of_certificate,
    ..Hooks::NONE
};

/// The certificate of a server name.
fn by_server_name(admin: &Admin, name: &str) -> Result<Option<Uuid>, Error> {
    let found = admin.store.find(Kind::Sni, &["name"], &[&name.into()])?;
    Ok(found.map(|sni| certificate_of(&sni)))
}

/// A PUT by a server name gives the certificate that name, in addition to those of a list in it. If
/// there is no list, the certificate has no name afterwards, as in Kong.
fn add_server_name(input: &mut Row, name: &str) {
    let is_name = |other: &Value| {
        let other = other.as_str();
        other.is_some_and(|other| other.eq_ignore_ascii_case(name))
    };
    if let Some(Value::Array(names)) = input.get_mut(SNIS)
        && !names.iter().any(is_name)
    {
        names.push(name.into());
    }
}

fn certificate_of(sni: &Stored) -> Uuid {
    let certificate = sni.row.get("certificate").and_then(Value::as_object);
    certificate.map(id_of).unwrap_or_default()
}

fn of_certificate(admin: &Admin, id: Uuid) -> Result<Vec<Stored>, Error> {
    let all = usize::MAX;
    Ok((admin.store).list_referring(Kind::Sni, "certificate", id, None, all)?)
}

fn name_of(sni: &Stored) -> &str {
    sni.row
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The names of server names, in the order of the alphabet.
fn names(snis: &[Stored]) -> Vec<&str> {
    let mut names: Vec<&str> = snis.iter().map(name_of).collect();
    names.sort_unstable();
    names
}

/// The writes that give a certificate the server names of its input, and take all others from it. A
/// change that does not name them keeps them.
fn server_names(admin: &Admin, certificate: &Row) -> Result<Vec<Write>, Error> {
    let Some(wanted) = certificate.get(SNIS) else {
        return Ok(Vec::new());
    };
    let wanted = wanted.as_array().into_iter().flatten();
    let wanted: Vec<&str> = wanted.filter_map(Value::as_str).collect();
    let id = id_of(certificate);
    let mut writes = Vec::new();
    for sni in of_certificate(admin, id)? {
        let is_wanted = |name: &&str| name.eq_ignore_ascii_case(name_of(&sni));
        if !wanted.iter().any(is_wanted) {
            writes.extend(Write::delete_unchanged(Kind::Sni, id_of(&sni.row), sni));
        }
    }
    for name in wanted {
        match by_server_name(admin, name)? {
            Some(other) if other != id => {
                let message =
                    format!("{name} already associated with existing certificate '{other}'");
                return Err(Error::field(SNIS, message));
            }
            Some(_) => {}
            None => {
                let sni = json!({ "name": name, "certificate": { "id": id } });
                let sni = sni.as_object().cloned().unwrap_or_default();
                let new = new_id(Kind::Sni);
                writes.push(Write::Insert {
                    kind: Kind::Sni,
                    id: new,
                    row: Kind::Sni.declaration().create(new, sni)?,
                    blob: None,
                });
            }
        }
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_path_is_added_unless_the_list_has_it_in_any_case() {
        for (given, name, put) in [
            (json!(["a.example"]), "A.example", json!(["a.example"])),
            (json!(["b"]), "a", json!(["b", "a"])),
            (json!(null), "a", json!(null)),
        ] {
            let mut input = Row::from_iter([(SNIS.to_owned(), given)]);
            add_server_name(&mut input, name);
            assert_eq!(input[SNIS], put);
        }
    }
}
