//! A client and a server that send bytes as they are given to them, right or wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A connection to speak HTTP on by hand.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).unwrap())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        // So that a case that waits in vain fails and does not hang.
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self(stream)
    }

    /// Sends bytes. A connection that the other side has closed is no failure: what it said before
    /// is still to be read.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.0.write_all(bytes);
        self
    }

    /// Sends bytes as two segments.
    pub(crate) fn send_in_two(&mut self, bytes: &[u8], first: usize) -> &mut Self {
        let (first, second) = bytes.split_at(first);
        self.send(first).send(second)
    }

    /// The port of this side.
    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    pub(crate) fn finish(&mut self) -> &mut Self {
        let _ = self.0.shutdown(Shutdown::Write);
        self
    }

    /// Reads until the text holds `mark`, or the connection ends.
    pub(crate) fn read_until(&mut self, mark: &str) -> String {
        let mut read = Vec::new();
        let mut byte = [0];
        while !read.ends_with(mark.as_bytes()) && self.0.read(&mut byte).unwrap_or(0) > 0 {
            read.push(byte[0]);
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads until the connection ends.
    pub(crate) fn read_to_end(&mut self) -> String {
        let mut read = Vec::new();
        let _ = self.0.read_to_end(&mut read);
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads until the other side ends the connection in order; an error is a reset.
    pub(crate) fn read_to_order(&mut self) -> std::io::Result<Vec<u8>> {
        let mut read = Vec::new();
        self.0.read_to_end(&mut read).map(|_| read)
    }

    /// Whether something has come that is not read yet.
    pub(crate) fn has_bytes(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let has = self.0.peek(&mut [0]).is_ok_and(|read| read > 0);
        self.0.set_nonblocking(false).unwrap();
        has
    }

    /// Whether the other side has closed the connection; waits for it.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0; 1024]) {
            Ok(read) => read == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// A server whose every word is given to it.
pub(crate) struct RawServer {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicU64>,
}

impl RawServer {
    /// A server that hands over each connection, with its number from 0, on a thread of its own.
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

    /// A server that answers the first request of each connection with these bytes and ends it.
    pub(crate) fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, mut raw| {
            if raw.read_until("\r\n\r\n").ends_with("\r\n\r\n") {
                raw.send(&answer);
            }
        })
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Sends a whole request that asks for the connection to end, and reads the whole answer.
pub(crate) fn exchange(to: SocketAddr, request: &str) -> String {
    Raw::connect(to).send(request.as_bytes()).read_to_end()
}
