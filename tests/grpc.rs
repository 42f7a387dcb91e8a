//! gRPC: calls are balanced one by one, stream in both directions, and keep their trailers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::harness::http2::{Answer, Http2, data, streamed};
use crate::harness::{Gateway, Setup, exchange, tls_acceptor};

/// A server of the methods `Echo`, which sends back each message as it is received, and `Fail`,
/// whose response consists of trailers only.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Server {
    pub(crate) fn start(acceptor: Option<TlsAcceptor>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&calls);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                let service = service_fn(move |request| {
                    counter.fetch_add(1, Ordering::SeqCst);
                    async { Ok::<_, std::convert::Infallible>(respond(request)) }
                });
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    match acceptor {
                        None => {
                            let served = server.serve_connection(TokioIo::new(stream), service);
                            let _ = served.await;
                        }
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                let served = server.serve_connection(TokioIo::new(stream), service);
                                let _ = served.await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            calls,
            _runtime: runtime,
        }
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

const METADATA: [&str; 4] = ["retry-after", "set-cookie", "content-type", "x-custom-bin"];

fn status(code: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    trailers
}

fn respond(request: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, hyper::Error>> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    let path = request.uri().path().parse().unwrap();
    headers.insert("x-path", path);
    for name in ["te", "grpc-timeout", "x-forwarded-path"] {
        if let Some(value) = request.headers().get(name) {
            let name: hyper::header::HeaderName = format!("got-{name}").parse().unwrap();
            headers.insert(name, value.clone());
        }
    }
    if request.uri().path().ends_with("/Fail") {
        headers.extend(status("5"));
        headers.insert("grpc-message", "no such thing".parse().unwrap());
        let nothing = Empty::new().map_err(|never| match never {});
        return response.map(|()| nothing.boxed_unsync());
    }
    let has_metadata = request.uri().path().ends_with("/Metadata");
    let body = request.into_body();
    let frames = futures_util::stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match body.frame().await {
            Some(Ok(frame)) => Some((Ok(frame), Some(body))),
            Some(Err(error)) => Some((Err(error), None)),
            None => {
                let mut trailers = status("0");
                // Metadata of the call, whose names mean something else in a head.
                for name in METADATA.iter().filter(|_| has_metadata) {
                    trailers.insert(*name, "1".parse().unwrap());
                }
                Some((Ok(Frame::trailers(trailers)), None))
            }
        }
    });
    response.map(|()| StreamBody::new(frames).boxed_unsync())
}

/// A message, uncompressed, with its length in front.
pub(crate) fn message(text: &str) -> Bytes {
    let mut message = vec![0];
    message.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    message.extend(text.as_bytes());
    message.into()
}

/// A gateway with an upstream `u` of these servers, which serves gRPC under `/echo`.
fn gateway(protocol: &str, servers: &[&Server]) -> Gateway {
    let gateway = Setup::new().arg("--workers", 1).start();
    let targets: Vec<_> = servers.iter().map(|server| (server.address, 100)).collect();
    gateway.balanced_as("u", "/echo", &targets);
    let service = json!({"protocol": protocol});
    let answer = gateway.admin_json("PATCH", "/services/u-service", &service);
    answer.expect(200);
    let routes = gateway
        .admin("GET", "/services/u-service/routes", &[])
        .json();
    let route = format!("/routes/{}", routes["data"][0]["id"].as_str().unwrap());
    let grpc = json!({"protocols": ["grpc", "grpcs"], "strip_path": false});
    gateway.admin_json("PATCH", &route, &grpc).expect(200);
    gateway
}

