//! The configuration as one document: Kong's `/config`, which only a gateway without a database
//! takes, and `/pointsman/config` of any gateway. Source: Kong 3.9, `kong.api.routes.config`.

mod loaded;
mod sent;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::error::Error;
use super::import::{Imported, Importer, Refused, present};
use super::rollout::Aim;
use super::{Admin, ApiEndpoint, arguments, decode, rollout};
use crate::declarative::{
    self, Components, Configuration, Difference, Exported, LONGEST, Mistakes, Syntax, Text,
};
use crate::entity::{Kind, Row};
pub use loaded::Loaded;
use sent::{Flags, Sent, sent};

pub(super) fn endpoints() -> [ApiEndpoint; 2] {
    [
        (
            "/config".into(),
            get(show).post(load),
            "GET, HEAD, OPTIONS, POST",
        ),
        (
            "/pointsman/config".into(),
            get(export).put(import),
            "GET, HEAD, OPTIONS, PUT",
        ),
    ]
}

fn needs_no_database(admin: &Admin) -> Result<(), Error> {
    if admin.config.database {
        return Err(Error::bad_request(
            "this endpoint is only available when Kong is configured to not use a database",
        ));
    }
    Ok(())
}

/// The configuration as YAML.
fn exported(admin: &Admin, exported: Exported) -> Result<String, Error> {
    // An unreadable store is found before anything is written.
    let mut rows = std::collections::HashMap::new();
    for kind in Kind::ALL {
        rows.insert(kind, present(admin, kind)?);
    }
    let of_kind = |kind| rows.get(&kind).cloned().unwrap_or_default();
    Ok(declarative::export(&of_kind, exported))
}

/// `GET /config`.
async fn show(State(admin): State<Admin>) -> Result<Json<Value>, Error> {
    needs_no_database(&admin)?;
    let config = exported(&admin, Exported::default())?;
    Ok(Json(json!({ "config": config })))
}

/// `GET /pointsman/config`: the document itself; with `secrets=false` without secrets.
async fn export(State(admin): State<Admin>, request: Request) -> Result<Response, Error> {
    let mut options = Exported::default();
    for (name, value) in arguments::pairs(request.uri().query().unwrap_or_default().as_bytes())? {
        match (&*name, &*value) {
            ("secrets", "true" | "false") => options.without_secrets = value == "false",
            ("secrets", _) => return Err(Error::field("secrets", "expected a boolean")),
            _ => return Err(Error::field(&name, "unknown field")),
        }
    }
    let text = exported(&admin, options)?;
    Ok(([(CONTENT_TYPE, "application/yaml")], text).into_response())
}

/// `PUT /pointsman/config`: makes the configuration that of the document; with `dry_run=true`
/// answers only what would change. A form has the document as `config`, and the components that it
/// names.
async fn import(State(admin): State<Admin>, request: Request) -> Result<Response, Error> {
    let mut aim = Aim::Change;
    let (mut is_canary, mut settings) = (false, Row::new());
    for (name, value) in arguments::pairs(request.uri().query().unwrap_or_default().as_bytes())? {
        match (&*name, &*value) {
            ("dry_run", "true" | "false") => aim = Aim::of_dry_run(value == "true"),
            ("channel", "main" | "canary") => is_canary = value == "canary",
            ("channel", _) => {
                return Err(Error::field("channel", "expected one of: main, canary"));
            }
            ("dry_run", _) => return Err(Error::field("dry_run", "expected a boolean")),
            // See `clustering.rs`.
            ("wait", _) => {}
            (setting, _) if rollout::is_setting(setting) => {
                settings.insert(name, value.into());
            }
            _ => return Err(Error::field(&name, "unknown field")),
        }
    }
    if is_canary {
        aim = rollout::aim(&admin, &aim, settings)?;
    } else if let Some(name) = settings.keys().next() {
        let message = "only a rollout has it: add channel=canary, or leave it out";
        return Err(Error::field(name, message));
    }
    let (parts, body) = request.into_parts();
    // A token that may change nothing may ask for a trial: one is read and checked at a time, and
    // no import waits for it.
    let _turn = match aim {
        Aim::DryRun => Some(admin.loaded.dry_run_turn.acquire().await),
        _ => None,
    };
    let body = decode::read(body, LONGEST).await?;
    let mut importer = Importer::of(&admin);
    let content_type = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content_type = String::from_utf8_lossy(content_type.unwrap_or_default());
    let document = match content_type.starts_with("multipart/form-data") {
        true => {
            let (document, components) = form(&content_type, body).await?;
            importer = importer.with(components);
            document
        }
        false => text(&body)?.to_owned(),
    };
    let _import = match aim {
        Aim::DryRun => None,
        _ => Some(admin.loaded.turn.acquire().await),
    };
    let imported = match imported(&importer, Document::Text(&document), aim).await {
        Ok(imported) => imported,
        Err(Unloaded::Invalid(invalid)) => return Ok(invalid.response(true)),
        Err(Unloaded::Other(error)) => return Err(error),
    };
    in_effect(&admin, &imported).await;
    Ok(Json(json!({ "changes": imported.differences })).into_response())
}

