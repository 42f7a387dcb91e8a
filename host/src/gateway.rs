//! Starts the parts of the gateway and shuts them down.

mod tls;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::{self, Admin, Listening};
use crate::balancer::{self, Engine};
use crate::config::{Config, Listen};
use crate::connections::{self, ConnectionLimits};
use crate::entity::key_hash::KeyHash;
use crate::in_place::in_place;
use crate::listener::{self, Listeners};
use crate::log_level::LogLevel;
use crate::policy::Resources;
use crate::proxy::Workers;
use crate::snapshot::{Compiler, Published, UpstreamResources};
use crate::store::{self, Store};
use crate::tls::ClientCertificate;
use crate::upstream::{self, Memory, Names, SessionKey};
use tls::ListenerTls;

/// Runs the gateway until it gets SIGTERM, SIGINT or SIGQUIT. `log_level` is the filter of its log.
///
/// # Errors
/// The gateway cannot start: one clear sentence.
pub fn run(config: Config, log_level: LogLevel) -> anyhow::Result<()> {
    let files = connections::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let outcome = runtime.block_on(serve(config, log_level, files));
    // The control side is not waited for: all acknowledged changes are on disk.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config, log_level: LogLevel, files: usize) -> anyhow::Result<()> {
    // A signal that arrives during the start must end the gateway as well, so the handlers are
    // installed first.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Kong and nginx shut down gracefully on this signal.
    let mut quit = signal(SignalKind::quit())?;
    tokio::spawn(ignore_reloads()?);
    // With a handler for SIGXFSZ, a write past the limit of the file size is an error, which is
    // reported, and does not end the process.
    let _too_large = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;

    let client_certificate = client_certificate(&config)?;
    let store = store::open(&config.data_dir);
    let store = store.context("cannot open the store (setting data_dir)")?;
    let store: Arc<dyn Store> = Arc::new(store);
    let hash_file = config.policies.hash_keys_file.clone();
    let hash_file = hash_file.unwrap_or_else(|| config.data_dir.join("hash.key"));
    let key_hash = KeyHash::open(&hash_file, config.policies.hash_keys);
    if let Some(key_hash) = key_hash.map_err(anyhow::Error::msg)? {
        key_hash.install(config.policies.hash_keys);
    }
    if config.policies.hash_keys {
        admin::hash_stored_keys(&store).await;
    }
    let engine = Engine::new(balancer::Settings {
        pick_timeout: config.balancer.pick_timeout,
        pick_cost: config.balancer.pick_cost,
        memory: config.balancer.memory,
        state: config.balancer.state,
        upload: config.balancer.upload,
        compile_timeout: config.balancer.compile_timeout,
        cache_dir: Some(config.data_dir.join("cache")),
        // The running program, even if its file was replaced by another version in the meantime.
        compiler: "/proc/self/exe".into(),
    })?;
    let shipped = admin::install_shipped(&store, &engine).await?;

    let listeners = AllListeners::bind(&config)?;
    let listening = Arc::new(listeners.listening());

    let probing = upstream::probe::runtime().context("cannot start the thread of the probes")?;
    let memory = Arc::new(Memory::open(&config.data_dir));
    let writing = Arc::clone(&memory);
    let writing = tokio::spawn(async move { writing.write_down().await });
    let names = Arc::new(Names::new(&config.dns));
    let published = Arc::new(Published::new(config.proxy.route_regex_memory));
    let tls = ListenerTls::new(&config, &listeners, &published)?;
    let commits = store.watch()?;
    let sessions = SessionKey::open(&config.data_dir).map_err(anyhow::Error::msg)?;
    let resources = Resources::start(&config.policies, Arc::clone(&store));
    let resources = Arc::new(resources.context("cannot start the thread of the logs")?);
    let compiler = Compiler::new(
        Arc::clone(&published),
        Arc::clone(&store),
        Arc::clone(&engine),
        shipped,
        UpstreamResources {
            names: Arc::clone(&names),
            memory: Arc::clone(&memory),
            probing,
        },
        Arc::clone(&resources),
    )
    .with_session_key(sessions)
    .with_client_certificate(client_certificate);
    let mut compiling = tokio::spawn(in_place(compiler.run(commits)));
    // Traffic is accepted only once the whole stored configuration is in effect.
    tokio::select! {
        () = published.started() => {}
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
        _ = quit.recv() => return Ok(()),
        ended = &mut compiling => anyhow::bail!("the stored configuration cannot be applied: {ended:?}"),
    }

    let limits = ConnectionLimits::new(files, config.workers, config.proxy.max_connections)?;
    let limits = Arc::new(limits);
    let headerless = listeners.headerless();
    let AllListeners {
        proxy,
        admin: admin_listeners,
        status: status_listeners,
    } = listeners;
    let workers = Workers::start(proxy, &published, &config.proxy, &limits, tls.proxy)
        .context("cannot start the workers of the proxy")?;
    let admin = Admin {
        store,
        engine,
        published,
        names,
        counters: workers.counters.clone(),
        limits: Arc::clone(&limits),
        config: config.clone(),
        log_level: Arc::new(log_level),
        listening: Arc::clone(&listening),
        left_over: Arc::default(),
        resources: Arc::clone(&resources),
        headerless,
        tls: tls.figures,
        draining: Arc::default(),
    };
    tokio::spawn(in_place(admin::resume_checks(admin.clone())));
    tokio::spawn(in_place(admin::tidy_cache(admin.clone())));
    tokio::spawn(admin::follow_canaries(admin.clone()));
    let commits = admin.store.watch()?;
    tokio::spawn(in_place(admin::remove_expired(admin.clone(), commits)));
    let (stop, stopped) = watch::channel(false);
    let status = admin.clone();
    let serving = tokio::spawn(async move {
        tokio::join!(
            admin::serve(admin_listeners, tls.admin, admin, stopped.clone()),
            admin::serve_status(status_listeners, tls.status, status, stopped),
        )
    });
    tracing::info!(
        "up to {} connections of clients, with {files} open files",
        limits.max_clients
    );
    announce(&config, &listening);

    let reason = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = quit.recv() => "SIGQUIT",
        // Without the compiler, changes would be acknowledged and have no effect.
        ended = &mut compiling => anyhow::bail!("the snapshot compiler has stopped: {ended:?}"),
    };
    let deadline = Instant::now() + config.shutdown_timeout;
    // The last records are made when the last requests end, or are ended, and have to be sent then.
    let kept = resources.logs.hurry(config.shutdown_timeout);
    let draining = config.shutdown_timeout - kept;
    tracing::info!(
        "{reason}: no new connections; draining requests in flight for up to {draining:?}"
    );
    stop.send_replace(true);
    let administered = tokio::time::timeout(draining, serving);
    let (drained, administered) = tokio::join!(workers.shut_down(draining), administered);
    let left = deadline.saturating_duration_since(Instant::now());
    let logged = resources.logs.shut_down(left).await;
    if !logged {
        tracing::warn!("records of requests still waited to be logged");
    }
    writing.abort();
    if let Err(error) = memory.save() {
        tracing::warn!("cannot write the health of targets: {error}");
    }
    if drained && administered.is_ok() {
        tracing::info!("all requests drained");
    } else {
        tracing::warn!("requests were still in flight after {draining:?}");
    }
    Ok(())
}

