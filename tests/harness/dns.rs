//! A real DNS server, on a port of its own, that answers as it is told to.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// What is said of a name.
#[derive(Clone)]
pub(crate) enum Reply {
    /// These addresses, for as many seconds.
    Addresses(Vec<Ipv4Addr>, u32),
    /// The same of version 6.
    Addresses6(Vec<Ipv6Addr>, u32),
    /// These services, as priority, weight, port and host, for as many seconds.
    Services(Vec<(u16, u16, u16, &'static str)>, u32),
    /// That the server has failed.
    Failure,
    /// Nothing at all.
    Silence,
}

/// By name, and by type of record where that makes a difference.
type Replies = HashMap<(String, Option<RecordType>), Reply>;

/// A name that nothing is said of does not exist.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    replies: Arc<Mutex<Replies>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let dns = Self {
            address: socket.local_addr().unwrap(),
            replies: Arc::default(),
            asked: Arc::default(),
        };
        let (replies, asked) = (Arc::clone(&dns.replies), Arc::clone(&dns.asked));
        // It ends with the process: no answer is late.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let Ok(query) = Message::from_vec(&buffer[..length]) else {
                    continue;
                };
                let name = query.queries[0].name().to_utf8();
                let name = name.trim_end_matches('.').to_lowercase();
                asked.lock().unwrap().push(name.clone());
                let kind = query.queries[0].query_type();
                let replies = replies.lock().unwrap();
                let reply = replies.get(&(name.clone(), Some(kind)));
                let reply = reply.or_else(|| replies.get(&(name, None))).cloned();
                if let Some(answer) = answer(query, reply) {
                    let _ = socket.send_to(&answer.to_vec().unwrap(), client);
                }
            }
        });
        dns
    }

    /// What is said of a name from now on.
    pub(crate) fn set(&self, name: &str, reply: Reply) {
        let key = (name.to_owned(), None);
        self.replies.lock().unwrap().insert(key, reply);
    }

    /// What is said of its records of one type.
    pub(crate) fn set_type(&self, name: &str, kind: RecordType, reply: Reply) {
        let key = (name.to_owned(), Some(kind));
        self.replies.lock().unwrap().insert(key, reply);
    }

    /// From now on nothing is known of a name.
    pub(crate) fn forget(&self, name: &str) {
        let mut replies = self.replies.lock().unwrap();
        replies.retain(|(known, _), _| known != name);
    }

    /// How often a name was asked for.
    pub(crate) fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| *asked == name).count()
    }
}

fn answer(mut message: Message, reply: Option<Reply>) -> Option<Message> {
    message.metadata.message_type = MessageType::Response;
    let query = message.queries[0].clone();
    let record = |ttl, data| Record::from_rdata(query.name().clone(), ttl, data);
    match reply {
        Some(Reply::Silence) => return None,
        Some(Reply::Failure) => message.metadata.response_code = ResponseCode::ServFail,
        Some(Reply::Addresses(addresses, ttl)) if query.query_type() == RecordType::A => {
            for address in addresses {
                message.add_answer(record(ttl, RData::A(A(address))));
            }
        }
        Some(Reply::Addresses6(addresses, ttl)) if query.query_type() == RecordType::AAAA => {
            for address in addresses {
                message.add_answer(record(ttl, RData::AAAA(AAAA(address))));
            }
        }
        Some(Reply::Services(services, ttl)) if query.query_type() == RecordType::SRV => {
            for (priority, weight, port, host) in services {
                let host = Name::from_ascii(host).unwrap();
                let service = SRV::new(priority, weight, port, host);
                message.add_answer(record(ttl, RData::SRV(service)));
            }
        }
        // The name is there, and has no such record.
        Some(_) => {}
        None => message.metadata.response_code = ResponseCode::NXDomain,
    }
    Some(message)
}
