//! `http-log`: sends the records of requests to an HTTP server. Source: Kong 3.9, `http-log`.
//!
//! Beyond Kong, the certificate of a server is verified with the authorities that the system trusts:
//! records, and the credentials in the URL, are worth it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use url::Url;

use super::logs::Logs;
use super::logs::connection::{Server, failed, millis, within};
use super::logs::document::Documents;
use super::logs::queue::{Entry, Queue, Sink};
use crate::dns::Resolver;
use crate::entity::plugin::Plugin;
use crate::entity::plugin::http_log::Config;
use crate::tls::{HTTP_1_1, Trust};

/// Most bytes of a response that are read, so that the connection can serve another request.
const MOST_READ: usize = 64 * 1024;

/// Whether records can be sent with these settings.
pub(super) fn check(config: &Config) -> Result<(), String> {
    Target::of(config).map(drop)
}

/// Sends the records of requests.
///
/// # Errors
/// What is wrong with the settings.
pub(super) fn new(
    config: &Config,
    plugin: &Plugin,
    logs: &Logs,
    resolver: &Arc<Resolver>,
) -> Result<Arc<Queue>, String> {
    let target = Target::of(config)?;
    let server = target.server(resolver);
    let limits = config.queue().into();
    Ok(logs.queue(plugin, limits, |documents| {
        Arc::new(HttpSink {
            documents: Arc::clone(documents),
            target,
            server,
            timeout: millis(config.timeout),
            keepalive: millis(config.keepalive),
            is_single: config.queue().max_batch_size == 1,
            kept: Mutex::default(),
        })
    }))
}

/// Where records are sent, and with which head.
#[derive(Debug)]
struct Target {
    host: String,
    port: u16,
    is_encrypted: bool,
    method: Method,
    /// Path and query.
    path: String,
    headers: HeaderMap,
}

impl Target {
    fn of(config: &Config) -> Result<Self, String> {
        // Errors leave the URL out, because it may have credentials.
        let url = Url::parse(&config.http_endpoint);
        let url = url.map_err(|error| format!("http_endpoint: {error}"))?;
        let is_encrypted = match url.scheme() {
            "http" => false,
            "https" => true,
            scheme => {
                return Err(format!(
                    "http_endpoint: the scheme {scheme} is not supported"
                ));
            }
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let mut headers = HeaderMap::new();
        let invalid = |name: &str| format!("the header {name} is not valid");
        for (name, value) in config.headers.iter().flatten() {
            let value = HeaderValue::from_str(value).map_err(|_| invalid(name))?;
            let name = HeaderName::try_from(name).map_err(|_| invalid(name))?;
            headers.append(name, value);
        }
        let mut set = |name: HeaderName, value: &str| {
            let value = HeaderValue::from_str(value).map_err(|_| invalid(name.as_str()))?;
            headers.insert(name, value);
            Ok::<_, String>(())
        };
        set(
            HOST,
            &match url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.clone(),
            },
        )?;
        set(CONTENT_TYPE, &config.content_type)?;
        if !url.username().is_empty() || url.password().is_some() {
            let mut credentials: Vec<u8> = percent_decode_str(url.username()).collect();
            credentials.push(b':');
            credentials.extend(percent_decode_str(url.password().unwrap_or_default()));
            let credentials = BASE64_STANDARD.encode(credentials);
            set(AUTHORIZATION, &format!("Basic {credentials}"))?;
        }
        let method = Method::from_bytes(config.method.as_bytes());
        Ok(Self {
            host,
            port,
            is_encrypted,
            method: method.map_err(|error| error.to_string())?,
            path: match url.query() {
                Some(query) => format!("{}?{query}", url.path()),
                None => url.path().to_owned(),
            },
            headers,
        })
    }

