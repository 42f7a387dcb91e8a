//! Connections of streams to endpoints.

use std::net::SocketAddr;

use rustls::pki_types::ServerName;

use crate::connect::{self, ConnectError, EndpointStream, Handshake};
use crate::connections::ConnectionLimits;
use crate::endpoint::{ConnectionPermit, Endpoint, InFlight};
use crate::listener::ProxyHeader;
use crate::snapshot::Service;
use crate::tls::{self, NO_PROTOCOL};

/// A permit for a connection to an endpoint. Without a limit for the endpoint, it only waits if no
/// file may be opened. `limits` are those of the process, unless the stream has a permit of its own
/// for the file.
pub(super) async fn permit(
    service: &Service,
    limits: Option<&ConnectionLimits>,
    in_flight: &InFlight,
) -> Result<ConnectionPermit, ConnectError> {
    let endpoint = in_flight.endpoint();
    let limit = service.upstream.max_connections(endpoint);
    let permits = async {
        // No stream has an idle connection that it could close.
        let mut permit = endpoint.permit(limit, || {}).await;
        if let Some(limits) = limits {
            permit.keep(limits.wait_for_endpoint_permit().await?);
        }
        Some(permit)
    };
    let permit = tokio::time::timeout(service.connect_timeout, permits).await;
    permit.ok().flatten().ok_or(ConnectError::Full)
}

/// A connection to an endpoint that is wanted.
pub(super) struct Wanted<'a> {
    pub(super) service: &'a Service,
    /// The client.
    pub(super) source: SocketAddr,
    /// The address that it is connected to.
    pub(super) destination: SocketAddr,
    /// The server name that the client has asked for, if it is sent on.
    pub(super) preserved: Option<&'a str>,
    /// Whether TLS is spoken if the service asks for it.
    pub(super) may_use_tls: bool,
}

/// Connects to an endpoint.
pub(super) async fn connect(
    wanted: &Wanted<'_>,
    in_flight: &InFlight,
) -> Result<EndpointStream, ConnectError> {
    let &Wanted {
        service,
        source,
        destination,
        preserved,
        may_use_tls,
    } = wanted;
    let endpoint = in_flight.endpoint();
    let proxied = service.upstream.policy().proxy_protocol();
    let proxied = proxied.map(|version| ProxyHeader::new(version, source, destination));
    let tls = service.tls.as_ref().filter(|_| may_use_tls);
    let tls = tls.map(|client| Handshake {
        client,
        name: server_name(service, endpoint, preserved),
        protocols: NO_PROTOCOL,
    });
    connect::connect(&endpoint.address, proxied.as_ref(), tls).await
}

/// The name that an endpoint has to prove.
fn server_name(
    service: &Service,
    endpoint: &Endpoint,
    preserved: Option<&str>,
) -> ServerName<'static> {
    if let Some(name) = service.upstream.policy().server_name() {
        return name.clone();
    }
    let header = service.upstream.host_header.as_ref();
    let name = match (preserved, header) {
        (Some(name), _) => tls::server_name(name),
        (None, Some(header)) => tls::server_name_of(&header.host),
        (None, None) => tls::server_name_of(&endpoint.host),
    };
    name.unwrap_or_else(|| tls::server_name_of_address(endpoint.address.ip()))
}
