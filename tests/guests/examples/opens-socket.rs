//! Opens a network connection in each pick, so that it imports `wasi:sockets`.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct OpensSocket;

impl Balancer for OpensSocket {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        let connected = std::net::TcpStream::connect(("127.0.0.1", 9)).is_ok();
        println!("connected: {connected}");
        Some(0)
    }
}

guest_sdk::export!(OpensSocket);