/// The sockets of all lists of addresses.
struct AllListeners {
    proxy: Listeners,
    admin: Listeners,
    status: Listeners,
}

impl AllListeners {
    fn bind(config: &Config) -> anyhow::Result<Self> {
        let workers = config.workers;
        Ok(Self {
            proxy: Listeners::bind(
                &config.proxy_listen,
                workers,
                "the proxy (setting proxy_listen)",
            )?,
            admin: Listeners::bind(
                &config.admin_listen,
                1,
                "the Admin API (setting admin_listen)",
            )?,
            status: Listeners::bind(
                &config.status_listen,
                1,
                "the state of the gateway (setting status_listen)",
            )?,
        })
    }

    /// The counters of connections without the header of the PROXY protocol, by what listens.
    fn headerless(&self) -> [(&'static str, Arc<AtomicU64>); 3] {
        [
            ("proxy", &self.proxy),
            ("admin", &self.admin),
            ("status", &self.status),
        ]
        .map(|(name, listeners)| (name, Arc::clone(&listeners.headerless)))
    }

    fn listening(&self) -> Listening {
        Listening {
            proxy: self.proxy.listens.clone(),
            admin: self.admin.listens.clone(),
            status: self.status.listens.clone(),
        }
    }
}

/// The certificate of the settings that endpoints are shown, if there is one.
fn client_certificate(config: &Config) -> anyhow::Result<Option<Arc<ClientCertificate>>> {
    let Some((certificate, key)) = config.client_ssl.pair() else {
        if config.client_ssl.on {
            tracing::warn!(
                "client_ssl is on, but client_ssl_cert and client_ssl_cert_key are not set: \
                 endpoints are shown no certificate"
            );
        }
        return Ok(None);
    };
    let certificate = listener::load_pem(certificate).with_context(|| {
        format!("client_ssl_cert: failed loading certificate from {certificate}")
    })?;
    let key = listener::load_pem(key).context("client_ssl_cert_key: failed loading key")?;
    let certificate = ClientCertificate::from_pem(&certificate, &key);
    let certificate = certificate.map_err(|why| {
        anyhow::anyhow!("client_ssl_cert and client_ssl_cert_key cannot be used: {why}")
    })?;
    Ok(Some(Arc::new(certificate)))
}

/// Handles the signals that make other servers reload their configuration or reopen their log.
/// Without a handler, each of them would end the process at once.
fn ignore_reloads() -> std::io::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut first = signal(SignalKind::user_defined1())?;
    let mut second = signal(SignalKind::user_defined2())?;
    Ok(async move {
        loop {
            let name = tokio::select! {
                _ = hangup.recv() => "SIGHUP",
                _ = first.recv() => "SIGUSR1",
                _ = second.recv() => "SIGUSR2",
            };
            tracing::info!(
                "{name}: nothing to reload or reopen: changes by the Admin API are in effect when they are \
                 answered, settings are read at a start, and the log is standard error"
            );
        }
    })
}

