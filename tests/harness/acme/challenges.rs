//! What a client has to show for a name, asked for at its gateway: HTTP-01 and TLS-ALPN-01.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ::ring::digest::{SHA256, digest};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::harness::tls_client::AnyCertificate;

/// HTTP-01 (RFC 8555, 8.3).
pub(super) fn by_http(to: SocketAddr, name: &str, path: &str, answer: &str) -> Result<(), String> {
    let mut stream = TcpStream::connect(to).map_err(|error| error.to_string())?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(|error| error.to_string())?;
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .map_err(|error| error.to_string())?;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    match head.starts_with("HTTP/1.1 200 ") && body.trim_end() == answer {
        true => Ok(()),
        false => Err(format!("unexpected answer: {response}")),
    }
}

/// TLS-ALPN-01 (RFC 8737, 3).
pub(super) fn by_tls(to: SocketAddr, name: &str, answer: &str) -> Result<(), String> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::with_any_extension()))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), server).unwrap();
    let mut stream = TcpStream::connect(to).map_err(|error| error.to_string())?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    while client.is_handshaking() {
        let handshake = client.complete_io(&mut stream);
        handshake.map_err(|error| error.to_string())?;
    }
    if client.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("the protocol was not agreed on".into());
    }
    let certificate = client.peer_certificates().unwrap()[0].to_vec();
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    if format!("{:?}", names.value.general_names) != format!("[DNSName({name:?})]") {
        return Err(format!("unexpected names: {names:?}"));
    }
    let extensions = certificate.extensions().iter();
    let mut extensions =
        extensions.filter(|found| found.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
    let found = extensions.next().ok_or("no extension")?;
    let expected = [&[4, 32], digest(&SHA256, answer.as_bytes()).as_ref()].concat();
    match found.critical && found.value == expected {
        true => Ok(()),
        false => Err("the extension is another one".into()),
    }
}
