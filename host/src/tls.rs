//! TLS towards endpoints, for requests and for probes, and towards other servers; and what TLS
//! towards clients needs: `server.rs`, `server_names.rs`, `generated.rs`, `negotiated.rs`.

mod client;
mod client_certificate;
pub(crate) mod generated;
mod negotiated;
mod pem;
mod server;
mod server_names;
mod sessions;
mod trust;
mod verify;
mod verify_client;

use std::net::{IpAddr, Ipv4Addr};

use rustls::pki_types::ServerName;

use crate::authority::Host;
pub(crate) use client::{TlsClient, TlsOptions};
pub(crate) use client_certificate::ClientCertificate;
pub(crate) use negotiated::NegotiatedTls;
pub(crate) use pem::{CertificateFacts, ocsp_response, public_half};
pub(crate) use server::{
    ListenerCertificate, PemPair, ServerCertificate, TlsParameters, cipher_suite, version,
};
pub(crate) use server_names::{NamedCertificate, ServerNames};
pub(crate) use sessions::SessionSettings;
pub(crate) use trust::{Authorities, Trust};

/// The protocols that are named in a handshake, the preferred one first (ALPN, RFC 7301).
pub(crate) type Protocols = &'static [&'static [u8]];

/// HTTP/1.1, as ALPN names it in a handshake (RFC 7301).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// HTTP/2, as ALPN names it (RFC 9113, 3.1).
pub(crate) const H2: &[u8] = b"h2";

/// The protocol of the challenge TLS-ALPN-01, as ALPN names it (RFC 8737, 6.2).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// Most certificates between that of an endpoint and that of an authority, unless configured.
/// Source: nginx, `proxy_ssl_verify_depth`; Kong, `lua_ssl_verify_depth`.
pub(crate) const VERIFY_DEPTH: u32 = 1;

/// No protocol is named in the handshake, for servers of other protocols than HTTP.
pub(crate) const NO_PROTOCOL: Protocols = &[];

/// The server name for TLS of a setting: a name or an address. An IPv6 address may have brackets.
pub(crate) fn server_name(text: &str) -> Option<ServerName<'static>> {
    server_name_of(&Host::of_setting(text)?)
}

/// The server name for TLS of an address. It is not sent, but verified (RFC 6066, 3). Without an
/// address, the server is on this machine.
pub(crate) fn server_name_of_address(address: Option<IpAddr>) -> ServerName<'static> {
    let address = address.unwrap_or(Ipv4Addr::LOCALHOST.into());
    ServerName::IpAddress(address.into())
}

/// The server name for TLS of a host, without the dot at the end of a name (RFC 6066, 3).
pub(crate) fn server_name_of(host: &Host<'_>) -> Option<ServerName<'static>> {
    ServerName::try_from(host.bare().to_owned()).ok()
}
