//! A client of etcd: keeps a connection to one of its members, and goes to another one when that
//! fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::journal::OpenError;
use super::endpoint::Connector;
use super::grpc::{Answers, CallError, Connection, Sending};
use super::messages;
use super::protobuf::Message;
use crate::config::{Etcd, EtcdEndpoint};
use crate::dns::Resolver;

/// Longest time for an answer. etcd takes milliseconds, and seconds while it has no leader.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// Pause between two tries of a read.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    connector: Connector,
    endpoints: Vec<EtcdEndpoint>,
    /// Name and password.
    user: Option<(String, String)>,
    link: Mutex<Link>,
}

#[derive(Debug, Default)]
struct Link {
    connection: Option<Connection>,
    token: Option<Arc<str>>,
    /// The endpoint that is tried next.
    next: usize,
}

impl Client {
    /// # Errors
    /// A certificate or a key of the settings cannot be used.
    pub(super) fn new(settings: &Etcd, resolver: &Arc<Resolver>) -> Result<Self, OpenError> {
        let user =
            (!settings.user.is_empty()).then(|| (settings.user.clone(), settings.password.clone()));
        // Gateways that are started together should not all use the same member.
        let next = fastrand::usize(..settings.endpoints.len().max(1));
        Ok(Self {
            connector: Connector::new(settings, resolver)?,
            endpoints: settings.endpoints.clone(),
            user,
            link: Mutex::new(Link {
                next,
                ..Link::default()
            }),
        })
    }

    /// Calls a method once.
    pub(super) async fn call(&self, method: &str, message: &[u8]) -> Result<Bytes, CallError> {
        let calling = async {
            let connection = self.connection().await?;
            match self.try_call(&connection, method, message).await {
                Err(error) if error.asks_for_token() && self.user.is_some() => {
                    self.forget_token();
                    self.try_call(&connection, method, message).await
                }
                outcome => outcome,
            }
        };
        let called = tokio::time::timeout(ANSWER_TIMEOUT, calling).await;
        let called = called.unwrap_or_else(|_| {
            let reason = format!("it has not answered for {} s", ANSWER_TIMEOUT.as_secs());
            Err(CallError::Broken(reason))
        });
        if called.as_ref().is_err_and(|error| !error.is_refusal()) {
            self.leave();
        }
        called
    }

    /// Calls a method that reads, and repeats it at other members until `deadline`.
    pub(super) async fn read(
        &self,
        method: &str,
        message: &Message,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        loop {
            match self.call(method, message.as_bytes()).await {
                Err(error) if !error.is_refusal() && Instant::now() + RETRY_PAUSE < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Opens a stream on a connection of its own, to the next member: so a member that does not
    /// answer one kind of request is not stayed with.
    pub(super) async fn stream(
        &self,
        method: &str,
        first: Message,
    ) -> Result<(Sending, Answers), CallError> {
        let opening = async {
            let connection = self.connect().await?;
            let token = self.token(&connection).await?;
            let opened = connection.stream(method, token.as_deref(), first.into_bytes());
            let opened = opened.await;
            if opened.as_ref().is_err_and(CallError::asks_for_token) {
                self.forget_token();
            }
            opened
        };
        let opened = tokio::time::timeout(ANSWER_TIMEOUT, opening).await;
        opened.unwrap_or_else(|_| {
            let reason = format!("it has not answered for {} s", ANSWER_TIMEOUT.as_secs());
            Err(CallError::Broken(reason))
        })
    }

    async fn try_call(
        &self,
        connection: &Connection,
        method: &str,
        message: &[u8],
    ) -> Result<Bytes, CallError> {
        let token = self.token(connection).await?;
        let call = connection.call(method, token.as_deref(), message.to_vec());
        call.await
    }

    /// The present connection, or a new one.
    async fn connection(&self) -> Result<Connection, CallError> {
        let present = self.link.lock().connection.clone();
        if let Some(connection) = present.filter(|connection| !connection.is_closed()) {
            return Ok(connection);
        }
        let connection = self.connect().await?;
        self.link.lock().connection = Some(connection.clone());
        Ok(connection)
    }

    /// Connects to the first member that can be connected.
    async fn connect(&self) -> Result<Connection, CallError> {
        let mut reason = "there are no endpoints".to_owned();
        for _ in 0..self.endpoints.len() {
            let endpoint = {
                let mut link = self.link.lock();
                link.next = (link.next + 1) % self.endpoints.len();
                self.endpoints.get(link.next)
            };
            let Some(endpoint) = endpoint else {
                continue;
            };
            match self.connector.connect(endpoint).await {
                Ok(connection) => return Ok(connection),
                Err(why) => reason = why,
            }
        }
        Err(CallError::Broken(reason))
    }

    /// Has the next request ask for a new token of the user.
    pub(super) fn forget_token(&self) {
        self.link.lock().token = None;
    }

    /// Lets the next call use another connection.
    pub(super) fn leave(&self) {
        self.link.lock().connection = None;
    }

    /// The token of the user, if there is one.
    async fn token(&self, connection: &Connection) -> Result<Option<Arc<str>>, CallError> {
        let Some((name, password)) = &self.user else {
            return Ok(None);
        };
        let present = self.link.lock().token.clone();
        if present.is_some() {
            return Ok(present);
        }
        let message = messages::authenticate(name, password).into_bytes();
        let answer = connection
            .call(messages::AUTHENTICATE, None, message)
            .await?;
        let token: Arc<str> = messages::token(&answer).map_err(malformed)?.into();
        self.link.lock().token = Some(Arc::clone(&token));
        Ok(Some(token))
    }
}

/// The error for an answer that cannot be read.
pub(super) fn malformed<E>(_: E) -> CallError {
    CallError::Broken("its answer cannot be read".into())
}
