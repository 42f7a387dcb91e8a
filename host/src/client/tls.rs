//! Connections of commands to an Admin API over TLS.

use std::fmt;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

use crate::tls::{Authorities, HTTP_1_1, Trust, server_name};

/// Makes the connections to addresses that begin with `https`.
pub(super) struct TlsConnector(Arc<ClientConfig>);

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl TlsConnector {
    /// Accepts certificates of the authorities in a file in PEM, or a certificate that is itself in
    /// it; without a file, those of the authorities that the system trusts.
    ///
    /// # Errors
    /// The file cannot be used: a sentence.
    pub(super) fn trusting(file: Option<&Path>) -> anyhow::Result<Self> {
        let trust = match file {
            None => Trust::System,
            Some(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the authorities in {shown}"))?;
                let authorities = Authorities::parse(&[text]);
                let authorities = authorities.map_err(|why| anyhow!("{shown}: {why}"))?;
                Trust::Only(Arc::new(authorities))
            }
        };
        let connector = trust.connector(&[HTTP_1_1])?;
        Ok(Self(Arc::clone(connector.config())))
    }
}

impl<Plain: Transport> Connector<Plain> for TlsConnector {
    type Out = Either<Plain, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<Plain>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(plain) = chained else {
            return Ok(None);
        };
        if !details.needs_tls() {
            return Ok(Some(Either::A(plain)));
        }
        let name = details.uri.host().and_then(server_name);
        let name = name.ok_or(Error::Tls("the host is neither a name nor an address"))?;
        let connection = ClientConnection::new(Arc::clone(&self.0), name);
        let connection = connection.map_err(|_| Error::Tls("no connection can be made"))?;
        let transport: Box<dyn Transport> = Box::new(plain);
        let mut below = TransportAdapter::new(transport, Arc::clone(&details.current_time));
        below.set_timeout(details.timeout);
        let mut stream = StreamOwned::new(connection, below);
        // With the handshake done here, a certificate that is not accepted is an error of the
        // connection and not of the request.
        stream.conn.complete_io(&mut stream.sock)?;
        let (input, output) = (
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(Either::B(TlsTransport {
            buffers: LazyBuffers::new(input, output),
            stream,
        })))
    }
}

/// A connection over TLS.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        let output = self.buffers.output();
        Ok(self.stream.write_all(&output[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
