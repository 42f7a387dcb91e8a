//! Starts the parts of the gateway and shuts them down.

mod access_logs;
mod check;
mod declarative;
mod listeners;
mod program;
mod reload;
mod signals;
mod stores;
mod supervisor;
mod takeover;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

use crate::acme::Acme;
use crate::admin::{self, Admin, Importer, Loaded};
use crate::allocator::{ReturnAtOnce, return_if_asked};
use crate::balancer::{self, Engine};
use crate::config::{self, Config};
use crate::connections::{self, ConnectionLimits, WantedLimits};
use crate::dns::Resolver;
use crate::entity;
use crate::in_place::in_place;
use crate::listener::{Inherited, SocketFile};
use crate::log_level::LogLevel;
use crate::node;
use crate::policy::Resources;
use crate::proxy::Workers;
use crate::snapshot::{Compiler, Published, UpstreamResources};
use crate::store::{self, Store};
use crate::stream;
use crate::upstream::{self, Memory, Names, SessionKey};
use access_logs::AccessLogs;
pub use check::check;
use listeners::AllListeners;
use program::Program;
use reload::Reload;
use signals::{SignalAction, Signals};
use stores::{cannot_open, open_store};
use takeover::Predecessor;
use tls::{ListenerTls, client_certificate};

/// Runs the gateway until it gets SIGTERM, SIGINT or SIGQUIT. `log_level` is the filter of its log,
/// and `reload` reads the settings again.
///
/// # Errors
/// The gateway cannot start: one clear sentence.
pub fn run(
    config: Config,
    log_level: LogLevel,
    reload: impl Fn() -> Result<Config, config::Error> + Send + 'static,
) -> anyhow::Result<()> {
    let files = connections::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .on_thread_park(return_if_asked)
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let outcome = runtime.block_on(serve(config, log_level, reload, files));
    // The control plane is not waited for: all acknowledged changes are on disk.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    config: Config,
    log_level: LogLevel,
    reload: impl Fn() -> Result<Config, config::Error> + Send + 'static,
    files: usize,
) -> anyhow::Result<()> {
    ConnectionLimits::check_start(files, config.workers)?;
    let starting = ReturnAtOnce::begin();
    // Before an upgrade can replace the file.
    let program = Program::running();
    // A signal that arrives during the start must end the gateway as well, so the handlers are
    // installed first.
    let mut signals = Signals::install()?;

    let without_effect = config.without_effect();
    if !without_effect.is_empty() {
        tracing::warn!(
            "{} without effect, since ssl_cipher_suite is not custom: set it to custom, or leave them \
             out",
            without_effect.join(", ")
        );
    }
    let client_certificate = client_certificate(&config)?;
    // Before the store reads its rows by their declarations.
    entity::route::install_flavor(config.proxy.router_flavor);
    let inherited = Inherited::from_supervisor().context("the sockets of the supervisor")?;
    let (mut predecessor, mut inherited) = match config.take_over {
        true => tokio::select! {
            replaced = Predecessor::replace(&config.data_dir, inherited) => replaced?,
            _ = signals.end() => return Ok(()),
        },
        false => (None, inherited),
    };
    let lock = match predecessor.as_mut().and_then(|old| old.lock.take()) {
        Some(lock) => lock,
        None => store::lock(&config.data_dir).map_err(|why| cannot_open(why, &config))?,
    };
    // A process that takes over opens its sockets first: the other one refuses changes until it
    // knows whether this one can start.
    let bound = match predecessor.is_some() {
        true => Some(AllListeners::bind(&config, std::mem::take(&mut inherited))?),
        false => None,
    };
    let store = open_store(&config, &lock)?;
    if let Err(error) = node::keep_id(&config.data_dir) {
        tracing::warn!("node_id will be another one after a restart: {error}");
    }
    let store: Arc<dyn Store> = Arc::new(store);
    let hash_file = config.policies.hash_keys_file.clone();
    let hash_file = hash_file.unwrap_or_else(|| config.data_dir.join("hash.key"));
    let installed = admin::install_key_hash(&store, &hash_file, config.policies.hash_keys).await;
    installed.map_err(anyhow::Error::msg)?;
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

    let access_logs = AccessLogs::start(&config)?;
    let published = Arc::new(Published::new(config.proxy.route_regex_memory));
    let loaded = Arc::new(Loaded::open(&config.data_dir));
    let importer = Importer {
        store: Arc::clone(&store),
        engine: Arc::clone(&engine),
        limits: config.balancer.clone(),
        flavor: config.proxy.router_flavor,
        patterns: Arc::clone(&published.patterns),
        components: Arc::default(),
        keeps_ids: false,
    };
    let config = Arc::new(config);
    let declarative =
        declarative::Watched::load(Arc::clone(&config), importer, Arc::clone(&loaded));
    let declarative = declarative.await?;

    let mut listeners = match bound {
        Some(bound) => bound,
        None => AllListeners::bind(&config, inherited)?,
    };
    let mut socket_files = listeners.take_files();
    let shared = takeover::Shared::new(&listeners, lock);
    let shared = shared.context("cannot copy the listening sockets")?;
    let listening = Arc::new(listeners.listening());

    let probing = upstream::probe::runtime().context("cannot start the thread of the probes")?;
    let memory = Arc::new(Memory::open(&config.data_dir));
    let names = Arc::new(Names::new(&config.dns));
    let tls = ListenerTls::new(&config, &listeners, &published)?;
    let commits = store.watch()?;
    let sessions = SessionKey::open(&config.data_dir).map_err(anyhow::Error::msg)?;
    let resolver = Arc::new(Resolver::new(&config.dns));
    let resources = Resources::start(&config.policies, Arc::clone(&store), Arc::clone(&resolver));
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
    .with_router_flavor(config.proxy.router_flavor)
    .with_canary_channel(config.is_canary)
    .with_client_certificate(client_certificate);
    let mut compiling = tokio::spawn(in_place(compiler.run(commits)));
    // Traffic is accepted only once the whole stored configuration is in effect.
    tokio::select! {
        () = published.started() => {}
        _ = signals.end() => return Ok(()),
        ended = &mut compiling => anyhow::bail!("the stored configuration cannot be applied: {ended:?}"),
    }

    let wanted = WantedLimits {
        clients: config.proxy.max_connections,
        has_udp: config.stream_listen.iter().any(|listen| listen.udp),
        udp_sessions: config.proxy.max_udp_sessions,
    };
    let limits = ConnectionLimits::new(files, config.workers, wanted)?;
    let limits = Arc::new(limits);
    let headerless = listeners.headerless();
    let AllListeners {
        proxy,
        admin: admin_listeners,
        gui: gui_listeners,
        status: status_listeners,
        stream,
    } = listeners;
    let log = access_logs.requests.as_ref();
    let mut workers = Workers::start(proxy, &published, &config.proxy, &limits, tls.proxy, log)
        .context("cannot start the workers of the proxy")?;
    let log = access_logs.streams.as_ref();
    let streams =
        stream::Workers::start(stream, &published, &config.proxy, &limits, tls.stream, log)
            .context("cannot start the workers of streams")?;
    // From here on, this process is the gateway. Before, nothing that it writes may be acknowledged
    // to a client, because the process that it replaces may still go on without it.
    if let Some(asking) = predecessor.take() {
        let committed = tokio::select! {
            biased;
            _ = signals.end() => Ok(None),
            // A signal does not end this: once asked, the other process may end, and then this one
            // has to be the gateway before it ends as well.
            () = std::future::ready(()) => asking.commit().await.map(Some),
        };
        match committed {
            Ok(Some(replaced)) => predecessor = Some(replaced),
            ended => {
                let timeout = config.shutdown_timeout;
                let _ = tokio::join!(
                    workers.shut_down(timeout),
                    streams.shut_down(timeout, false)
                );
                return ended.map(drop);
            }
        }
    }
    store::end_hand_over(&config.data_dir);
    socket_files.iter_mut().for_each(SocketFile::own);
    let acme = Acme::new(
        Arc::clone(&store),
        Arc::clone(&published.challenges),
        resolver,
    );
    let acme = Arc::new(acme);
    let hand_over = takeover::HandOver {
        shared: shared.clone(),
        store: Arc::clone(&store),
        memory: Arc::clone(&memory),
        acme: Arc::clone(&acme),
        runtime: Handle::current(),
    };
    let mut successor = successor(&config, hand_over);
    // Until this process listens for successors, they queue at the replaced one.
    drop(predecessor);

    // The work of the control plane, which ends when another process does it.
    let mut work = JoinSet::new();
    let requesting = Arc::clone(&acme).run(store.watch()?);
    work.spawn(in_place(requesting));
    let writing = Arc::clone(&memory);
    work.spawn(async move { writing.write_down().await });
    let log_level = Arc::new(log_level);
    let reload = Reload {
        read: reload,
        config: Config::clone(&config),
        log_level: Arc::clone(&log_level),
        certificates: tls.certificates,
        declarative,
    };
    let reload_asked = Arc::<Notify>::default();
    work.spawn(in_place(reload.run(Arc::clone(&reload_asked))));
    let admin = Admin {
        store,
        acme,
        engine,
        published,
        names,
        counters: workers.counters.clone(),
        limits: Arc::clone(&limits),
        config: Arc::clone(&config),
        loaded: Arc::clone(&loaded),
        log_level,
        listening: Arc::clone(&listening),
        left_over: Arc::default(),
        resources: Arc::clone(&resources),
        access_log: access_logs.requests.clone(),
        stream_log: access_logs.streams.clone(),
        headerless,
        tls: tls.figures,
        streams: Arc::clone(&streams.figures),
        live: Arc::default(),
        draining: Arc::default(),
    };
    work.spawn(in_place(admin::resume_checks(admin.clone())));
    work.spawn(in_place(admin::tidy_cache(admin.clone())));
    work.spawn(admin::follow_canaries(admin.clone()));
    work.spawn(in_place(admin::make_live_events(admin.clone())));
    let live = Arc::clone(&admin.live);
    let nodes = admin.store.nodes();
    let announcing = work.spawn(in_place(admin::announce(admin.clone())));
    let commits = admin.store.watch()?;
    work.spawn(in_place(admin::remove_expired(admin.clone(), commits)));
    work.spawn(supervisor::keep_alive());
    let (stop, stopped) = watch::channel(None);
    let (gui, status) = (admin.clone(), admin.clone());
    let serving = tokio::spawn(async move {
        tokio::join!(
            admin::serve(admin_listeners, tls.admin, admin, stopped.clone()),
            admin::serve_gui(gui_listeners, tls.gui, gui, stopped.clone()),
            admin::serve_status(status_listeners, tls.status, status, stopped),
        )
    });
    tracing::info!(
        "up to {} connections of clients, with {files} open files",
        limits.max_clients
    );
    drop(starting);
    listeners::announce(&config, &listening);
    supervisor::notify("READY=1\nSTATUS=serving");

    let mut is_replaced = false;
    let reason = loop {
        tokio::select! {
            asked = signals.next() => match asked {
                SignalAction::End(signal) => break signal,
                SignalAction::Reload => reload_asked.notify_one(),
                SignalAction::Reopen => access_logs.reopen(),
                SignalAction::Replace => program.start_successor(),
            },
            Ok(pid) = &mut successor => {
                if let Some(pid) = pid {
                    supervisor::notify(&format!("MAINPID={pid}"));
                }
                is_replaced = true;
                break "another process has taken over";
            }
            // Without the compiler, changes would be acknowledged and have no effect.
            ended = &mut compiling => anyhow::bail!("the snapshot compiler has stopped: {ended:?}"),
        }
    };
    let deadline = Instant::now() + config.shutdown_timeout;
    // The last records are made when the last requests end, or are ended, and have to be sent then.
    let kept = resources.logs.hurry(config.shutdown_timeout);
    let draining = config.shutdown_timeout - kept;
    tracing::info!(
        "{reason}: no new connections; draining requests in flight for up to {draining:?}"
    );
    shared.close();
    live.close();
    announcing.abort();
    admin::leave(nodes).await;
    if is_replaced {
        program.note_replaced();
        work.abort_all();
    } else {
        supervisor::notify("STOPPING=1\nSTATUS=draining requests in flight");
    }
    stop.send_replace(Some(if is_replaced {
        ADMIN_GRACE
    } else {
        Duration::ZERO
    }));
    let administered = tokio::time::timeout(draining, serving);
    // Half of the time is for clients that are between two requests.
    let left = match is_replaced {
        true => draining / 2,
        false => Duration::ZERO,
    };
    let requests = async {
        if is_replaced {
            workers.leave(left).await;
        }
        workers.shut_down(draining - left).await
    };
    let (drained, ended, administered) = tokio::join!(
        requests,
        streams.shut_down(draining, is_replaced),
        administered
    );
    let left = deadline.saturating_duration_since(Instant::now());
    let logged = resources.logs.shut_down(left).await;
    if !logged {
        tracing::warn!("records of requests still waited to be logged");
    }
    access_logs.shut_down(left).await;
    work.abort_all();
    if is_replaced || shared.are_lent() {
        socket_files.into_iter().for_each(SocketFile::leave);
    } else if let Err(error) = memory.save() {
        tracing::warn!("cannot write the health of targets: {error}");
    }
    if drained && ended && administered.is_ok() {
        tracing::info!("all requests drained");
    } else {
        tracing::warn!("requests were still in flight after {draining:?}");
    }
    Ok(())
}

/// Waits for a process that takes over. Without a socket for it, none can.
fn successor(config: &Config, hand_over: takeover::HandOver) -> oneshot::Receiver<Option<i32>> {
    let shared = hand_over.shared.clone();
    let serving = takeover::Successors::listen(&config.data_dir)
        .and_then(|successors| successors.serve(hand_over));
    serving.unwrap_or_else(|error| {
        tracing::warn!("no other process can take over: {error}");
        shared.close();
        oneshot::channel().1
    })
}

/// How long connections to the Admin API may begin a request when another process has taken over.
const ADMIN_GRACE: Duration = Duration::from_secs(1);
