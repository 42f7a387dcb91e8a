//! A relay between two processes, whose connections can fail.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Passes connections on to an address, until it is told to cut them or to swallow what they carry.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_cut: AtomicBool,
    swallows: AtomicBool,
    swallows_answers: AtomicBool,
}

impl Relay {
    /// Passes connections to `to`.
    pub(crate) fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<State> = Arc::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(to) else {
                    continue;
                };
                let (back, forth) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                for (from, to, answers) in [(client, forth, false), (server, back, true)] {
                    let state = Arc::clone(&shared);
                    std::thread::spawn(move || pass(from, to, answers, &state));
                }
            }
        });
        Self { address, state }
    }

    /// Whether connections are closed, and refused.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.state.is_cut.store(is_cut, Ordering::SeqCst);
    }

    /// Whether connections stand and carry nothing.
    pub(crate) fn swallow(&self, swallows: bool) {
        self.state.swallows.store(swallows, Ordering::SeqCst);
    }

    /// Whether connections pass on what is asked, and not what is answered.
    pub(crate) fn swallow_answers(&self, swallows: bool) {
        self.state
            .swallows_answers
            .store(swallows, Ordering::SeqCst);
    }
}

/// Whether something of what a connection carries is swallowed now.
fn is_swallowed(state: &State, answers: bool) -> bool {
    let swallows = &state.swallows;
    swallows.load(Ordering::SeqCst) || (answers && state.swallows_answers.load(Ordering::SeqCst))
}

fn pass(mut from: TcpStream, mut to: TcpStream, answers: bool, state: &State) {
    let mut buffer = [0; 1 << 16];
    let pause = std::time::Duration::from_millis(20);
    from.set_read_timeout(Some(pause)).unwrap();
    let mut is_spoilt = false;
    while !state.is_cut.load(Ordering::SeqCst) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            // A connection of which something was swallowed carries nothing afterwards.
            Ok(_) if is_spoilt || is_swallowed(state, answers) => is_spoilt = true,
            Ok(length) => {
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