    fn server(&self, resolver: &Arc<Resolver>) -> Server {
        Server {
            host: self.host.clone(),
            port: self.port,
            resolver: Arc::clone(resolver),
        }
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        let request = Request::builder().method(&self.method).uri(&self.path);
        let request = request.body(Full::new(body));
        let mut request = request.map_err(|error| error.to_string())?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}

#[derive(Debug)]
struct HttpSink {
    documents: Arc<Documents>,
    target: Target,
    server: Server,
    /// Limits to connect, and to be answered.
    timeout: Duration,
    keepalive: Duration,
    /// Whether each record is sent for itself.
    is_single: bool,
    /// The connection after the last request, and the time of that.
    kept: Mutex<Option<(SendRequest<Full<Bytes>>, Instant)>>,
}

impl HttpSink {
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let server = &self.server;
        let stream = within(self.timeout, async {
            match self.target.is_encrypted {
                true => server.connect_tls(None, &Trust::System, &[HTTP_1_1]).await,
                false => Ok(Box::new(server.connect().await?) as _),
            }
        });
        let stream = stream.await.map_err(failed(server))?;
        let hands = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = hands.map_err(|error| format!("{server}: {error}"))?;
        // Errors of the connection are those of its requests.
        tokio::spawn(connection.map(drop));
        Ok(sender)
    }

    /// Sends a body and returns the response, whose body is still to be read.
    async fn exchange(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let server = &self.server;
        let request = self.target.request(body)?;
        let exchange = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let answered = tokio::time::timeout(self.timeout, exchange).await;
        let answered = answered.map_err(|_| format!("{server}: no response in time"))?;
        answered.map_err(|error| format!("{server}: {error}"))
    }

    async fn post(&self, body: Bytes) -> Result<StatusCode, String> {
        let kept = self.kept.lock().take();
        let kept = kept.filter(|(_, since)| since.elapsed() < self.keepalive);
        if let Some((mut sender, _)) = kept {
            // The server may close an idle connection at any time. Then another one is used.
            match self.exchange(&mut sender, body.clone()).await {
                Ok(response) => return Ok(self.finish(sender, response).await),
                Err(_) if sender.is_closed() => {}
                Err(error) => return Err(error),
            }
        }
        let mut sender = self.connect().await?;
        let response = self.exchange(&mut sender, body).await?;
        Ok(self.finish(sender, response).await)
    }

    /// Reads the body of a response and keeps the connection if that comes to its end. Whether the
    /// records were accepted, the head alone has said: a body that is too long or too slow costs
    /// no more than the connection.
    async fn finish(
        &self,
        sender: SendRequest<Full<Bytes>>,
        response: Response<Incoming>,
    ) -> StatusCode {
        let (head, body) = response.into_parts();
        let rest = Limited::new(body, MOST_READ).collect();
        if let Ok(Ok(_)) = tokio::time::timeout(self.timeout, rest).await {
            *self.kept.lock() = Some((sender, Instant::now()));
        }
        head.status
    }
}

/// The records as one document: an array, unless each is sent for itself. Source: Kong.
fn payload(texts: &[impl AsRef<str>], is_single: bool) -> String {
    match texts {
        [text] if is_single => text.as_ref().to_owned(),
        texts => {
            let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
            format!("[{}]", texts.join(","))
        }
    }
}

