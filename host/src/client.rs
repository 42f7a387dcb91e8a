//! A client of the Admin API, for the commands that talk to a gateway.

mod tls;

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;
use ureq::http::header::{AUTHORIZATION, HeaderValue};
use ureq::http::{Request, Response, StatusCode};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Body, SendBody};
use uuid::Uuid;

use tls::TlsConnector;

/// Where the Admin API listens unless the settings say otherwise.
const DEFAULT: &str = "http://127.0.0.1:8001";

/// Longest wait for a response. An upload is answered after it is compiled, or with the status that
/// it is still being checked.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Largest response that is read, in bytes.
const ANSWER: u64 = 16 << 20;

/// Largest declarative configuration that is read, in bytes.
const DOCUMENT: u64 = 256 << 20;

/// Media types of request bodies.
const COMPONENT: &str = "application/wasm";
const YAML: &str = "application/yaml";
const JSON: &str = "application/json";

/// What the name of a part cannot have.
const NAME: &AsciiSet = &CONTROLS.add(b'"').add(b'%').add(b'\\');

/// Largest component that is sent with a configuration, in bytes. The gateway has a limit of its
/// own.
pub(crate) const LARGEST_COMPONENT: usize = 64 << 20;

/// Where the gateway is.
#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// Address of the Admin API, http:// or https:// [env: POINTSMAN_ADMIN=] [default:
    /// http://127.0.0.1:8001]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,

    /// Token, where the Admin API needs one
    #[arg(
        long,
        env = "POINTSMAN_ADMIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    admin_token: Option<String>,

    /// Authorities that its certificate is accepted of, or the certificate itself, in PEM [default:
    /// the authorities that the system trusts]
    #[arg(long, env = "POINTSMAN_ADMIN_CA", value_name = "FILE")]
    admin_ca: Option<PathBuf>,
}

impl Gateway {
    /// Whether the command line names it, and not only the environment or the default.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.admin.is_some()
    }

    /// Its Admin API.
    pub(crate) fn admin(&self) -> anyhow::Result<Admin> {
        let variable = std::env::var("POINTSMAN_ADMIN").ok();
        let variable = variable.filter(|address| !address.is_empty());
        let address = self.admin.as_ref().or(variable.as_ref());
        let address = address.map_or(DEFAULT, String::as_str);
        let mut admin = Admin::trusting(address, self.admin_ca.as_deref())?;
        let token = self
            .admin_token
            .as_deref()
            .filter(|token| !token.is_empty());
        let value = token.map(|token| HeaderValue::try_from(format!("Bearer {token}")));
        let value = value
            .transpose()
            .context("the token has letters that no token has")?;
        admin.authorization = value;
        Ok(admin)
    }
}

pub(crate) struct Admin {
    agent: Agent,
    /// URL of the Admin API, without a slash at its end.
    address: String,
    /// The token, as the header has it.
    authorization: Option<HeaderValue>,
}

/// A response of the Admin API.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    /// Where to read the progress, if the response says so.
    pub(crate) location: Option<String>,
    pub(crate) body: Value,
}

impl Admin {
    /// The Admin API at an address, such as `http://127.0.0.1:8001`.
    #[cfg(test)]
    pub(crate) fn at(address: &str) -> anyhow::Result<Self> {
        Self::trusting(address, None)
    }

