//! The settings of what the gateway listens on.

use super::super::declaration::DefaultValue::{Unset, Written};
use super::super::declaration::Kind::{List, Listen, Text};
use super::super::declaration::Setting;
use super::super::listen::Subsystem::{Http, Stream};
use super::super::readers;

/// Addresses, and who may use the Admin API.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "proxy_listen",
        about: "[Addresses](docs/listeners.md) that the proxy listens on, with Kong's flags; port 0 \
                takes a free one; `off` for none",
        kind: Listen(Http, |config, listens| config.proxy_listen = listens),
        default: Written(
            "0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl reuseport backlog=16384",
        ),
    },
    Setting {
        name: "admin_listen",
        about: "[Addresses](docs/listeners.md) that the Admin API listens on; port 0 takes a free \
                one; `off` for none",
        kind: Listen(Http, |config, listens| config.admin_listen = listens),
        default: Written(
            "127.0.0.1:8001 reuseport backlog=16384, \
             127.0.0.1:8444 http2 ssl reuseport backlog=16384",
        ),
    },
    Setting {
        name: "status_listen",
        about: "[Addresses](docs/listeners.md#the-status-listener) that serve the state of \
                the gateway, to probes and Prometheus; `off` for none",
        kind: Listen(Http, |config, listens| config.status_listen = listens),
        default: Written("127.0.0.1:8007 reuseport backlog=16384"),
    },
    Setting {
        name: "stream_listen",
        about: "[Addresses](docs/streams.md) that take TCP, TLS and UDP for the routes of streams, \
                with Kong's flags; port 0 takes a free one; `off` for none",
        kind: Listen(Stream, |config, listens| config.stream_listen = listens),
        default: Written("off"),
    },
    Setting {
        name: "admin_gui_listen",
        about: "[Addresses](docs/listeners.md) that the [page](docs/page.md) for operators is served \
                on, with the Admin API below `/api`; port 0 takes a free one; `off` for none. \
                Unless set, there is none if `admin_listen` has no address of IP, or if the address \
                is in use",
        kind: Listen(Http, |config, listens| config.gui_listen = listens),
        default: Written("127.0.0.1:8002 reuseport backlog=16384"),
    },
    Setting {
        name: "admin_gui_path",
        about: "Path that the page has behind a proxy, such as `/manager`",
        kind: Text {
            value: "PATH",
            expected: "a path such as /manager: segments of letters, digits, -, _ and .",
            set: |config, text| readers::prefix(text).map(|path| config.gui_path = path),
        },
        default: Written("/"),
    },
    Setting {
        name: "admin_gui_url",
        about: "URLs of [web pages](docs/admin-api.md#web-pages), such as Kong Manager's, that may \
                use the Admin API from within a browser; pages on the same machine always may",
        kind: List {
            value: "URLS",
            expected: "URLs, such as http://localhost:8002, separated by commas",
            set: |config, entries| {
                let pages = readers::each(entries, readers::page)?;
                (config.admin_access.urls, config.admin_access.origins) = pages.into_iter().unzip();
                Ok(())
            },
        },
        default: Unset("none"),
    },
    Setting {
        name: "admin_hosts",
        about: "Host names that the Admin API answers for besides addresses and `localhost`",
        kind: List {
            value: "NAMES",
            expected: "host names without port, such as admin.example.com, separated by commas",
            set: |config, entries| {
                config.admin_access.hosts = readers::each(entries, readers::host_name)?;
                Ok(())
            },
        },
        default: Unset("none"),
    },
    Setting {
        name: "admin_tokens",
        about: "[Tokens](docs/admin-api.md#access-to-the-admin-api) of which each request to the \
                Admin API needs one, as `name:read-write:SHA-256` or `name:read-only:SHA-256`",
        kind: List {
            value: "TOKENS",
            expected: "tokens with different names, as pointsman admin-token prints their entries, \
                       separated by commas; leave it out for none",
            set: |config, entries| {
                let entries = readers::non_empty(entries)?;
                config.admin_access.tokens = readers::admin_tokens(entries)?;
                Ok(())
            },
        },
        default: Unset("none, and every client that reaches the Admin API may use it"),
    },
];
