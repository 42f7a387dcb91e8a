//! The server name that a client asks for in its TLS handshake, found without taking a byte of it.

use std::io;

use rustls::server::Acceptor;

use super::transport::Socket;

/// Most bytes that are looked at. A first message with a key share for after quantum computers has
/// less than 2 KiB.
const MAX_HELLO: usize = 32 << 10;

/// Number of bytes that are looked at first.
const FIRST: usize = 2 << 10;

/// Waits for the first message of a handshake, and returns the server name in it, in lower case;
/// none if it has none. All bytes are left to be read.
///
/// # Errors
/// The client has disconnected, or has sent something else ([`io::ErrorKind::InvalidData`]).
pub(super) async fn server_name(socket: &Socket) -> io::Result<Option<Box<str>>> {
    let mut bytes = vec![0; FIRST];
    let mut seen = socket.peek(&mut bytes).await?;
    loop {
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse(&bytes[..seen]) {
            Hello::Whole(name) => return Ok(name),
            Hello::Start if seen < MAX_HELLO => {}
            Hello::Start | Hello::Invalid => return Err(io::ErrorKind::InvalidData.into()),
        }
        if seen == bytes.len() {
            bytes.resize((seen * 2).min(MAX_HELLO), 0);
        }
        seen = socket.peek_beyond(seen, &mut bytes).await?;
    }
}

/// What bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// The start of a first message.
    Start,
    /// A whole one, with this server name.
    Whole(Option<Box<str>>),
    /// No such message.
    Invalid,
}

pub(super) fn parse(mut bytes: &[u8]) -> Hello {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        match acceptor.read_tls(&mut bytes) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Hello::Invalid,
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let name = hello.server_name().map(|name| name.to_ascii_lowercase());
                return Hello::Whole(name.map(Into::into));
            }
            Err(_) => return Hello::Invalid,
        }
    }
    Hello::Start
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// The first message of a client that asks for `name`.
    fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_name_is_found_once_the_message_is_whole() {
        let bytes = hello("A.Example");
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Hello::Start, "{length}");
        }
        assert_eq!(parse(&bytes), Hello::Whole(Some("a.example".into())));
        let more = [&bytes[..], b"and more"].concat();
        assert_eq!(parse(&more), Hello::Whole(Some("a.example".into())));
    }

    #[test]
    fn a_client_of_an_address_asks_for_no_name_and_other_bytes_are_invalid() {
        assert_eq!(parse(&hello("10.0.0.1")), Hello::Whole(None));
        assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n"), Hello::Invalid);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