/// The document of a form, and its components: parts whose names are `component:` or `signature:`
/// and then the path by which the document names the component, with `%` before what a name cannot
/// have.
async fn form(content_type: &str, body: Bytes) -> Result<(String, Components), Error> {
    let (mut document, mut components) = (None, Components::default());
    let (mut all, mut signatures) = (Vec::new(), HashMap::new());
    for part in decode::parts(content_type, body).await? {
        let named = |prefix: &str| {
            let path = part.name.strip_prefix(prefix)?;
            Some(percent_decode_str(path).decode_utf8_lossy().into_owned())
        };
        if part.name == "config" {
            document = Some(text(&part.content)?.to_owned());
        } else if let Some(path) = named("component:") {
            all.push((path, part.content));
        } else if let Some(path) = named("signature:") {
            signatures.insert(path, text(&part.content)?.to_owned());
        } else {
            return Err(Error::field(&part.name, "unknown field"));
        }
    }
    for (path, component) in all {
        let signature = signatures.remove(&path);
        components.add(path, component, signature);
    }
    let missing = || Error::bad_request("expected a declarative configuration");
    Ok((document.ok_or_else(missing)?, components))
}

/// Logs what an import has done, and waits until it is in effect.
async fn in_effect(admin: &Admin, imported: &Imported) {
    if let Some(revision) = imported.revision {
        admin.wait_for(revision).await;
        let changed = imported.differences.len();
        tracing::info!("configuration imported: {changed} entities changed");
    }
}

/// A document as it was sent.
#[derive(Clone, Copy)]
enum Document<'a> {
    Text(&'a str),
    Value(&'a Value),
}

impl Document<'_> {
    /// The document with its lines. It cannot be sent between threads, so it is read again where
    /// the lines are asked for later.
    fn parsed(self) -> Result<Text, String> {
        match self {
            Self::Text(text) => Text::read(text, Syntax::Either),
            Self::Value(value) => Ok(Text::of_value(value.clone())),
        }
    }
}

/// Why a document is refused.
struct Invalid {
    mistakes: Mistakes,
    /// The mistakes with their lines.
    told: Vec<String>,
}

/// Why a document is not loaded.
enum Unloaded {
    Invalid(Invalid),
    Other(Error),
}

/// Imports a document.
async fn imported(
    importer: &Importer,
    document: Document<'_>,
    aim: Aim,
) -> Result<Imported, Unloaded> {
    let configuration = read(importer, document).map_err(Unloaded::Invalid)?;
    let refused = match importer.import(configuration, aim).await {
        Ok(imported) => return Ok(imported),
        Err(refused) => refused,
    };
    Err(match refused {
        Refused::Other(error) => Unloaded::Other(error),
        Refused::Mistakes(mistakes) => {
            let parsed = document.parsed();
            let told = parsed.map(|text| mistakes.told(&text.lines()));
            let told = told.unwrap_or_default();
            Unloaded::Invalid(Invalid { mistakes, told })
        }
    })
}

fn read(importer: &Importer, document: Document<'_>) -> Result<Configuration, Invalid> {
    let text = document.parsed().map_err(|why| Invalid {
        told: vec![why.clone()],
        mistakes: Mistakes::unreadable(&why),
    })?;
    importer.read(&text).map_err(|mistakes| Invalid {
        told: mistakes.told(&text.lines()),
        mistakes,
    })
}

impl Invalid {
    /// Kong's answer, with the mistakes as lines beside it.
    fn response(&self, is_flat: bool) -> Response {
        let mut body = json!({ "code": 14, "name": "invalid declarative configuration" });
        let mut fields = self.mistakes.fields();
        if is_flat {
            let (flattened, left) = self.mistakes.flattened();
            body["flattened_errors"] = flattened.into();
            fields = left;
        }
        body["message"] = Mistakes::message(&fields).into();
        body["fields"] = fields;
        body["pointsman"] = json!({ "errors": self.told });
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    }
}

fn text(body: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(body).map_err(|_| Error::bad_request("the document is not UTF-8"))
}