    /// The Admin API at an address. Over TLS, its certificate has to be of one of the authorities
    /// in the file, or without a file of one that the system trusts.
    fn trusting(address: &str, authorities: Option<&Path>) -> anyhow::Result<Self> {
        let address = address.trim_end_matches('/');
        let address = match address.split_once("://") {
            None => format!("http://{address}"),
            Some(("http" | "https", _)) => address.to_owned(),
            Some((scheme, _)) => {
                bail!("an Admin API has an address of http:// or https://, not of {scheme}://")
            }
        };
        let is_over_tls = address.starts_with("https://");
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(TIMEOUT))
            .build();
        let agent = match is_over_tls {
            false => config.new_agent(),
            true => {
                let connector = DefaultConnector::new().chain(TlsConnector::trusting(authorities)?);
                Agent::with_parts(config, connector, DefaultResolver::default())
            }
        };
        Ok(Self {
            agent,
            address,
            authorization: None,
        })
    }

    /// Gets a resource; `None` if it does not exist.
    pub(crate) fn find(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let answer = self.send("GET", path, SendBody::none(), None)?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => Ok(Some(self.good(answer)?.body)),
        }
    }

    /// Sends a `POST` without a body.
    pub(crate) fn post(&self, path: &str) -> anyhow::Result<Reply> {
        let answer = self.send("POST", path, SendBody::none(), Some((COMPONENT, 0)))?;
        self.good(answer)
    }

    /// Sends a `POST` with these fields as JSON.
    pub(crate) fn post_fields(&self, path: &str, fields: &Value) -> anyhow::Result<Reply> {
        let text = fields.to_string();
        let mut reader = text.as_bytes();
        let body = SendBody::from_reader(&mut reader);
        let answer = self.send("POST", path, body, Some((JSON, text.len())))?;
        self.good(answer)
    }

    /// Sends a `PUT` with a declarative configuration, and with these parts of a form beside it.
    pub(crate) fn put_document(
        &self,
        path: &str,
        text: &str,
        parts: &[(String, &[u8])],
    ) -> anyhow::Result<Reply> {
        let (content_type, sent) = match parts {
            [] => (YAML.to_owned(), text.as_bytes().to_vec()),
            parts => form(text, parts),
        };
        let mut reader = sent.as_slice();
        let body = SendBody::from_reader(&mut reader);
        let answer = self.send("PUT", path, body, Some((&*content_type, sent.len())))?;
        let told = answer.body.pointer("/pointsman/errors");
        match told
            .and_then(Value::as_array)
            .filter(|told| !told.is_empty())
        {
            Some(told) => {
                let told: Vec<&str> = told.iter().filter_map(Value::as_str).collect();
                bail!(told.join("\n"))
            }
            None => self.good(answer),
        }
    }

    /// Gets a text.
    pub(crate) fn document(&self, path: &str) -> anyhow::Result<String> {
        let mut request = self.agent.get(format!("{}{path}", self.address));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let mut answer = request.call().map_err(|error| self.unreachable(&error))?;
        if !answer.status().is_success() {
            return Err(match self.good(self.read(answer)?) {
                Err(error) => error,
                Ok(_) => anyhow!("the Admin API at {} answers nothing", self.address),
            });
        }
        let media_type = answer.headers().get("content-type");
        if !media_type.is_some_and(|value| value.as_bytes().starts_with(YAML.as_bytes())) {
            return Err(self.foreign(path));
        }
        let body = answer.body_mut().with_config().limit(DOCUMENT);
        body.read_to_string()
            .map_err(|error| self.unreachable(&error))
    }

    /// Deletes a resource.
    pub(crate) fn delete(&self, path: &str) -> anyhow::Result<Reply> {
        let answer = self.send("DELETE", path, SendBody::none(), None)?;
        self.good(answer)
    }

    /// Uploads a component. On a terminal, the progress is shown.
    pub(crate) fn upload(&self, path: &str, component: &[u8]) -> anyhow::Result<Reply> {
        let mut progress = Progress::of(component);
        let body = SendBody::from_reader(&mut progress);
        let answer = self.send("POST", path, body, Some((COMPONENT, component.len())));
        progress.end();
        self.good(answer?)
    }

    /// Sends a `POST` whose response is streamed, without a timeout.
    pub(crate) fn stream(&self, path: &str) -> anyhow::Result<impl Read + use<>> {
        let mut request = self.agent.post(format!("{}{path}", self.address));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.config().timeout_global(None).build();
        self.streamed(request.send_empty())
    }

    /// Gets a resource that is streamed, such as events, without a timeout.
    pub(crate) fn follow(&self, path: &str) -> anyhow::Result<impl Read + use<>> {
        let mut request = self.agent.get(format!("{}{path}", self.address));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.config().timeout_global(None).build();
        self.streamed(request.call())
    }

    /// The body of a response that is read while it comes.
    fn streamed(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> anyhow::Result<impl Read + use<>> {
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(answer.into_body().into_reader());
        }
        match self.good(self.read(answer)?) {
            Err(error) => Err(error),
            Ok(_) => Err(anyhow!("the Admin API at {} answers nothing", self.address)),
        }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: SendBody<'_>,
        content: Option<(&str, usize)>,
    ) -> anyhow::Result<Reply> {
        let is_whole = ["http://", "https://"]
            .iter()
            .any(|scheme| path.starts_with(scheme));
        let url = match is_whole {
            true => path.to_owned(),
            false => format!("{}{path}", self.address),
        };
        let mut request = Request::builder().method(method).uri(&url);
        // The token is for this Admin API alone.
        let is_own = |url: &str| {
            url.strip_prefix(&self.address)
                .is_some_and(|path| path.starts_with('/'))
        };
        if let Some(authorization) = self.authorization.as_ref().filter(|_| is_own(&url)) {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some((media_type, length)) = content {
            request = request
                .header("content-type", media_type)
                .header("content-length", length);
        }
        let request = request
            .body(body)
            .map_err(|error| anyhow!("{url}: {error}"))?;
        let answer = self.agent.run(request);
        self.read(answer.map_err(|error| self.unreachable(&error))?)
    }

    /// What to say of an answer that an Admin API would not give.
    pub(crate) fn foreign(&self, path: &str) -> anyhow::Error {
        let address = &self.address;
        anyhow!("this is not the Admin API of Pointsman: {address} answers {path} in another form")
    }

    fn unreachable(&self, error: &ureq::Error) -> anyhow::Error {
        let text = error.to_string();
        let hint = match text.contains("invalid peer certificate") {
            true => "; --admin-ca names the file of an authority that is to be trusted",
            false => "",
        };
        anyhow!(
            "no answer from the Admin API at {}: {text}{hint}",
            self.address
        )
    }

    /// Reads a response to its end.
    fn read(&self, mut answer: Response<Body>) -> anyhow::Result<Reply> {
        let location = answer.headers().get("location");
        let location = location.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(ANSWER).read_to_vec();
        let body = body.map_err(|error| self.unreachable(&error))?;
        Ok(Reply {
            status,
            location,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        })
    }

    /// Returns the response, or an error with the Admin API's message if its status is an error.
    fn good(&self, answer: Reply) -> anyhow::Result<Reply> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let status = answer.status;
        let Some(message) = answer.body.get("message").and_then(Value::as_str) else {
            bail!("the Admin API at {} answers {status}", self.address);
        };
        let mut text = format!("the Admin API answers {}: {message}", status.as_u16());
        let fields = answer.body.get("fields").and_then(Value::as_object);
        for (field, wrong) in fields.into_iter().flatten() {
            let wrong = match wrong {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            // If only one field is wrong, its message is in the main message already.
            if !message.contains(&wrong) {
                text.push_str(&format!("\n  {field}: {wrong}"));
            }
        }
        bail!(text)
    }
}

