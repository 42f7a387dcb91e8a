//! An HTTP server that keeps what it is sent, for plugins that send records and traces.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request: its head, and its body.
type Received = (String, Vec<u8>);

/// An HTTP server that keeps what it is sent.
pub(crate) struct HttpReceiver {
    pub(crate) address: SocketAddr,
    received: Receiver<Received>,
    /// The statuses of its next responses; then it answers 200.
    pub(crate) statuses: Arc<Mutex<VecDeque<u16>>>,
}

impl HttpReceiver {
    /// A server that answers the first requests with these statuses.
    pub(crate) fn start(statuses: impl IntoIterator<Item = u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let statuses = Arc::new(Mutex::new(statuses.into_iter().collect::<VecDeque<_>>()));
        let (sender, received) = channel();
        let next = Arc::clone(&statuses);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, next) = (sender.clone(), Arc::clone(&next));
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = read_request(&mut stream) {
                        let status = next.lock().unwrap().pop_front().unwrap_or(200);
                        let answer = format!("HTTP/1.1 {status} .\r\ncontent-length: 0\r\n\r\n");
                        let _ = stream.get_mut().write_all(answer.as_bytes());
                        let _ = sender.send(request);
                    }
                });
            }
        });
        Self {
            address,
            received,
            statuses,
        }
    }

    /// The next request.
    #[track_caller]
    pub(crate) fn next(&self) -> Received {
        self.received.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Whether it has received nothing since.
    pub(crate) fn is_idle(&self) -> bool {
        self.received.try_recv().is_err()
    }
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}
