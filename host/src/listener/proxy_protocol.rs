//! The PROXY protocol: a header at the start of a connection, in which a proxy says whose
//! connection it passes on. Source: HAProxy, "The PROXY protocol, versions 1 & 2".

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::transport::Socket;

/// Longest header of version 1, in bytes.
const LONGEST_V1: usize = 107;

/// Longest header of version 2 that is accepted, in bytes. With the certificate of a client, a
/// header has some 2,000. Source: nginx.
const LONGEST_V2: usize = 4096;

/// The longest part of a header that is kept: that of version 2 before its extensions (TLVs), with
/// the longest addresses, those of Unix sockets.
const KEPT: usize = V2_FIXED + 216;

/// The start of a header of version 1.
const V1: &[u8] = b"PROXY ";

/// The start of a header of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Length of the part of a header of version 2 that says how long it is, in bytes.
const V2_FIXED: usize = 16;

/// Reads the headers on listeners that have the flag `proxy_protocol`.
#[derive(Debug, Clone)]
pub(crate) struct ProxyProtocol {
    /// Longest time for a header.
    patience: Duration,
    /// Connections without a header so far.
    refused: Arc<AtomicU64>,
}

/// The connection begins with something else than a header, or with none in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoHeader;

impl ProxyProtocol {
    /// A header has to be received within `patience`. Connections without one are counted in
    /// `refused`.
    pub(crate) fn new(patience: Duration, refused: Arc<AtomicU64>) -> Self {
        Self { patience, refused }
    }

    /// Takes the header from the start of the connection, and no byte more. Returns the address of
    /// the client, if the header has one.
    ///
    /// # Errors
    /// There is no header. There is no line in the log for each such connection, because clients
    /// decide their number.
    pub(crate) async fn read(&self, socket: &mut Socket) -> Result<Option<SocketAddr>, NoHeader> {
        let read = tokio::time::timeout(self.patience, read(socket)).await;
        let client = read.ok().and_then(Result::ok).ok_or(NoHeader);
        if client.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        client
    }
}

async fn read(socket: &mut Socket) -> io::Result<Option<SocketAddr>> {
    let mut header = [0; KEPT];
    let mut taken = 0;
    let end = loop {
        let seen = socket.peek(&mut header[taken..]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = length(&header[..taken + seen]).map_err(|NoHeader| invalid())?;
        // Of what follows the header nothing is taken: it may be a handshake.
        let until = end.unwrap_or(usize::MAX).min(taken + seen);
        socket.read_exact(&mut header[taken..until]).await?;
        taken = until;
        if let Some(end) = end {
            break end;
        }
    };
    let kept = end.min(KEPT);
    if taken < kept {
        socket.read_exact(&mut header[taken..kept]).await?;
    }
    let mut left = end - kept;
    while left > 0 {
        let mut skipped = [0; KEPT];
        let part = left.min(KEPT);
        socket.read_exact(&mut skipped[..part]).await?;
        left -= part;
    }
    client(&header[..kept]).map_err(|NoHeader| invalid())
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// The length of the header that a connection begins with, from its first bytes; `None` if they do
/// not tell it yet. Those of version 2 tell it before its end.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, NoHeader> {
    if starts_as(bytes, V1) {
        let line = &bytes[..bytes.len().min(LONGEST_V1)];
        return match line.iter().position(|byte| *byte == b'\n') {
            Some(end) => Ok(Some(end + 1)),
            None if bytes.len() < LONGEST_V1 => Ok(None),
            None => Err(NoHeader),
        };
    }
    if !starts_as(bytes, V2) {
        return Err(NoHeader);
    }
    let Some(rest) = bytes.get(V2_FIXED - 2..V2_FIXED) else {
        return Ok(None);
    };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    match length {
        ..=LONGEST_V2 => Ok(Some(length)),
        _ => Err(NoHeader),
    }
}

/// Whether bytes start as a header does, as far as they go.
fn starts_as(bytes: &[u8], start: &[u8]) -> bool {
    let compared = bytes.len().min(start.len());
    bytes[..compared] == start[..compared]
}

/// The client's address in a header, of which the extensions may be missing.
pub(super) fn client(header: &[u8]) -> Result<Option<SocketAddr>, NoHeader> {
    match header.strip_prefix(V2) {
        Some(rest) => client_v2(rest),
        None => {
            let line = header.strip_prefix(V1);
            let line = line.and_then(|line| line.strip_suffix(b"\r\n"));
            let line = line.and_then(|line| std::str::from_utf8(line).ok());
            client_v1(line.ok_or(NoHeader)?)
        }
    }
}

/// The client's address in a line of version 1: `TCP4` or `TCP6`, the addresses of the client and
/// of the proxy, and their ports. After `UNKNOWN`, everything is ignored.
fn client_v1(line: &str) -> Result<Option<SocketAddr>, NoHeader> {
    let mut words = line.split(' ');
    let protocol = words.next().unwrap_or_default();
    if protocol == "UNKNOWN" {
        return Ok(None);
    }
    let mut word = || words.next().ok_or(NoHeader);
    let [client, proxy] = [word()?, word()?].map(|ip| match protocol {
        "TCP4" => ip.parse().map(IpAddr::V4).map_err(|_| NoHeader),
        "TCP6" => ip.parse().map(IpAddr::V6).map_err(|_| NoHeader),
        _ => Err(NoHeader),
    });
    let [client_port, proxy_port] = [word()?, word()?].map(port);
    if words.next().is_some() {
        return Err(NoHeader);
    }
    // Of no use, but a line in which they are wrong is malformed.
    proxy?;
    proxy_port?;
    Ok(Some(SocketAddr::new(client?, client_port?)))
}

fn port(text: &str) -> Result<u16, NoHeader> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.ok_or(NoHeader)
}

