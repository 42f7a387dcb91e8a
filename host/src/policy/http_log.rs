//! `http-log`: sends the records of requests to an HTTP server. Source: Kong 3.9, `http-log`.
//!
//! Beyond Kong, the certificate of a server is verified with the authorities that the system
//! trusts: records, and the credentials in the URL, are worth it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::logs::Logs;
use super::logs::connection::millis;
use super::logs::document::Documents;
use super::logs::http_server::{HttpServer, PostTarget, Timeouts};
use super::logs::queue::{Entry, Queue, Sink};
use crate::dns::Resolver;
use crate::entity::plugin::Plugin;
use crate::entity::plugin::http_log::Config;

/// Whether records can be sent with these settings.
pub(super) fn check(config: &Config) -> Result<(), String> {
    target(config).map(drop)
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
    let target = target(config)?;
    let timeouts = Timeouts {
        connect: millis(config.timeout),
        answer: millis(config.timeout),
        keepalive: millis(config.keepalive),
    };
    let limits = config.queue().into();
    Ok(logs.queue(plugin, limits, |documents| {
        Arc::new(HttpSink {
            documents: Arc::clone(documents),
            server: HttpServer::new(target, timeouts, resolver),
            is_single: config.queue().max_batch_size == 1,
        })
    }))
}

fn target(config: &Config) -> Result<PostTarget, String> {
    let (url, method) = (&config.http_endpoint, &config.method);
    let headers = config.headers.iter().flatten();
    PostTarget::of("http_endpoint", url, method, &config.content_type, headers)
}

#[derive(Debug)]
struct HttpSink {
    documents: Arc<Documents>,
    server: HttpServer,
    /// Whether each record is sent for itself.
    is_single: bool,
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
                .server
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
mod tests {
    use super::*;

    #[test]
    fn records_are_sent_in_an_array_unless_each_is_sent_for_itself() {
        assert_eq!(payload(&["{}"], true), "{}");
        assert_eq!(payload(&["{}"], false), "[{}]");
        assert_eq!(payload(&["{\"a\":1}", "{}"], false), "[{\"a\":1},{}]");
    }
}