impl Sink for HttpSink {
    fn send<'a>(&'a self, batch: &'a [Entry]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let texts: Vec<_> = batch
                .iter()
                .map(|entry| entry.text(&self.documents))
                .collect();
            match self
                .post(payload(&texts, self.is_single).into())
                .await?
                .as_u16()
            {
                ..300 => Ok(()),
                status => Err(format!("{}: it has answered {status}", self.server)),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::io::{Read, Write};

    use serde_json::json;

    use super::*;

    fn config(endpoint: &str) -> Config {
        let config = json!({
            "http_endpoint": endpoint,
            "method": "PUT",
            "content_type": "application/json; charset=utf-8",
            "timeout": 10_000,
            "keepalive": 60_000,
            "headers": {"X-One": "1"},
            "queue": {
                "max_batch_size": 1, "max_coalescing_delay": 1, "max_entries": 10_000,
                "max_bytes": null, "max_retry_time": 60, "initial_retry_delay": 0.01,
                "max_retry_delay": 60, "concurrency_limit": 1,
            },
        });
        serde_json::from_value(config).unwrap()
    }

    fn target(endpoint: &str) -> Result<Target, String> {
        Target::of(&config(endpoint))
    }

    #[test]
    fn errors_do_not_show_the_credentials_of_the_url() {
        for endpoint in [
            "ftp://user:secret@logs.test",
            "http://user:secret@logs.test:x",
        ] {
            let error = target(endpoint).unwrap_err();
            assert!(error.starts_with("http_endpoint: "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    /// Sends a batch to a server that answers with this text. Returns the outcome, and whether the
    /// connection is kept.
    fn post_to(answer: String) -> (Result<StatusCode, String>, bool) {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = [0; 4096];
            let mut read = Vec::new();
            while !read.ends_with(b"{}") {
                let count = stream.read(&mut request).unwrap();
                assert_ne!(count, 0);
                read.extend_from_slice(&request[..count]);
            }
            // The gateway may close the connection before it has read all.
            let _ = stream.write_all(answer.as_bytes());
            // The connection stays open until the gateway closes it.
            let _ = stream.read(&mut request);
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn crate::store::Store> = Arc::new(crate::store::open_test(folder.path()));
        let outcome = runtime.block_on(async {
            let target = target(&format!("http://{address}")).unwrap();
            let settings = crate::config::Config::load(crate::config::Written::default());
            let resolver = Arc::new(Resolver::new(&settings.unwrap().dns));
            let sink = HttpSink {
                documents: Arc::new(Documents::new(store)),
                server: target.server(&resolver),
                target,
                timeout: Duration::from_secs(1),
                keepalive: Duration::from_secs(60),
                is_single: true,
                kept: Mutex::default(),
            };
            let status = sink.post(Bytes::from("{}")).await;
            (status, sink.kept.lock().is_some())
        });
        drop(runtime);
        serving.join().unwrap();
        outcome
    }

    #[test]
    fn the_head_says_whether_records_are_accepted_and_the_body_whether_the_connection_is_kept() {
        let answer = |length: usize, body: &str| {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
        };
        let too_long = "x".repeat(2 * MOST_READ);
        for (answer, is_kept) in [
            (answer(2, "ok"), true),
            (answer(too_long.len(), &too_long), false),
            // The rest never comes.
            (answer(10, "x"), false),
        ] {
            assert_eq!(post_to(answer), (Ok(StatusCode::OK), is_kept));
        }
    }

    #[test]
    fn the_url_says_where_and_with_which_credentials() {
        let target = target("http://us%40er:pass:word@logs.test:8080/in?a=b").unwrap();
        assert_eq!((&*target.host, target.port), ("logs.test", 8080));
        assert_eq!((&*target.path, target.is_encrypted), ("/in?a=b", false));
        let request = target.request(Bytes::new()).unwrap();
        assert_eq!(request.method(), "PUT");
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!(header("host"), "logs.test:8080");
        assert_eq!(header("content-type"), "application/json; charset=utf-8");
        assert_eq!(header("x-one"), "1");
        let credentials = BASE64_STANDARD.encode("us@er:pass:word");
        assert_eq!(header("authorization"), format!("Basic {credentials}"));
    }

    #[test]
    fn the_port_and_the_path_have_defaults() {
        let plain = target("http://logs.test").unwrap();
        assert_eq!((plain.port, &*plain.path), (80, "/"));
        let encrypted = target("https://[::1]/x").unwrap();
        assert_eq!((encrypted.port, encrypted.is_encrypted), (443, true));
        assert!(encrypted.headers.get("authorization").is_none());
        assert!(target("ftp://logs.test").is_err());
    }

    #[test]
    fn records_are_sent_in_an_array_unless_each_is_sent_for_itself() {
        assert_eq!(payload(&["{}"], true), "{}");
        assert_eq!(payload(&["{}"], false), "[{}]");
        assert_eq!(payload(&["{\"a\":1}", "{}"], false), "[{\"a\":1},{}]");
    }
}