/// Announces that the gateway is ready: in the log for people, and as one line of JSON on standard
/// output for programs, which need the address if they have set port 0.
fn announce(config: &Config, listening: &Listening) {
    let data_dir = config
        .data_dir
        .canonicalize()
        .unwrap_or_else(|_| config.data_dir.clone());
    let Listening {
        proxy,
        admin,
        status,
    } = listening;
    tracing::info!(
        "proxy listens on {}, with {} workers",
        list(proxy),
        config.workers
    );
    tracing::info!("Admin API listens on {}", list(admin));
    tracing::info!("the state of the gateway is told on {}", list(status));
    let open = admin.iter().find(|listen| !listen.address.is_local());
    if let Some(open) = open.filter(|_| config.admin_access.tokens.is_empty()) {
        tracing::warn!(
            "EVERY CLIENT THAT REACHES {} CAN CHANGE ALL OF THE CONFIGURATION: the Admin API \
             listens beyond this machine and needs no token; set admin_tokens, or let admin_listen \
             be an address such as 127.0.0.1:8001",
            open.address
        );
    }
    tracing::info!("data is kept in {}", data_dir.display());
    let line = json!({
        "event": "ready",
        "proxy": first(proxy),
        "admin": first(admin),
        "listeners": {
            "proxy": texts(proxy),
            "admin": texts(admin),
            "status": texts(status),
        },
        "data_dir": data_dir,
        "version": env!("CARGO_PKG_VERSION"),
    });
    // Standard output may be closed, so errors are ignored.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// The first address in clear text; if there is none, the first one.
fn first(listens: &[Listen]) -> Option<String> {
    let plain = listens.iter().find(|listen| !listen.ssl);
    let first = plain.or_else(|| listens.first())?;
    Some(first.address.to_string())
}

fn texts(listens: &[Listen]) -> Vec<String> {
    listens.iter().map(ToString::to_string).collect()
}

/// Addresses for people.
fn list(listens: &[Listen]) -> String {
    let addresses = listens.iter().map(|listen| match listen.ssl {
        true => format!("{} (TLS)", listen.address),
        false => listen.address.to_string(),
    });
    match addresses.collect::<Vec<_>>().as_slice() {
        [] => "no address".to_owned(),
        addresses => addresses.join(", "),
    }
}
