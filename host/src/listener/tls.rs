//! TLS handshakes with clients.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;
use tokio_rustls::TlsAcceptor;

use super::server_name::server_name;
use super::transport::{Socket, Transport};
use crate::config;
use crate::tls::Protocols;

/// The first byte of a record with a handshake message (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Speaks TLS with the clients of listeners that have the flag `ssl`.
#[derive(Clone)]
pub(crate) struct TlsServer {
    acceptor: TlsAcceptor,
    figures: Arc<TlsFigures>,
    /// Longest time for a handshake.
    patience: Duration,
}

/// What a listener offers to its clients in a handshake, and asks of them.
pub(crate) struct TlsOffer {
    /// Says which certificate a client is shown.
    pub(crate) certificates: Arc<dyn ResolvesServerCert>,
    /// Verifies the certificates of clients, if they are asked for one.
    pub(crate) clients: Option<Arc<dyn ClientCertVerifier>>,
    /// The protocols that they may choose from (ALPN); if there is none, they may name any.
    pub(crate) protocols: Protocols,
}

/// A connection that is not served.
pub(crate) enum Refused {
    /// The client has sent something else than a handshake. It is probably a request in clear text.
    NotTls(Socket),
    /// The handshake has failed, and was counted.
    Failed,
}

/// Why handshakes fail, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client has sent a request in clear text.
    PlainHttp,
    /// The client took too long.
    Timeout,
    /// The client has disconnected.
    Disconnected,
    /// The client has refused, for example because it does not trust the certificate.
    RefusedByClient,
    /// The client offers no version, cipher suite, signature or application protocol in common.
    NothingInCommon,
    /// The certificate of the server name that the client asks for cannot be used.
    NoCertificate,
    /// The client has shown no certificate, or one that is not accepted.
    ClientCertificate,
    /// The client has sent messages that are not valid TLS.
    Invalid,
}

impl Failure {
    /// All reasons, with the names that metrics have for them.
    const ALL: [(Self, &str); 8] = [
        (Self::PlainHttp, "plain_http"),
        (Self::Timeout, "timeout"),
        (Self::Disconnected, "disconnected"),
        (Self::RefusedByClient, "refused_by_client"),
        (Self::NothingInCommon, "nothing_in_common"),
        (Self::NoCertificate, "no_certificate"),
        (Self::ClientCertificate, "client_certificate"),
        (Self::Invalid, "invalid"),
    ];

    fn of(error: &io::Error) -> Self {
        let error = error.get_ref();
        match error.and_then(|error| error.downcast_ref::<rustls::Error>()) {
            None => Self::Disconnected,
            Some(rustls::Error::AlertReceived(_)) => Self::RefusedByClient,
            Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => {
                Self::NothingInCommon
            }
            Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
                Self::ClientCertificate
            }
            // rustls has no error of its own for a resolver that finds no certificate.
            Some(rustls::Error::General(_)) => Self::NoCertificate,
            Some(_) => Self::Invalid,
        }
    }
}

/// What has happened in handshakes.
#[derive(Debug, Default)]
pub struct TlsFigures {
    full: AtomicU64,
    resumed: AtomicU64,
    without_name: AtomicU64,
    unknown_name: AtomicU64,
    failures: [AtomicU64; Failure::ALL.len()],
}

impl TlsFigures {
    /// The client has asked for no server name, so it is shown the listener's own certificate.
    pub(crate) fn note_without_name(&self) {
        self.without_name.fetch_add(1, Ordering::Relaxed);
    }

    /// There is no certificate for the server name that the client has asked for, so it is shown
    /// the listener's own.
    pub(crate) fn note_unknown_name(&self) {
        self.unknown_name.fetch_add(1, Ordering::Relaxed);
    }

    fn fail(&self, failure: Failure) {
        self.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Handshakes that succeeded, by their kind.
    pub(crate) fn handshakes(&self) -> [(&'static str, u64); 2] {
        [("full", &self.full), ("resumed", &self.resumed)]
            .map(|(kind, number)| (kind, number.load(Ordering::Relaxed)))
    }

    /// Handshakes with the listener's own certificate, by the reason.
    pub(crate) fn default_certificates(&self) -> [(&'static str, u64); 2] {
        [
            ("no_server_name", &self.without_name),
            ("unknown_server_name", &self.unknown_name),
        ]
        .map(|(reason, number)| (reason, number.load(Ordering::Relaxed)))
    }

    /// Handshakes that failed, by the reason.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let reasons = Failure::ALL.into_iter();
        reasons.map(|(failure, name)| {
            let number = &self.failures[failure as usize];
            (name, number.load(Ordering::Relaxed))
        })
    }
}

impl TlsServer {
    /// A handshake may take `patience`.
    ///
    /// # Errors
    /// The settings leave no cipher suite for a version.
    pub(crate) fn new(
        settings: &config::Tls,
        offer: TlsOffer,
        patience: Duration,
        figures: Arc<TlsFigures>,
    ) -> Result<Self, rustls::Error> {
        let TlsOffer {
            certificates,
            clients,
            protocols,
        } = offer;
        let config =
            settings
                .parameters()
                .server(certificates, protocols, clients, &settings.sessions)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(config),
            figures,
            patience,
        })
    }

    /// Makes the handshake. Until the client has sent something, nothing is allocated for it.
    pub(crate) async fn handshake(&self, socket: Socket) -> Result<Transport, Refused> {
        let handshake = async {
            let mut first = [0];
            match socket.peek(&mut first).await {
                Ok(1) => {}
                Ok(_) | Err(_) => return Err(self.fail(Failure::Disconnected)),
            }
            // As nginx: a first byte with this bit may be the start of SSL 2, and of no request.
            if first[0] != HANDSHAKE_RECORD && first[0] & 0x80 == 0 {
                self.figures.fail(Failure::PlainHttp);
                return Err(Refused::NotTls(socket));
            }
            let accepted = self.acceptor.accept(socket).await;
            accepted.map_err(|error| self.fail(Failure::of(&error)))
        };
        let stream = match tokio::time::timeout(self.patience, handshake).await {
            Ok(stream) => stream?,
            Err(_) => return Err(self.fail(Failure::Timeout)),
        };
        let kind = match stream.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Resumed) => &self.figures.resumed,
            _ => &self.figures.full,
        };
        kind.fetch_add(1, Ordering::Relaxed);
        Ok(Transport::Tls(Box::new(stream)))
    }

    /// Waits for the first message of a handshake, and returns the server name in it, in lower
    /// case. No byte of it is taken.
    ///
    /// # Errors
    /// There was no such message in time, which is counted.
    pub(crate) async fn server_name(&self, socket: &Socket) -> io::Result<Option<Box<str>>> {
        let name = tokio::time::timeout(self.patience, server_name(socket)).await;
        let name = name.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        name.inspect_err(|error| {
            self.figures.fail(match error.kind() {
                io::ErrorKind::TimedOut => Failure::Timeout,
                io::ErrorKind::InvalidData => Failure::Invalid,
                _ => Failure::Disconnected,
            });
        })
    }

    /// Counts a failure. There is no line in the log for each, because clients decide their number.
    fn fail(&self, failure: Failure) -> Refused {
        self.figures.fail(failure);
        Refused::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_counter_and_a_name_of_its_own() {
        let figures = TlsFigures::default();
        for (position, (failure, _)) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, position);
            figures.fail(failure);
        }
        let failures: Vec<_> = figures.failures().collect();
        assert!(failures.iter().all(|(_, number)| *number == 1));
        let names: std::collections::BTreeSet<_> = failures.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), Failure::ALL.len());
    }
}