/// The progress of an upload.
struct Progress<'a> {
    rest: &'a [u8],
    length: usize,
    /// Whether the progress is shown, because standard error is a terminal.
    shown: bool,
}

impl<'a> Progress<'a> {
    fn of(component: &'a [u8]) -> Self {
        Self {
            rest: component,
            length: component.len(),
            shown: std::io::stderr().is_terminal(),
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

impl Read for Progress<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.rest.read(into)?;
        if self.shown {
            let sent = self.length - self.rest.len();
            let percent = sent * 100 / self.length.max(1);
            eprint!("\ruploading {} KiB: {percent} %", self.length >> 10);
        }
        Ok(read)
    }
}

/// A form with a configuration and further parts: its media type and its bytes (RFC 7578).
fn form(text: &str, parts: &[(String, &[u8])]) -> (String, Vec<u8>) {
    // No part has a random text in it.
    let boundary = Uuid::new_v4().simple().to_string();
    let mut body = Vec::new();
    let config = ("config".to_owned(), text.as_bytes());
    for (name, content) in std::iter::once(&config).chain(parts) {
        let name = utf8_percent_encode(name, NAME);
        let head =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_lack_its_scheme() {
        for (given, used) in [
            ("localhost:8001", "http://localhost:8001"),
            ("http://[::1]:8001/", "http://[::1]:8001"),
        ] {
            assert_eq!(Admin::at(given).unwrap().address, used);
        }
        for scheme in ["ftp", "unix"] {
            let Err(refused) = Admin::at(&format!("{scheme}://localhost:8001")) else {
                panic!("{scheme} is taken");
            };
            assert!(refused.to_string().contains("http:// or https://"));
        }
    }

    #[test]
    fn an_unreachable_gateway_is_reported_with_its_address() {
        // The listener is dropped, so nothing listens on this port any more.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let admin = Admin::at(&address.to_string()).unwrap();
        let message = admin.find("/balancers/x").unwrap_err().to_string();
        assert!(message.contains(&address.to_string()), "{message}");
    }
}
