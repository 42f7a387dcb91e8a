//! A client over TLS that accepts every certificate and tells which one it was shown.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};

use super::Issued;

/// What a client offers. Connections of one client share its sessions.
pub(crate) struct TlsClient(ClientConfig, Arc<AnyCertificate>);

/// A connection over TLS.
pub(crate) struct TlsConnection(StreamOwned<ClientConnection, TcpStream>);

impl TlsClient {
    /// With all versions and signatures.
    pub(crate) fn new() -> Self {
        Self::offering(rustls::ALL_VERSIONS, &[])
    }

    /// With these versions and these signatures; without any of these, all.
    pub(crate) fn offering(
        versions: &[&'static SupportedProtocolVersion],
        schemes: &[SignatureScheme],
    ) -> Self {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(AnyCertificate {
            schemes: schemes.to_vec(),
            ..AnyCertificate::default()
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        Self(config, verifier)
    }

    /// Offers these application protocols.
    pub(crate) fn protocols(mut self, protocols: &[&[u8]]) -> Self {
        self.0.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// Shows this certificate when it is asked for one.
    pub(crate) fn certificate(mut self, issued: &Issued) -> Self {
        let provider = Arc::new(ring::default_provider());
        let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
        self.0 = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(self.1.clone())
            .with_client_auth_cert(vec![issued.certificate.der().clone()], key)
            .unwrap();
        self
    }

    /// The OCSP response that came with the last certificate.
    pub(crate) fn staple(&self) -> Vec<u8> {
        self.1.staple.lock().unwrap().clone()
    }

    /// Connects, and asks for a server name; empty for none.
    pub(crate) fn connect(&self, to: SocketAddr, name: &str) -> io::Result<TlsConnection> {
        self.connect_after(to, b"", name)
    }

    /// The same, after these bytes in clear text.
    pub(crate) fn connect_after(
        &self,
        to: SocketAddr,
        first: &[u8],
        name: &str,
    ) -> io::Result<TlsConnection> {
        let mut config = self.0.clone();
        config.enable_sni = !name.is_empty();
        let name = if name.is_empty() { "none" } else { name };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(to)?;
        stream.write_all(first)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut stream = StreamOwned::new(client, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(TlsConnection(stream))
    }
}

impl TlsConnection {
    /// The certificate that the server has shown, in DER.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Whether the connection goes on with the session of an earlier one.
    pub(crate) fn is_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The application protocol that was agreed on.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.0.conn.alpn_protocol()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.write_all(bytes).unwrap();
        self.0.flush().unwrap();
        self
    }

    /// The same on a connection that the server may have closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
        self
    }

    /// Sends a request without a body, and returns the head and the body of the response, whose
    /// length its head tells.
    pub(crate) fn get(&mut self, path: &str, host: &str) -> (String, Vec<u8>) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.send(request.as_bytes());
        self.response()
    }

    /// Reads a response: its head, and a body of the length that the head tells.
    pub(crate) fn response(&mut self) -> (String, Vec<u8>) {
        let head = self.read_until("\r\n\r\n");
        let length = head.lines().find_map(|line| {
            let line = line.to_ascii_lowercase();
            line.strip_prefix("content-length: ")?.parse().ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).unwrap();
        (head, body)
    }

    /// Reads until the text ends with `mark`, or the connection ends.
    pub(crate) fn read_until(&mut self, mark: &str) -> String {
        let mut read = Vec::new();
        let mut byte = [0];
        while !read.ends_with(mark.as_bytes()) && self.0.read(&mut byte).unwrap_or(0) > 0 {
            read.push(byte[0]);
        }
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// Accepts every certificate.
#[derive(Debug, Default)]
pub(super) struct AnyCertificate {
    /// The signatures that are offered; if empty, all.
    schemes: Vec<SignatureScheme>,
    staple: Mutex<Vec<u8>>,
    /// Whether the server need not prove that it has the key. rustls does not read the key of a
    /// certificate with a critical extension that it does not know.
    skips_signatures: bool,
}

impl AnyCertificate {
    /// Accepts certificates with any extension, and any signature.
    pub(super) fn with_any_extension() -> Self {
        Self {
            skips_signatures: true,
            ..Self::default()
        }
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.staple.lock().unwrap() = staple.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.skips_signatures {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.skips_signatures {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        if self.schemes.is_empty() {
            let algorithms = ring::default_provider().signature_verification_algorithms;
            return algorithms.supported_schemes();
        }
        self.schemes.clone()
    }
}
