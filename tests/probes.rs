//! Probes over TLS and gRPC, with real servers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Backend, Gateway, Setup, tls_acceptor};

fn until_health(gateway: &Gateway, state: &str) -> Value {
    let start = Instant::now();
    loop {
        let all = gateway.admin("GET", "/upstreams/u/health", &[]).expect(200);
        let target = all.json()["data"][0].clone();
        if target["health"] == state {
            return target["data"]["addresses"][0]["pointsman"].clone();
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{target}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn probe(gateway: &Gateway, active: Value) {
    let mut settings = json!({
        "http_path": "/probe",
        "healthy": {"interval": 0.05, "successes": 1},
        "unhealthy": {"interval": 0.05, "http_failures": 1, "tcp_failures": 1, "timeouts": 1},
    });
    let fields = settings.as_object_mut().unwrap();
    fields.extend(active.as_object().unwrap().clone());
    let settings = json!({"healthchecks": {"active": settings}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn an_https_probe_verifies_the_certificate_unless_configured_otherwise() {
    let (backend, authority) = Backend::start_tls("b", "health.example");
    let address = backend.address;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let gateway = Setup::new().env("SSL_CERT_FILE", file.display()).start();
    gateway.balanced(&[(address, 100)]);
    let kind = |more: Value| {
        let mut settings = json!({"type": "https"});
        let fields = settings.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        probe(&gateway, settings);
    };
    // The address is not in the certificate.
    kind(json!({}));
    let known = until_health(&gateway, "UNHEALTHY");
    let said = known["last_failure"]["detail"].as_str().unwrap();
    assert!(said.contains("TLS"), "{said}");
    kind(json!({"https_sni": "health.example"}));
    until_health(&gateway, "HEALTHY");
    kind(json!({"https_sni": "other.example"}));
    until_health(&gateway, "UNHEALTHY");
    kind(json!({"https_sni": "other.example", "https_verify_certificate": false}));
    until_health(&gateway, "HEALTHY");
    drop(gateway);

    // A gateway that trusts no authority.
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let gateway = Setup::new().env("SSL_CERT_FILE", empty.display()).start();
    gateway.balanced(&[(address, 100)]);
    probe(
        &gateway,
        json!({"type": "https", "https_sni": "health.example"}),
    );
    until_health(&gateway, "UNHEALTHY");
}

/// A gRPC server with the health service, which answers with `status`: 0 for unknown, 1 for
/// serving, 2 for not serving. With 9 it answers like a server without that service.
struct Health {
    address: SocketAddr,
    status: Arc<AtomicU8>,
    runtime: Runtime,
}

impl Health {
    fn start(acceptor: Option<TlsAcceptor>) -> Self {
        let status = Arc::new(AtomicU8::new(1));
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&status);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (status, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, status).await,
                        // A probe that rejects the certificate closes the connection.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, status).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            status,
            runtime,
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    status: Arc<AtomicU8>,
) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let status = status.load(Ordering::SeqCst);
        async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
            let code = if status == 9 { "12" } else { "0" };
            let mut trailers = hyper::HeaderMap::new();
            trailers.insert("grpc-status", code.parse().unwrap());
            let frames = [Frame::data(message), Frame::trailers(trailers)];
            let frames = frames.map(Ok::<_, Infallible>);
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let answer = Response::builder().header("content-type", "application/grpc");
            Ok::<_, Infallible>(answer.body(body).unwrap())
        }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

#[test]
fn a_grpc_probe_calls_the_health_service() {
    let server = Health::start(None);
    let gateway = Gateway::start();
    gateway.balanced(&[(server.address, 100)]);
    probe(&gateway, json!({"type": "grpc"}));
    for (said, state) in [
        (2, "UNHEALTHY"),
        (1, "HEALTHY"),
        (9, "UNHEALTHY"),
        (1, "HEALTHY"),
    ] {
        server.status.store(said, Ordering::SeqCst);
        until_health(&gateway, state);
    }
    server.runtime.shutdown_background();
    let known = until_health(&gateway, "UNHEALTHY");
    assert_eq!(known["last_failure"]["report"], "tcp_failure");
}

#[test]
fn a_grpcs_probe_verifies_the_certificate() {
    let (acceptor, authority) = tls_acceptor("health.example", &[b"h2"]);
    let server = Health::start(Some(acceptor));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let gateway = Setup::new().env("SSL_CERT_FILE", file.display()).start();
    gateway.balanced(&[(server.address, 100)]);
    let kind = |sni: &str, verify: bool| {
        probe(
            &gateway,
            json!({"type": "grpcs", "https_sni": sni, "https_verify_certificate": verify}),
        );
    };
    kind("other.example", true);
    let known = until_health(&gateway, "UNHEALTHY");
    let said = known["last_failure"]["detail"].as_str().unwrap();
    assert!(said.contains("TLS"), "{said}");
    kind("health.example", true);
    until_health(&gateway, "HEALTHY");
    server.status.store(2, Ordering::SeqCst);
    until_health(&gateway, "UNHEALTHY");
    server.status.store(1, Ordering::SeqCst);
    kind("other.example", false);
    until_health(&gateway, "HEALTHY");
    server.runtime.shutdown_background();
}
