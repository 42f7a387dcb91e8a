//! A client and a server that send the bytes that a test gives them, valid HTTP or not.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A connection on which a test reads and writes bytes.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).unwrap())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        // A test that waits in vain fails, rather than hang.
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self(stream)
    }

    /// Sends bytes. A connection that the peer has closed is no failure: what the peer sent before
    /// can still be read.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.0.write_all(bytes);
        self
    }

    /// Sends bytes. Returns whether the peer took them.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Resets the connection in place of closing it.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.0);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Sends bytes as two segments, the first of `first` bytes.
    pub(crate) fn send_in_two(&mut self, bytes: &[u8], first: usize) -> &mut Self {
        let (first, second) = bytes.split_at(first);
        self.send(first).send(second)
    }

    /// The port of this side.
    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Ends the direction in which this side sends; the other one stays open.
    pub(crate) fn half_close(&mut self) -> &mut Self {
        let _ = self.0.shutdown(Shutdown::Write);
        self
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

    /// Reads this many bytes.
    pub(crate) fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        let mut read = vec![0; length];
        self.0.read_exact(&mut read).unwrap();
        read
    }

    /// Reads until the connection ends.
    pub(crate) fn read_to_end(&mut self) -> String {
        let mut read = Vec::new();
        let _ = self.0.read_to_end(&mut read);
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads until the peer closes the connection; an error where it resets it.
    pub(crate) fn read_to_close(&mut self) -> std::io::Result<Vec<u8>> {
        let mut read = Vec::new();
        self.0.read_to_end(&mut read).map(|_| read)
    }

    /// Whether bytes have arrived that were not read yet.
    pub(crate) fn has_bytes(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let has = self.0.peek(&mut [0]).is_ok_and(|read| read > 0);
        self.0.set_nonblocking(false).unwrap();
        has
    }

    /// Whether the peer closes the connection; waits for that, or for bytes.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0; 1024]) {
            Ok(read) => read == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// A server that sends the bytes that a test gives it.
pub(crate) struct RawServer {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicU64>,
}

impl RawServer {
    /// A server that calls `serve` with each connection and its number from 0, on a thread of its
    /// own.
    pub(crate) fn start(serve: impl Fn(u64, Raw) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (serve, accepted) = (Arc::new(serve), Arc::<AtomicU64>::default());
        let counter = Arc::clone(&accepted);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), serve) = (stream, Arc::clone(&serve)) else {
                    return;
                };
                let number = counter.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(number, Raw::over(stream)));
            }
        });
        Self { address, accepted }
    }

    /// A server that answers the first request of each connection with these bytes, and closes it.
    pub(crate) fn responding_with(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::start(move |_, mut raw| {
            if raw.read_until("\r\n\r\n").ends_with("\r\n\r\n") {
                raw.send(&response);
            }
        })
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Sends a request with `connection: close`, and reads the whole response.
pub(crate) fn exchange(to: SocketAddr, request: &str) -> String {
    Raw::connect(to).send(request.as_bytes()).read_to_end()
}

/// Reads an answer of the backend to its end.
pub(crate) fn read_answer(raw: &mut Raw) -> String {
    let head = raw.read_until("\"sha256\":\"");
    head + &raw.read_until("\"}")
}

/// Checks that an error of the gateway has Kong's headers, and a body with the id of the request.
#[track_caller]
pub(crate) fn assert_kong_error(answer: &str, status: &str, words: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{answer}"
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    let id = head.split_once("x-kong-request-id: ").unwrap().1;
    let id = id.split("\r\n").next().unwrap();
    assert!(head.contains("server: pointsman/"), "{answer}");
    assert!(body.contains(words) && body.contains(id), "{answer}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{answer}"
    );
}
