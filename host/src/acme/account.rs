//! The account with an authority. Its key is a row of `keys`, whose `kid` is the URL of the
//! account, as in the messages to the authority (RFC 8555, 6.2).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{Account, Error, ExternalAccountKey, NewAccount};
use rcgen::KeyPair;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use uuid::Uuid;

use super::http::Http;
use super::order;
use super::rows::{self, TAG};
use crate::dns::Resolver;
use crate::entity::Kind;
use crate::entity::plugin::acme::Config;
use crate::store::{Store, Stored, Write};

/// The account of these settings: the stored one, or a new one, which is stored.
pub(super) async fn open(
    store: &dyn Store,
    config: &Config,
    resolver: Arc<Resolver>,
) -> Result<Account, String> {
    let builder = Account::builder_with_http(Box::new(Http { resolver }));
    if let Some(key) = find(store, config)? {
        let text = |value: Option<&Value>| {
            let text = value.and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let pem = key.row.get("pem").and_then(|pem| pem.get("private_key"));
        let private = PrivatePkcs8KeyDer::from_pem_slice(text(pem).as_bytes());
        let private = private.map_err(|error| {
            let name = name(config);
            format!("the private key of the key '{name}' cannot be used, delete it: {error}")
        })?;
        let url = text(key.row.get("kid"));
        let opened = builder.from_parts(url, private, config.api_uri.clone());
        return opened.await.map_err(|error| error.to_string());
    }
    let contact = format!("mailto:{}", config.account_email);
    let asked = NewAccount {
        contact: &[&contact],
        terms_of_service_agreed: config.tos_accepted,
        only_return_existing: false,
    };
    let external = external(config)?;
    let created = builder.create(&asked, config.api_uri.clone(), external.as_ref());
    let (account, credentials) = created
        .await
        .map_err(|error| format!("no account: {error}"))?;
    let key = KeyPair::try_from(credentials.private_key()).map_err(|error| error.to_string())?;
    let row = json!({
        "name": name(config),
        "kid": account.id(),
        "pem": { "private_key": key.serialize_pem(), "public_key": key.public_key_pem() },
        "tags": [TAG],
    });
    let id = Uuid::now_v7();
    let row = rows::made(Kind::Key, id, row)?;
    let insert = Write::put(Kind::Key, id, row, None, None);
    let stored = store.write(vec![insert]).await;
    stored.map_err(|error| format!("the key of the account cannot be stored: {error}"))?;
    tracing::info!("acme: new account {}", account.id());
    Ok(account)
}

/// Whether the authority does not know the account (RFC 8555, 6.7).
pub(super) fn is_unknown(error: &order::Error) -> bool {
    matches!(error, order::Error::Acme(Error::Api(problem))
        if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist"))
}

/// Deletes the stored account, so that the next try makes a new one.
pub(super) async fn forget(store: &dyn Store, config: &Config) -> Result<(), String> {
    let Some(key) = find(store, config)? else {
        return Ok(());
    };
    let id = rows::id_of(&key.row);
    let writes = Write::delete_unchanged(Kind::Key, id, key).into();
    let deleted = store.write(writes).await;
    deleted.map(drop).map_err(|error| error.to_string())
}

fn name(config: &Config) -> String {
    format!("acme:{}:{}", config.account_email, config.api_uri)
}

fn find(store: &dyn Store, config: &Config) -> Result<Option<Stored>, String> {
    let found = store.find(Kind::Key, &["name"], &[&name(config).into()]);
    found.map_err(|error| error.to_string())
}

/// The operator's account with the authority besides ACME (RFC 8555, 7.3.4).
fn external(config: &Config) -> Result<Option<ExternalAccountKey>, String> {
    let Some((id, key)) = config.eab_kid.as_ref().zip(config.eab_hmac_key.as_ref()) else {
        return Ok(None);
    };
    let key = URL_SAFE_NO_PAD.decode(key.trim_end_matches('='));
    let key = key.map_err(|error| format!("eab_hmac_key is no base64 for URLs: {error}"))?;
    Ok(Some(ExternalAccountKey::new(id.clone(), &key)))
}
