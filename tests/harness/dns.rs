//! A DNS server on a port of its own, whose answers a test sets.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// How queries for a name are answered.
#[derive(Clone)]
pub(crate) enum DnsReply {
    /// With these IPv4 addresses, and a time to live in seconds.
    Addresses(Vec<Ipv4Addr>, u32),
    /// With these IPv6 addresses, and a time to live in seconds.
    Addresses6(Vec<Ipv6Addr>, u32),
    /// With these services, as priority, weight, port and host, and a time to live in seconds.
    Services(Vec<(u16, u16, u16, &'static str)>, u32),
    /// With these services, and with these addresses of hosts besides.
    ServicesWith(
        Vec<(u16, u16, u16, &'static str)>,
        Vec<(&'static str, Ipv4Addr)>,
    ),
    /// With these IPv4 addresses, but only after this time.
    Late(Vec<Ipv4Addr>, Duration),
    /// With these IPv4 addresses, but only once [`Dns::release`] is called; at once after that.
    Held(Vec<Ipv4Addr>),
    /// With SERVFAIL.
    ServerFailure,
    /// Not at all.
    NoResponse,
}

/// By name, and by type of record where a test sets them apart.
type Replies = HashMap<(String, Option<RecordType>), DnsReply>;

/// A server that answers NXDOMAIN for each name that has no reply.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    replies: Arc<Mutex<Replies>>,
    queried: Arc<Mutex<Vec<(String, RecordType)>>>,
    socket: UdpSocket,
    held: Arc<Mutex<Vec<HeldAnswer>>>,
}

/// An answer that is not sent yet.
struct HeldAnswer {
    name: String,
    answer: Vec<u8>,
    client: SocketAddr,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let dns = Self {
            address: socket.local_addr().unwrap(),
            replies: Arc::default(),
            queried: Arc::default(),
            socket: socket.try_clone().unwrap(),
            held: Arc::default(),
        };
        let (replies, queried) = (Arc::clone(&dns.replies), Arc::clone(&dns.queried));
        let held = Arc::clone(&dns.held);
        // The thread ends with the process.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let Ok(query) = Message::from_vec(&buffer[..length]) else {
                    continue;
                };
                let name = query.queries[0].name().to_utf8();
                let name = name.trim_end_matches('.').to_lowercase();
                let kind = query.queries[0].query_type();
                queried.lock().unwrap().push((name.clone(), kind));
                // Locked until the answer is sent or held, so that `release` finds it.
                let replies = replies.lock().unwrap();
                let reply = replies.get(&(name.clone(), Some(kind)));
                let reply = reply
                    .or_else(|| replies.get(&(name.clone(), None)))
                    .cloned();
                let (mut delay, mut is_held) = (None, false);
                match &reply {
                    Some(DnsReply::Late(_, time)) => delay = Some(*time),
                    Some(DnsReply::Held(_)) => is_held = true,
                    _ => {}
                }
                let Some(answer) = answer(query, reply) else {
                    continue;
                };
                let answer = answer.to_vec().unwrap();
                if is_held {
                    let answer = HeldAnswer {
                        name,
                        answer,
                        client,
                    };
                    held.lock().unwrap().push(answer);
                } else if let Some(delay) = delay {
                    let socket = socket.try_clone().unwrap();
                    std::thread::spawn(move || {
                        std::thread::sleep(delay);
                        let _ = socket.send_to(&answer, client);
                    });
                } else {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        dns
    }

    /// Sets how queries for a name are answered from now on.
    pub(crate) fn set(&self, name: &str, reply: DnsReply) {
        let key = (name.to_owned(), None);
        self.replies.lock().unwrap().insert(key, reply);
    }

    /// The same for queries for records of one type.
    pub(crate) fn set_type(&self, name: &str, kind: RecordType, reply: DnsReply) {
        let key = (name.to_owned(), Some(kind));
        self.replies.lock().unwrap().insert(key, reply);
    }

    /// From now on the name does not exist.
    pub(crate) fn remove(&self, name: &str) {
        let mut replies = self.replies.lock().unwrap();
        replies.retain(|(known, _), _| known != name);
    }

    /// Sends the answers for a name that are held, and holds no more.
    pub(crate) fn release(&self, name: &str) {
        let mut replies = self.replies.lock().unwrap();
        for ((of, _), reply) in replies.iter_mut() {
            if of == name
                && let DnsReply::Held(addresses) = reply
            {
                *reply = DnsReply::Addresses(std::mem::take(addresses), 60);
            }
        }
        self.held.lock().unwrap().retain(|held| {
            if held.name == name {
                let _ = self.socket.send_to(&held.answer, held.client);
            }
            held.name != name
        });
    }

    /// Queries for a name so far.
    pub(crate) fn queries(&self, name: &str) -> usize {
        self.questions(name).len()
    }

    /// The types of the records that were asked for so far, in the order of the queries.
    pub(crate) fn questions(&self, name: &str) -> Vec<RecordType> {
        let queried = self.queried.lock().unwrap();
        let of_name = queried.iter().filter(|(queried, _)| queried == name);
        of_name.map(|(_, kind)| *kind).collect()
    }
}

fn answer(mut message: Message, reply: Option<DnsReply>) -> Option<Message> {
    message.metadata.message_type = MessageType::Response;
    let query = message.queries[0].clone();
    let record = |ttl, data| Record::from_rdata(query.name().clone(), ttl, data);
    match reply {
        Some(DnsReply::NoResponse) => return None,
        Some(DnsReply::ServerFailure) => message.metadata.response_code = ResponseCode::ServFail,
        Some(DnsReply::Addresses(addresses, ttl)) if query.query_type() == RecordType::A => {
            for address in addresses {
                message.add_answer(record(ttl, RData::A(A(address))));
            }
        }
        Some(DnsReply::Late(addresses, _) | DnsReply::Held(addresses))
            if query.query_type() == RecordType::A =>
        {
            for address in addresses {
                message.add_answer(record(60, RData::A(A(address))));
            }
        }
        Some(DnsReply::Addresses6(addresses, ttl)) if query.query_type() == RecordType::AAAA => {
            for address in addresses {
                message.add_answer(record(ttl, RData::AAAA(AAAA(address))));
            }
        }
        Some(DnsReply::Services(services, ttl)) if query.query_type() == RecordType::SRV => {
            for (priority, weight, port, host) in services {
                let host = Name::from_ascii(host).unwrap();
                let service = SRV::new(priority, weight, port, host);
                message.add_answer(record(ttl, RData::SRV(service)));
            }
        }
        Some(DnsReply::ServicesWith(services, hosts)) if query.query_type() == RecordType::SRV => {
            for (priority, weight, port, host) in services {
                let host = Name::from_ascii(host).unwrap();
                let service = SRV::new(priority, weight, port, host);
                message.add_answer(record(60, RData::SRV(service)));
            }
            message.add_additionals(hosts.into_iter().map(|(host, address)| {
                let host = Name::from_ascii(host).unwrap();
                Record::from_rdata(host, 60, RData::A(A(address)))
            }));
        }
        // The name exists and has no record of this type.
        Some(_) => {}
        None => message.metadata.response_code = ResponseCode::NXDomain,
    }
    Some(message)
}