fn call(client: &Http2, path: &str) -> Answer {
    let request = client
        .request("POST", path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S");
    let (sender, body) = streamed();
    sender.send(data(message("hello"))).unwrap();
    drop(sender);
    client.send(request.body(body).unwrap())
}

#[test]
fn the_calls_of_one_connection_are_balanced_one_by_one() {
    let servers = [(); 2].map(|()| Server::start(None));
    let gateway = gateway("grpc", &[&servers[0], &servers[1]]);
    let client = Http2::connect(gateway.proxy);
    for _ in 0..10 {
        let answer = call(&client, "/echo.Echo/Echo").expect(200);
        assert_eq!(answer.body, message("hello"));
        assert_eq!(answer.trailers["grpc-status"], "0");
        assert_eq!(answer.header("x-path"), "/echo.Echo/Echo");
        assert_eq!(answer.header("got-te"), "trailers");
        assert_eq!(answer.header("got-grpc-timeout"), "5S");
        assert_eq!(answer.header("got-x-forwarded-path"), "/echo.Echo/Echo");
    }
    assert_eq!(servers.map(|server| server.calls()), [5, 5]);
}

#[test]
fn metadata_after_a_call_may_have_any_name() {
    let server = Server::start(None);
    let gateway = gateway("grpc", &[&server]);
    let answer = call(&Http2::connect(gateway.proxy), "/echo.Echo/Metadata").expect(200);
    assert_eq!(answer.trailers["grpc-status"], "0");
    for name in METADATA {
        assert_eq!(answer.trailers[name], "1", "{name}");
    }
}

#[test]
fn a_response_of_trailers_only_is_passed_on() {
    let server = Server::start(None);
    let gateway = gateway("grpc", &[&server]);
    let client = Http2::connect(gateway.proxy);
    let answer = call(&client, "/echo.Echo/Fail").expect(200);
    assert_eq!(answer.header("grpc-status"), "5");
    assert_eq!(answer.header("grpc-message"), "no such thing");
    assert!(answer.body.is_empty());
}

#[test]
fn a_client_of_http1_that_takes_trailers_is_told_the_status() {
    let server = Server::start(None);
    let gateway = Gateway::start();
    gateway.balanced_as("u", "/echo", &[(server.address, 100)]);
    let service = json!({"protocol": "grpc"});
    let answer = gateway.admin_json("PATCH", "/services/u-service", &service);
    answer.expect(200);
    let head = "POST /echo.Echo/Echo HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\n\
                content-length: 6\r\n";
    let call = |fields: &str| {
        let request = format!("{head}{fields}\r\n\0\0\0\0\u{1}x");
        exchange(gateway.proxy, &request)
    };
    let takes = call("te: trailers\r\nconnection: te, close\r\n");
    assert!(takes.starts_with("HTTP/1.1 200 "), "{takes}");
    let announced = "\r\ntrailer: grpc-status, grpc-message, grpc-status-details-bin\r\n";
    assert!(takes.contains(announced), "{takes}");
    assert!(
        takes.ends_with("\r\n0\r\ngrpc-status: 0\r\n\r\n"),
        "{takes}"
    );
    let does_not = call("connection: close\r\n");
    assert!(does_not.ends_with("\r\n0\r\n\r\n"), "{does_not}");
}

#[test]
fn messages_stream_in_both_directions() {
    let (acceptor, _) = tls_acceptor("b.example", &[b"h2"]);
    let server = Server::start(Some(acceptor));
    let gateway = gateway("grpcs", &[&server]);
    let client = Http2::connect(gateway.proxy);
    let request = client
        .request("POST", "/echo.Echo/Echo")
        .header("content-type", "application/grpc");
    let (sender, body) = streamed();
    let response = client.start(request.body(body).unwrap());
    client.runtime.block_on(async {
        sender.send(data(message("0"))).unwrap();
        let mut body = response.await.unwrap().unwrap().into_body();
        // Each message is sent only after the one before has come back.
        for number in 0..20 {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), message(&number.to_string()));
            sender
                .send(data(message(&(number + 1).to_string())))
                .unwrap();
        }
        drop(sender);
        let rest = body.collect().await.unwrap();
        assert_eq!(rest.trailers().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn a_call_to_an_endpoint_that_is_gone_is_sent_to_another() {
    let server = Server::start(None);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let gateway = gateway("grpc", &[&server]);
    gateway.add_target("u", address, 100);
    let client = Http2::connect(gateway.proxy);
    for _ in 0..6 {
        let answer = call(&client, "/echo.Echo/Echo").expect(200);
        assert_eq!(answer.trailers["grpc-status"], "0");
    }
}