/// `POST /config`.
async fn load(State(admin): State<Admin>, request: Request) -> Result<Response, Error> {
    needs_no_database(&admin)?;
    let mut flags = Flags::default();
    for (name, value) in arguments::pairs(request.uri().query().unwrap_or_default().as_bytes())? {
        flags.read(&name, &value);
    }
    let (parts, body) = request.into_parts();
    let body = decode::read(body, LONGEST).await?;
    let sent = sent(&parts.headers, &body, &mut flags).await?;
    let Ok(_turn) = admin.loaded.turn.try_acquire() else {
        let message = "Currently loading previous configuration";
        let error = Error::Plain(StatusCode::TOO_MANY_REQUESTS, message.into());
        return Ok(([(RETRY_AFTER, "10")], error).into_response());
    };
    let hash = match &sent {
        Sent::Text(text) => hash_of(text),
        Sent::Value(value) => hash_of(&value.to_string()),
    };
    let is_text = matches!(sent, Sent::Text(_));
    if flags.check_hash && is_text && admin.loaded.hash() == hash {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let importer = Importer::of(&admin);
    let document = match &sent {
        Sent::Text(text) => Document::Text(text),
        Sent::Value(value) => Document::Value(value),
    };
    let imported = match imported(&importer, document, Aim::Change).await {
        Ok(imported) => imported,
        Err(Unloaded::Invalid(invalid)) => return Ok(invalid.response(flags.flatten_errors)),
        Err(Unloaded::Other(error)) => return Err(error),
    };
    admin.loaded.set(&imported, hash);
    in_effect(&admin, &imported).await;
    let entities = by_id(&imported);
    Ok((StatusCode::CREATED, Json(entities)).into_response())
}

fn hash_of(text: &str) -> String {
    Md5::digest(text)
        .iter()
        .fold(String::new(), |mut hash, byte| {
            let _ = write!(hash, "{byte:02x}");
            hash
        })
}

/// The entities that were loaded, by collection and id. A password is shown as it was sent.
fn by_id(imported: &Imported) -> Value {
    let mut all = Row::new();
    for entity in &imported.configuration.entities {
        let declaration = entity.kind.declaration();
        let Some(mut row) = declaration.shown(entity.row.clone()) else {
            continue;
        };
        if entity.kind == Kind::BasicAuthCredential
            && let Some(password) = entity.given.get("password")
        {
            row.insert("password".into(), password.clone());
        }
        let of_kind = all.entry(entity.kind.name()).or_insert_with(|| json!({}));
        of_kind[entity.id.to_string()] = row.into();
    }
    all.into()
}

/// A document as a file.
#[derive(Clone, Copy)]
pub(crate) struct DocumentFile<'a> {
    pub(crate) text: &'a str,
    pub(crate) syntax: Syntax,
    /// The folder of the file, in which the components are that it names.
    pub(crate) folder: &'a Path,
}

/// Loads a text, at the start or when it has changed. Returns how many entities it changed.
///
/// # Errors
/// All that is wrong with it, one mistake a line. Nothing was changed.
pub(crate) async fn load_text(
    importer: &Importer,
    loaded: &Loaded,
    file: DocumentFile<'_>,
) -> Result<usize, String> {
    let _turn = loaded.turn.acquire().await;
    let imported = import_text(importer, file, false).await?;
    loaded.set(&imported, hash_of(file.text));
    Ok(imported.differences.len())
}

/// What importing a text into a store changes, or would change.
///
/// # Errors
/// As above.
pub(crate) async fn offline_changes(
    importer: &Importer,
    file: DocumentFile<'_>,
    is_dry_run: bool,
) -> Result<Vec<Difference>, String> {
    let imported = import_text(importer, file, is_dry_run).await?;
    Ok(imported.differences)
}

async fn import_text(
    importer: &Importer,
    file: DocumentFile<'_>,
    is_dry_run: bool,
) -> Result<Imported, String> {
    let DocumentFile {
        text,
        syntax,
        folder,
    } = file;
    let (importer, configuration) = {
        let read = Text::read(text, syntax)?;
        let components = Components::beside(&read, folder, importer.limits.upload);
        let importer = importer.with(components);
        let configuration = importer.read(&read);
        let told = |mistakes: Mistakes| mistakes.told(&read.lines()).join("\n");
        (importer, configuration.map_err(told)?)
    };
    let aim = Aim::of_dry_run(is_dry_run);
    let imported = importer.import(configuration, aim).await;
    imported.map_err(|refused| match refused {
        Refused::Other(error) => error.message(),
        Refused::Mistakes(mistakes) => match Text::read(text, syntax) {
            Ok(read) => mistakes.told(&read.lines()).join("\n"),
            Err(why) => why,
        },
    })
}