/// The client's address in a header of version 2, from behind its start. A connection of the proxy
/// itself, and one that is not of TCP, has none.
fn client_v2(rest: &[u8]) -> Result<Option<SocketAddr>, NoHeader> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;
    let [command, family, _, _, addresses @ ..] = rest else {
        return Err(NoHeader);
    };
    match (*command, *family) {
        (LOCAL, _) => Ok(None),
        (PROXY, TCP4) => match addresses {
            [a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                let port = u16::from_be_bytes([*high, *low]);
                Ok(Some((Ipv4Addr::new(*a, *b, *c, *d), port).into()))
            }
            _ => Err(NoHeader),
        },
        (PROXY, TCP6) => {
            let (client, rest) = addresses.split_first_chunk::<16>().ok_or(NoHeader)?;
            let (_, rest) = rest.split_first_chunk::<16>().ok_or(NoHeader)?;
            match rest {
                [high, low, _, _, ..] => {
                    let port = u16::from_be_bytes([*high, *low]);
                    Ok(Some((Ipv6Addr::from(*client), port).into()))
                }
                _ => Err(NoHeader),
            }
        }
        (PROXY, _) => Ok(None),
        _ => Err(NoHeader),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::super::accept::UNIX_PEER;
    use super::super::{ProxyHeader, ProxyVersion};
    use super::*;

    /// The client of a whole header.
    fn read_whole(header: &[u8]) -> Result<Option<SocketAddr>, NoHeader> {
        assert_eq!(length(header)?, Some(header.len()));
        client(header)
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, addresses].concat()
    }

    #[test]
    fn a_line_of_version_1_names_the_client() {
        for (line, client) in [
            ("TCP4 192.0.2.7 10.0.0.1 4711 443", Some("192.0.2.7:4711")),
            ("TCP6 2001:db8::7 ::1 4711 443", Some("[2001:db8::7]:4711")),
            ("TCP4 192.0.2.7 10.0.0.1 0 65535", Some("192.0.2.7:0")),
            ("UNKNOWN", None),
            ("UNKNOWN ffff::1 what ever", None),
        ] {
            let header = format!("PROXY {line}\r\n");
            let client = client.map(|client| client.parse().unwrap());
            assert_eq!(read_whole(header.as_bytes()), Ok(client), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_malformed_is_no_header() {
        for line in [
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443 1\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 65536\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +4711 443\r\n",
            "PROXY TCP4 192.0.2.7  10.0.0.1 4711 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\n",
            "PROXY TCP4 2001:db8::7 ::1 4711 443\r\n",
            "PROXY TCP6 192.0.2.7 10.0.0.1 4711 443\r\n",
            "PROXY TCP5 192.0.2.7 10.0.0.1 4711 443\r\n",
            "PROXY \r\n",
            "PROXY\r\n",
            "proxy TCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            let found = length(line.as_bytes()).and_then(|_| client(line.as_bytes()));
            assert_eq!(found, Err(NoHeader), "{line}");
        }
    }

    #[test]
    fn a_header_of_version_2_names_the_client() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187];
        let mut six = [0; 36];
        six[15] = 7;
        six[32..34].copy_from_slice(&[0x12, 0x67]);
        let with_more = [&four[..], &[4, 0, 1, 9]].concat();
        let client = |text: &str| Ok(Some(text.parse().unwrap()));
        for (header, expected) in [
            (v2(0x21, 0x11, &four), client("192.0.2.7:4711")),
            (v2(0x21, 0x11, &with_more), client("192.0.2.7:4711")),
            (v2(0x21, 0x21, &six), client("[::7]:4711")),
            // Of the proxy itself, of UDP, of a Unix socket, and of nothing that is known.
            (v2(0x20, 0x11, &four), Ok(None)),
            (v2(0x20, 0, &[]), Ok(None)),
            (v2(0x21, 0x12, &four), Ok(None)),
            (v2(0x21, 0x31, &[0; 216]), Ok(None)),
            (v2(0x21, 0, &[]), Ok(None)),
            (v2(0x21, 0x11, &four[..11]), Err(NoHeader)),
            (v2(0x21, 0x21, &six[..35]), Err(NoHeader)),
            (v2(0x11, 0x11, &four), Err(NoHeader)),
            (v2(0x22, 0x11, &four), Err(NoHeader)),
        ] {
            assert_eq!(read_whole(&header), expected, "{header:?}");
        }
    }

    #[test]
    fn headers_have_a_greatest_length() {
        let line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_V1 - 16));
        assert_eq!(read_whole(line.as_bytes()), Ok(None));
        let longer = line.replace('\r', "x\r");
        assert_eq!(length(longer.as_bytes()), Err(NoHeader));
        assert_eq!(read_whole(&v2(0x20, 0, &[0; 4080])), Ok(None));
        assert_eq!(length(&v2(0x20, 0, &[0; 4081])), Err(NoHeader));
    }

    /// A header of version 2 that is followed by so many bytes of extensions.
    fn with_extension(length: usize) -> Vec<u8> {
        let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187];
        v2(0x21, 0x11, &[&addresses[..], &vec![0x20; length]].concat())
    }

    #[tokio::test]
    async fn nothing_is_taken_but_the_header_however_it_arrives() {
        let headers = [
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(),
            v2(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187]),
            // With an extension, which may end where the kept part does, or behind it.
            with_extension(KEPT - V2_FIXED - 12),
            with_extension(KEPT - V2_FIXED - 11),
            with_extension(3000),
            with_extension(LONGEST_V2 - V2_FIXED - 12),
        ];
        for header in headers {
            for step in [1, 5, 7, 1000] {
                let (mut proxy, gateway) = UnixStream::pair().unwrap();
                let sent = [&header, &b"\nPROXY rest"[..]].concat();
                let send = async {
                    for part in sent.chunks(step) {
                        proxy.write_all(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    drop(proxy);
                };
                let mut socket = Socket::Unix(gateway);
                let (client, ()) = tokio::join!(read(&mut socket), send);
                assert_eq!(client.unwrap(), "192.0.2.7:4711".parse().ok());
                let mut rest = Vec::new();
                socket.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"\nPROXY rest");
            }
        }
    }

    proptest! {
        #[test]
        fn a_header_that_is_written_is_read(
            source in any::<(std::net::IpAddr, u16)>(),
            destination in any::<(std::net::IpAddr, u16)>(),
            is_v1: bool,
        ) {
            let version = if is_v1 { ProxyVersion::V1 } else { ProxyVersion::V2 };
            let (source, destination) = (SocketAddr::from(source), SocketAddr::from(destination));
            let header = ProxyHeader::new(version, source, destination).bytes();
            let found = read_whole(&header).unwrap().unwrap();
            prop_assert_eq!(found.ip().to_canonical(), source.ip().to_canonical());
            prop_assert_eq!(found.port(), source.port());
        }
    }

    #[test]
    fn a_header_for_the_client_of_a_unix_socket_names_no_address() {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let header = ProxyHeader::new(version, UNIX_PEER, ([192, 0, 2, 1], 80).into());
            assert_eq!(read_whole(&header.bytes()).unwrap(), None);
        }
    }

    #[tokio::test]
    async fn connections_without_a_header_are_counted() {
        let refused = Arc::<AtomicU64>::default();
        let reader = ProxyProtocol::new(Duration::from_millis(50), Arc::clone(&refused));
        for (number, sent) in [&b"GET / HTTP/1.1\r\n"[..], b"PROXY", b""]
            .into_iter()
            .enumerate()
        {
            let (mut proxy, gateway) = UnixStream::pair().unwrap();
            proxy.write_all(sent).await.unwrap();
            // The first one is refused at once, the second one when it ends, the last one in time.
            if number == 1 {
                proxy.shutdown().await.unwrap();
            }
            let read = reader.read(&mut Socket::Unix(gateway)).await;
            assert_eq!(read, Err(NoHeader));
            assert_eq!(refused.load(Ordering::Relaxed), number as u64 + 1);
        }
    }

    proptest! {
        #[test]
        fn what_is_decided_does_not_depend_on_what_follows(
            start in 0..4_usize,
            rest in proptest::collection::vec(any::<u8>(), 0..600),
            cut in 0..700_usize,
        ) {
            let start = [&b""[..], V1, V2, &[V2, &[0x21, 0x11, 0, 12]].concat()][start].to_vec();
            let bytes = [start, rest].concat();
            match length(&bytes[..cut.min(bytes.len())]) {
                Ok(None) => {}
                decided => prop_assert_eq!(length(&bytes), decided),
            }
            if let Ok(Some(length)) = length(&bytes) {
                prop_assert!(length <= LONGEST_V2);
                let _ = client(&bytes[..length.min(bytes.len()).min(KEPT)]);
            }
        }

        #[test]
        fn the_address_that_is_written_is_read(ip: IpAddr, port: u16) {
            let proxy = match ip {
                IpAddr::V4(_) => IpAddr::from([10, 0, 0, 1]),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            let client = Ok(Some(SocketAddr::new(ip, port)));
            let family = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {family} {ip} {proxy} {port} 443\r\n");
            prop_assert_eq!(read_whole(line.as_bytes()), client);
            let octets = |ip| match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let ports = [port.to_be_bytes(), [1, 187]].concat();
            let addresses = [octets(ip), octets(proxy), ports].concat();
            let family = if ip.is_ipv4() { 0x11 } else { 0x21 };
            prop_assert_eq!(read_whole(&v2(0x21, family, &addresses)), client);
        }
    }
}
