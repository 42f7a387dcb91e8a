//! A credential of `basic-auth`: a name and a password. Source: Kong 3.9,
//! `basicauth_credentials`.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use sha1::{Digest, Sha1};
use uuid::Uuid;

use super::consumer::CONSUMER;
use super::declaration::Declaration;
use super::field::Field;
use super::{ForeignKey, Kind, Row, UniqueKey};

/// A name and a password of a consumer.
pub static DECLARATION: Declaration = Declaration {
    path: "basic-auths",
    nested_path: "basic-auth",
    endpoint_key: Some("username"),
    owner: Some("consumer"),
    unique: &[UniqueKey::of(&["username"])],
    fields: &[
        Field::id(),
        Field::created_at(),
        CONSUMER,
        Field::string("username").required(),
        Field::string("password").required().secret(),
        Field::tags(),
    ],
    expand: hash_password,
    ..Declaration::of(
        Kind::BasicAuthCredential,
        "basicauth_credentials",
        "basic-auth credential",
    )
};

/// Replaces the password of an input by its hash. A row has the hash already, so a change that does
/// not name the password keeps it. The hash is bound to the consumer: for another consumer, the
/// password has to be given again (Kong keeps a hash that no password matches).
fn hash_password(input: &mut Row, old: Option<&Row>) {
    let given = consumer_of(input);
    let before = old.and_then(consumer_of);
    match input.get_mut("password") {
        Some(Value::String(password)) if !password.is_empty() => {
            if let Some(consumer) = given.or(before) {
                *password = hash(password, consumer);
            }
        }
        Some(_) => {}
        None if before.is_some() && given.is_some_and(|given| Some(given) != before) => {
            input.insert("password".into(), Value::Null);
        }
        None => {}
    }
}

/// Binds the hash of a row to the consumer that it names now, if the password is known: it was
/// given and hashed for the consumer `before`.
pub(crate) fn bind_again(row: &mut Row, given: Option<&Value>, before: Uuid) {
    let (Some(given), Some(now)) = (given.and_then(Value::as_str), consumer_of(row)) else {
        return;
    };
    if row.get("password").and_then(Value::as_str) == Some(&hash(given, before)) {
        row.insert("password".into(), hash(given, now).into());
    }
}

/// The consumer that a row or an input names, if it is named correctly.
pub(crate) fn consumer_of(row: &Row) -> Option<Uuid> {
    let id = row.get("consumer")?.get("id")?.as_str()?;
    Uuid::try_parse(id).ok()
}

/// A password as it is stored: the SHA-1 of the password followed by the id of the consumer, in
/// hexadecimal digits. Source: Kong.
pub fn hash(password: &str, consumer: Uuid) -> String {
    let digest = Sha1::new()
        .chain_update(password)
        .chain_update(consumer.to_string())
        .finalize();
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What the data plane reads of a credential.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct BasicAuthCredential {
    /// Primary key.
    pub id: Uuid,
    /// Whose credential it is.
    pub consumer: ForeignKey,
    /// The name.
    pub username: String,
    /// The password, as [`hash`] makes it.
    pub password: String,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    const CONSUMER: Uuid = Uuid::from_u128(7);

    fn row(value: Value) -> Row {
        value.as_object().cloned().unwrap()
    }

    fn made() -> Row {
        let input = json!({ "consumer": { "id": CONSUMER }, "username": "a", "password": "b" });
        DECLARATION.create(Uuid::from_u128(1), row(input)).unwrap()
    }

    #[test]
    fn a_password_is_stored_as_the_hash_that_kong_makes() {
        // printf 'b00000000-0000-0000-0000-000000000007' | sha1sum
        let hashed = "1e9f15521016b65f47148828f61ca01b41bc7b6f";
        assert_eq!(made()["password"], hashed);
    }

    #[test]
    fn a_change_hashes_only_a_password_that_it_names() {
        let old = made();
        let renamed = DECLARATION.update(&old, row(json!({ "username": "c" })));
        assert_eq!(renamed.unwrap()["password"], old["password"]);
        let changed = DECLARATION.update(&old, row(json!({ "password": "c" })));
        assert_eq!(changed.unwrap()["password"], hash("c", CONSUMER));
        // The hash is a password like any other.
        let hashed = json!({ "password": old["password"] });
        let again = DECLARATION.update(&old, row(hashed)).unwrap();
        assert_ne!(again["password"], old["password"]);
    }

    #[test]
    fn another_consumer_needs_the_password() {
        let other = Uuid::from_u128(8);
        let moved = json!({ "consumer": { "id": other } });
        assert!(DECLARATION.update(&made(), row(moved)).is_err());
        let moved = json!({ "consumer": { "id": other }, "password": "b" });
        let moved = DECLARATION.update(&made(), row(moved)).unwrap();
        assert_eq!(moved["password"], hash("b", other));
        let same = json!({ "consumer": { "id": CONSUMER } });
        assert!(DECLARATION.update(&made(), row(same)).is_ok());
    }

    #[test]
    fn what_is_no_password_is_refused_and_not_hashed() {
        for wrong in [json!(""), json!(1), Value::Null] {
            let input = json!({
                "consumer": { "id": CONSUMER }, "username": "a", "password": wrong,
            });
            let refused = DECLARATION.create(Uuid::from_u128(1), row(input));
            assert!(refused.is_err(), "{wrong}");
        }
    }
}
