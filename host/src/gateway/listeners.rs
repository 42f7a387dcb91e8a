//! The sockets of all lists of addresses.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::json;

use crate::admin::Listening;
use crate::config::{Config, Listen};
use crate::listener::{Inherited, ListenerUser, Listeners, SocketFile};

const PROXY: ListenerUser = ListenerUser {
    name: "the proxy",
    setting: "proxy_listen",
};

const ADMIN: ListenerUser = ListenerUser {
    name: "the Admin API",
    setting: "admin_listen",
};

const GUI: ListenerUser = ListenerUser {
    name: "the page",
    setting: "admin_gui_listen",
};

const STREAM: ListenerUser = ListenerUser {
    name: "streams",
    setting: "stream_listen",
};

const STATUS: ListenerUser = ListenerUser {
    name: "the state of the gateway",
    setting: "status_listen",
};

/// The sockets of all lists of addresses.
pub(super) struct AllListeners {
    pub(super) proxy: Listeners,
    pub(super) admin: Listeners,
    pub(super) gui: Listeners,
    pub(super) status: Listeners,
    pub(super) stream: Listeners,
}

impl AllListeners {
    /// Opens the sockets, unless they are inherited.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub(super) fn bind(config: &Config, mut inherited: Inherited) -> anyhow::Result<Self> {
        let workers = config.workers;
        let bound = Self {
            proxy: Listeners::bind(&config.proxy_listen, workers, PROXY, &mut inherited)?,
            admin: Listeners::bind(&config.admin_listen, 1, ADMIN, &mut inherited)?,
            gui: page(config, &mut inherited)?,
            status: Listeners::bind(&config.status_listen, 1, STATUS, &mut inherited)?,
            stream: Listeners::bind(&config.stream_listen, workers, STREAM, &mut inherited)?,
        };
        for address in inherited.left() {
            tracing::info!("the settings no longer have the address {address}");
        }
        for (setting, listeners) in bound.by_setting() {
            for listen in listeners.listens.iter().filter(|listen| listen.deferred) {
                tracing::warn!(
                    "{setting}: the flag deferred of {} has no effect: connections that send nothing \
                     are accepted, and closed after client_header_timeout",
                    listen.address
                );
            }
        }
        for socket in inherited.unused() {
            tracing::warn!(
                "the supervisor has passed a socket that no setting has an address for, and it is \
                 not used: {socket}"
            );
        }
        Ok(bound)
    }

    pub(super) fn by_setting(&self) -> [(&'static str, &Listeners); 5] {
        [
            (PROXY.setting, &self.proxy),
            (ADMIN.setting, &self.admin),
            (GUI.setting, &self.gui),
            (STATUS.setting, &self.status),
            (STREAM.setting, &self.stream),
        ]
    }

    /// The files of the Unix sockets, which are removed when they are dropped.
    pub(super) fn take_files(&mut self) -> Vec<SocketFile> {
        let lists = [
            &mut self.proxy,
            &mut self.admin,
            &mut self.gui,
            &mut self.status,
            &mut self.stream,
        ];
        let files = lists.map(|listeners| std::mem::take(&mut listeners.files));
        files.into_iter().flatten().collect()
    }

    /// The counters of connections without the header of the PROXY protocol, by what listens.
    pub(super) fn headerless(&self) -> [(&'static str, Arc<AtomicU64>); 5] {
        [
            ("proxy", &self.proxy),
            ("admin", &self.admin),
            ("gui", &self.gui),
            ("status", &self.status),
            ("stream", &self.stream),
        ]
        .map(|(name, listeners)| (name, Arc::clone(&listeners.headerless)))
    }

    pub(super) fn listening(&self) -> Listening {
        Listening {
            proxy: self.proxy.listens.clone(),
            admin: self.admin.listens.clone(),
            gui: self.gui.listens.clone(),
            status: self.status.listens.clone(),
            stream: self.stream.listens.clone(),
        }
    }
}

/// The sockets of the page. Where only the default says so, the gateway goes on without the page if
/// its address is in use: another gateway on this machine has it, or Kong Manager.
fn page(config: &Config, inherited: &mut Inherited) -> anyhow::Result<Listeners> {
    let bound = Listeners::bind(&config.gui_listen, 1, GUI, inherited);
    let in_use = |error: &anyhow::Error| {
        let mut causes = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>());
        causes.any(|cause| cause.kind() == io::ErrorKind::AddrInUse)
    };
    match bound {
        Err(error) if in_use(&error) && !config.written.contains(&GUI.setting) => {
            tracing::warn!(
                "{error:#}: this gateway has no page; set admin_gui_listen to another address, or to \
                 off to leave it out without this warning"
            );
            Listeners::bind(&[], 1, GUI, inherited)
        }
        bound => bound,
    }
}

/// Announces that the gateway is ready: in the log for people, and as one line of JSON on standard
/// output for programs, which need the address if they have set port 0.
pub(super) fn announce(config: &Config, listening: &Listening) {
    let data_dir = config
        .data_dir
        .canonicalize()
        .unwrap_or_else(|_| config.data_dir.clone());
    let Listening {
        proxy,
        admin,
        gui,
        status,
        stream,
    } = listening;
    tracing::info!(
        "proxy listens on {}, with {} workers",
        list(proxy),
        config.workers
    );
    tracing::info!("Admin API listens on {}", list(admin));
    if !gui.is_empty() {
        tracing::info!("the page for operators is at {}", list(gui));
    }
    if !status.is_empty() {
        tracing::info!("Status API listens on {}", list(status));
    }
    if !stream.is_empty() {
        tracing::info!("streams are taken on {}", list(stream));
    }
    let open = (admin.iter().chain(gui)).find(|listen| !listen.address.is_local());
    if let Some(open) = open.filter(|_| config.admin_access.tokens.is_empty()) {
        tracing::warn!(
            "EVERY CLIENT THAT REACHES {} CAN CHANGE ALL OF THE CONFIGURATION: the Admin API \
             listens beyond this machine and needs no token; set admin_tokens, or let admin_listen \
             and admin_gui_listen be addresses such as 127.0.0.1:8001",
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
            "gui": texts(gui),
            "status": texts(status),
            "stream": texts(stream),
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
    let addresses = listens.iter().map(|listen| match (listen.ssl, listen.udp) {
        (true, _) => format!("{} (TLS)", listen.address),
        (false, true) => format!("{} (UDP)", listen.address),
        (false, false) => listen.address.to_string(),
    });
    match addresses.collect::<Vec<_>>().as_slice() {
        [] => "no address".to_owned(),
        addresses => addresses.join(", "),
    }
}
