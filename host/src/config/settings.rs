//! Every setting.
//!
//! A new setting is an entry here and a field of [`Config`](super::Config). The flag, the variable,
//! the key in the file, `--help`, the check and the row in README follow from the entry; a test
//! prints the rows that README lacks.

mod access_log;
mod etcd;
mod tls;

use super::debug_token::DebugToken;
use super::declaration::{
    BYTES, BYTES_PER_SECOND, DefaultValue, KIB, Kind, MIB, MICROSECONDS, MILLISECONDS, ONE,
    SECONDS, Section, Setting,
};
use super::listen::Subsystem::{Http, Stream};
use super::readers;
use super::real_ip::{RealIpSource, TrustedIps};
use super::response_headers::{self, ResponseHeaders};
use super::router_flavor::RouterFlavor;

use DefaultValue::{Computed, Unset, Written};
use Kind::{List, Listen, Number, Path, Size, Text, Time};

/// The file with all other settings, which therefore cannot be set in it.
pub(super) static FILE: Setting = Setting {
    name: "config",
    about: "TOML file with settings",
    kind: Path("FILE", |config, path| config.file = Some(path)),
    default: Unset("none"),
};

/// All settings, in the order in which they are shown.
pub(super) static SECTIONS: &[Section] = &[
    Section {
        title: "Process",
        settings: PROCESS,
    },
    Section {
        title: "Store",
        settings: etcd::SETTINGS,
    },
    Section {
        title: "Listeners",
        settings: LISTENERS,
    },
    Section {
        title: "TLS of listeners",
        settings: tls::SETTINGS,
    },
    Section {
        title: "Clients and their requests",
        settings: CLIENTS,
    },
    Section {
        title: "Connections to endpoints",
        settings: ENDPOINTS,
    },
    Section {
        title: "Access log",
        settings: access_log::SETTINGS,
    },
    Section {
        title: "DNS",
        settings: DNS,
    },
    Section {
        title: "Policies",
        settings: POLICIES,
    },
    Section {
        title: "Balancers",
        settings: BALANCERS,
    },
];

/// Every setting but [`FILE`].
pub(super) fn all() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

const PROCESS: &[Setting] = &[
    Setting {
        name: "data_dir",
        about: "Folder for entities, components and their compiled forms; made if it is missing",
        kind: Path("DIR", |config, path| config.data_dir = path),
        default: Written("pointsman-data"),
    },
    Setting {
        name: "database",
        about: "`on`: the Admin API changes entities, which are kept in `data_dir`; `off`: only a \
                [declarative configuration](docs/declarative.md#without-a-database) as a whole does",
        kind: Text {
            value: "on|off",
            expected: "on or off",
            set: |config, text| readers::switch(text).map(|on| config.database = on),
        },
        default: Written("on"),
    },
    Setting {
        name: "declarative_config",
        about: "[Declarative configuration](docs/declarative.md), YAML or JSON, that is loaded at the \
                start, and again when the file changes and on SIGHUP, with `database` `off`",
        kind: Path("FILE", |config, path| {
            config.declarative_config = Some(path);
        }),
        default: Unset("none: the last one that was loaded"),
    },
    Setting {
        name: "declarative_config_string",
        about: "The same as a text",
        kind: Text {
            value: "TEXT",
            expected: "a declarative configuration",
            set: |config, text| {
                config.declarative_config_string = Some(text.to_owned());
                Some(())
            },
        },
        default: Unset("none"),
    },
    Setting {
        name: "workers",
        about: "Worker threads of the proxy",
        kind: Number(ONE, 1..=1024, |config, n| config.workers = n as usize),
        default: Computed("one for each core", readers::cores),
    },
    Setting {
        name: "log",
        about: "What is logged: `off`, `error`, `warn`, `info`, `debug`, `trace`, or directives such \
                as `info,pointsman=debug`",
        kind: Text {
            value: "LEVEL",
            expected: "off, error, warn, info, debug, trace, or directives such as \
                       info,pointsman=debug",
            set: |config, text| readers::log(text).map(|log| config.log = log),
        },
        default: Written("info"),
    },
    Setting {
        name: "take_over",
        about: "`on` [replaces a gateway](docs/operating.md#replacing-a-running-gateway) that runs on \
                the same `data_dir`, without a lost request; `off` does not start beside it",
        kind: Text {
            value: "on|off",
            expected: "on or off",
            set: |config, text| readers::switch(text).map(|on| config.take_over = on),
        },
        default: Written("off"),
    },
    Setting {
        name: "shutdown_timeout",
        about: "Longest time that requests in flight are waited for at shutdown",
        kind: Time(SECONDS, 0..=3600, |config, time| {
            config.shutdown_timeout = time;
        }),
        default: Written("30"),
    },
];

const LISTENERS: &[Setting] = &[
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
        about: "[Addresses](docs/listeners.md#the-status-listener) that tell the state of the \
                gateway, to probes and Prometheus; `off` for none",
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
        about: "URLs of [web pages](docs/operating.md#web-pages), such as Kong Manager's, that may \
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
        about: "[Tokens](docs/operating.md#access-to-the-admin-api) of which each request to the \
                Admin API needs one, as `name:read-write:SHA-256` or `name:read-only:SHA-256`",
        kind: List {
            value: "TOKENS",
            expected: "tokens with different names, as pointsman admin-token prints their entries, \
                       separated by commas",
            set: |config, entries| {
                config.admin_access.tokens = readers::admin_tokens(entries)?;
                Ok(())
            },
        },
        default: Unset("none, and every client that reaches the Admin API may use it"),
    },
];

const CLIENTS: &[Setting] = &[
    Setting {
        name: "trusted_ips",
        about: "Peers that are [believed](docs/client-address.md) when they say who their clients \
                are: addresses, ranges such as `10.0.0.0/8`, and `unix:` for Unix sockets",
        kind: List {
            value: "IPS",
            expected: "a comma separated list in the form of IPv4 or IPv6 address or CIDR block or \
                       'unix:'",
            set: |config, entries| {
                config.proxy.real_ip.trusted = TrustedIps::parse(entries)?;
                Ok(())
            },
        },
        default: Unset("none"),
    },
    Setting {
        name: "real_ip_header",
        about: "Where trusted peers say who the client of a request is: the name of a header, or \
                `proxy_protocol`",
        kind: Text {
            value: "NAME",
            expected: "the name of a header, or proxy_protocol",
            set: |config, text| {
                RealIpSource::parse(text).map(|source| config.proxy.real_ip.source = source)
            },
        },
        default: Written("X-Real-IP"),
    },
    Setting {
        name: "real_ip_recursive",
        about: "Which address of a list in `real_ip_header` is the client's: `off`, the \
                last one; `on`, the last one that is not trusted",
        kind: Text {
            value: "on|off",
            expected: "on or off",
            set: |config, text| readers::switch(text).map(|on| config.proxy.real_ip.recursive = on),
        },
        default: Written("off"),
    },
    Setting {
        name: "headers",
        about: "[Headers](docs/operating.md#headers-of-responses) that the gateway adds to responses: \
                `server_tokens` (`Server`, `Via`), `latency_tokens`, `X-Kong-Upstream-Status`, \
                `X-Kong-Request-Id`, or single ones by name; `off` for none",
        kind: List {
            value: "NAMES",
            expected: "server_tokens, latency_tokens, Server, Via, X-Kong-Upstream-Latency, \
                       X-Kong-Proxy-Latency, X-Kong-Response-Latency, X-Kong-Admin-Latency, \
                       X-Kong-Upstream-Status, X-Kong-Request-Id, or off",
            set: |config, entries| {
                config.proxy.headers = ResponseHeaders::parse(entries)?;
                Ok(())
            },
        },
        default: Written(response_headers::DEFAULT),
    },
    Setting {
        name: "debug_token",
        about: "Token by which a client may [ask what has happened](docs/operating.md#debugging-a-request) \
                to its request, in the header `Pointsman-Debug`",
        kind: Text {
            value: "TOKEN",
            expected: "at least 16 printable characters of ASCII, without spaces",
            set: |config, text| {
                config.proxy.debug_token = Some(DebugToken::parse(text)?);
                Some(())
            },
        },
        default: Unset("none, and the header is ignored"),
    },
    Setting {
        name: "max_connections",
        about: "Connections of clients that the proxy serves at once, over all workers; further \
                ones are answered 503",
        kind: Number(ONE, 1..=1_000_000, |config, n| {
            config.proxy.max_connections = Some(n as usize);
        }),
        default: Unset("50000, or as many as the limit of open files suffices for"),
    },
    Setting {
        name: "max_udp_sessions",
        about: "[Sessions of UDP](docs/streams.md#udp) at once, over all workers; a further one takes the place of \
                one that is idle for a second, or is refused; they are not counted in `max_connections`",
        kind: Number(ONE, 1..=1_000_000, |config, n| {
            config.proxy.max_udp_sessions = Some(n as usize);
        }),
        default: Unset("10000, or a quarter of what the limit of open files allows"),
    },
    Setting {
        name: "max_connections_per_address",
        about: "Connections that are served at once for [one address](docs/operating.md#connections-and-memory) \
                of a client, or one /64 network of IPv6, to the proxy and of streams together; further ones \
                are closed; addresses of `trusted_ips` \
                have no limit; 0 sets none",
        kind: Number(ONE, 0..=1_000_000, |config, n| {
            config.proxy.max_connections_per_address = (n > 0).then_some(n);
        }),
        default: Written("0"),
    },
    Setting {
        name: "client_header_timeout",
        about: "Longest time for a client to send the head of a request, and for an idle connection \
                to send the next one",
        kind: Time(SECONDS, 1..=3600, |config, time| {
            config.proxy.client_header_timeout = time;
        }),
        default: Written("60"),
    },
    Setting {
        name: "client_body_timeout",
        about: "Longest time between two reads of a request's body",
        kind: Time(SECONDS, 1..=3600, |config, time| {
            config.proxy.client_body_timeout = time;
        }),
        default: Written("60"),
    },
    Setting {
        name: "client_body_min_rate",
        about: "Slowest rate at which a request's body may come in after the first \
                `client_body_timeout`, on routes with `request_buffering`; 0 sets no limit",
        kind: Number(BYTES_PER_SECOND, 0..=1_000_000, |config, rate| {
            config.proxy.client_body_min_rate = rate;
        }),
        default: Written("500"),
    },
    Setting {
        name: "client_body_buffer_size",
        about: "Part of a request's body that is read before an endpoint is asked, on routes with \
                `request_buffering`; a longer body is passed on as it comes",
        kind: Size(BYTES, 0..=1_048_576, |config, size| {
            config.proxy.client_body_buffer_size = size;
        }),
        default: Written("65536"),
    },
    Setting {
        name: "client_half_close_timeout",
        about: "Longest wait for the next part of a response to a client that has closed its sending \
                side; after that the client is taken to be gone",
        kind: Time(SECONDS, 1..=3600, |config, time| {
            config.proxy.client_half_close_timeout = time;
        }),
        default: Written("5"),
    },
    Setting {
        name: "max_header_size",
        about: "Largest head of a request (a larger one is answered 431, or 414 if its request line \
                alone is larger) or of a response (502); a response may have up to 24,000 header \
                fields",
        kind: Size(BYTES, 8192..=1_048_576, |config, size| {
            config.proxy.max_header_size = size;
        }),
        default: Written("32768"),
    },
    Setting {
        name: "max_headers",
        about: "Most header fields of a request (more are answered 431); more than 100 cost memory \
                for each request",
        kind: Number(ONE, 100..=1000, |config, n| {
            config.proxy.max_headers = n as usize;
        }),
        default: Written("100"),
    },
    Setting {
        name: "http_keepalive_requests",
        about: "Requests after which a client's connection is closed; over HTTP/2 the requests in \
                flight are answered first; 0 sets no limit",
        kind: Number(ONE, 0..=u32::MAX, |config, n| {
            config.proxy.http_keepalive_requests = (n > 0).then_some(n);
        }),
        default: Written("10000"),
    },
    Setting {
        name: "http2_max_concurrent_streams",
        about: "[Requests at the same time](docs/http2.md) on one connection of HTTP/2",
        kind: Number(ONE, 1..=10_000, |config, n| {
            config.proxy.http2_max_concurrent_streams = n;
        }),
        default: Written("128"),
    },
    Setting {
        name: "http2_stream_window_size",
        about: "Part of a request's body that a client of HTTP/2 may send before it is read",
        kind: Number(BYTES, 16_384..=16_777_216, |config, n| {
            config.proxy.http2_stream_window_size = n;
        }),
        default: Written("65536"),
    },
    Setting {
        name: "http2_connection_window_size",
        about: "The same for all requests of a connection together",
        kind: Number(BYTES, 65_535..=268_435_456, |config, n| {
            config.proxy.http2_connection_window_size = n;
        }),
        default: Written("1048576"),
    },
    Setting {
        name: "http2_max_rapid_resets",
        about: "Requests that a client of HTTP/2 may cancel within a second of sending them, beyond \
                as many as were answered; after that its connection is closed",
        kind: Number(ONE, 0..=1_000_000, |config, n| {
            config.proxy.http2_max_rapid_resets = n;
        }),
        default: Written("200"),
    },
    Setting {
        name: "http2_max_pending_resets",
        about: "Requests that a client of HTTP/2 may cancel before a worker has seen them",
        kind: Number(ONE, 1..=10_000, |config, n| {
            config.proxy.http2_max_pending_resets = n as usize;
        }),
        default: Written("20"),
    },
    Setting {
        name: "http2_max_error_resets",
        about: "Streams of a connection that a client of HTTP/2 may have the gateway reset, by \
                errors or by more requests at the same time than allowed",
        kind: Number(ONE, 1..=1_000_000, |config, n| {
            config.proxy.http2_max_error_resets = n as usize;
        }),
        default: Written("1024"),
    },
    Setting {
        name: "router_flavor",
        about: "How routes are written: by fields such as `hosts` and `paths`, \
                `traditional_compatible`; the same, with the effect of `path_handling`, \
                `traditional`; or by fields or an [expression](docs/expressions.md), `expressions`",
        kind: Text {
            value: "FLAVOR",
            expected: "traditional_compatible, traditional or expressions",
            set: |config, text| {
                RouterFlavor::parse(text).map(|flavor| config.proxy.router_flavor = flavor)
            },
        },
        default: Written("traditional_compatible"),
    },
    Setting {
        name: "route_regex_memory",
        about: "Largest memory of the regular expressions of all routes together, compiled, with the \
                cache that one worker keeps for each; a route that would exceed it is refused by \
                400, or has no effect after a start",
        kind: Size(MIB, 1..=65_536, |config, size| {
            config.proxy.route_regex_memory = size;
        }),
        default: Written("512"),
    },
];

const ENDPOINTS: &[Setting] = &[
    Setting {
        name: "upstream_keepalive_pool_size",
        about: "Idle connections kept to each endpoint, by each worker; 0 keeps none",
        kind: Number(ONE, 0..=1_000_000, |config, n| {
            config.proxy.keepalive_pool_size = n as usize;
        }),
        default: Written("512"),
    },
    Setting {
        name: "upstream_keepalive_max_requests",
        about: "Requests after which a connection to an endpoint is closed; 0 sets no limit",
        kind: Number(ONE, 0..=u32::MAX, |config, n| {
            config.proxy.keepalive_max_requests = (n > 0).then_some(n);
        }),
        default: Written("10000"),
    },
    Setting {
        name: "upstream_keepalive_idle_timeout",
        about: "Time after which an idle connection to an endpoint is closed; 0 sets no limit",
        kind: Time(SECONDS, 0..=86_400, |config, time| {
            config.proxy.keepalive_idle_timeout = (!time.is_zero()).then_some(time);
        }),
        default: Written("60"),
    },
    Setting {
        name: "client_ssl",
        about: "Whether the gateway shows `client_ssl_cert` to endpoints that ask for a \
                certificate and whose service and upstream name none: `on` or `off`",
        kind: Text {
            value: "ON|OFF",
            expected: "on or off",
            set: |config, text| readers::switch(text).map(|on| config.client_ssl.on = on),
        },
        default: Written("off"),
    },
    Setting {
        name: "client_ssl_cert",
        about: "Certificate for `client_ssl`, with the chain behind it: the path of a file in PEM, \
                the PEM text itself, or its base64",
        kind: Text {
            value: "CERT",
            expected: "a path, a text in PEM, or its base64",
            set: |config, text| {
                config.client_ssl.certificate = Some(text.to_owned());
                Some(())
            },
        },
        default: Unset("none"),
    },
    Setting {
        name: "client_ssl_cert_key",
        about: "Private key of `client_ssl_cert`, in the same forms",
        kind: Text {
            value: "KEY",
            expected: "a path, a text in PEM, or its base64",
            set: |config, text| {
                config.client_ssl.key = Some(text.to_owned());
                Some(())
            },
        },
        default: Unset("none"),
    },
];

const DNS: &[Setting] = &[
    Setting {
        name: "dns_resolver",
        about: "DNS servers, as ADDR or ADDR:PORT",
        kind: List {
            value: "ADDRS",
            expected: "addresses, such as 192.0.2.53,[2001:db8::53]:5353",
            set: |config, entries| {
                config.dns.resolvers = readers::each(entries, readers::dns_server)?;
                Ok(())
            },
        },
        default: Unset("those of `/etc/resolv.conf`"),
    },
    Setting {
        name: "dns_order",
        about: "Types of DNS records that are looked for, in this order: `SRV`, `A`, `AAAA`, and \
                `LAST` for the type that had an answer the last time; `CNAME`, which Kong has as \
                well, changes nothing",
        kind: List {
            value: "TYPES",
            expected: "SRV, A or AAAA, some of them, and LAST and CNAME if wanted, separated by \
                       commas",
            set: |config, entries| {
                config.dns.order = readers::dns_order(entries)?;
                Ok(())
            },
        },
        default: Written("LAST,SRV,A,AAAA,CNAME"),
    },
    Setting {
        name: "dns_hostsfile",
        about: "Names that need no DNS, in the form of `/etc/hosts`; read again when it changes",
        kind: Path("FILE", |config, path| config.dns.hosts_file = path),
        default: Written("/etc/hosts"),
    },
    Setting {
        name: "dns_min_ttl",
        about: "Shortest time between two look-ups of a name, whatever its records say",
        kind: Time(MILLISECONDS, 10..=3_600_000, |config, time| {
            config.dns.min_ttl = time;
        }),
        default: Written("1000"),
    },
];

const POLICIES: &[Setting] = &[
    Setting {
        name: "proxy_cache_memory",
        about: "Memory of the responses that all `proxy-cache` plugins together store, a quarter of it \
                for those that are being received; a response that takes more than a sixteenth of \
                it is not stored",
        kind: Size(MIB, 1..=65_536, |config, size| {
            config.policies.proxy_cache_memory = size;
        }),
        default: Written("128"),
    },
    Setting {
        name: "proxy_cache_lock_timeout",
        about: "Longest wait for a response that another request is fetching for the cache; after \
                that a request asks an endpoint itself; 0 waits for none",
        kind: Time(MILLISECONDS, 0..=3_600_000, |config, time| {
            config.policies.proxy_cache_lock_timeout = time;
        }),
        default: Written("5000"),
    },
    Setting {
        name: "syslog_socket",
        about: "Local socket of the system's log, which the plugin `syslog` writes to",
        kind: Path("PATH", |config, path| config.policies.syslog_socket = path),
        default: Written("/dev/log"),
    },
    Setting {
        name: "hash_keys",
        about: "`on` stores the keys of `key-auth` as [keyed \
                hashes](docs/authentication.md#keys-as-hashes), those included that are stored \
                already; `off` stores further ones in clear",
        kind: Text {
            value: "on|off",
            expected: "on or off",
            set: |config, text| readers::switch(text).map(|on| config.policies.hash_keys = on),
        },
        default: Written("off"),
    },
    Setting {
        name: "hash_keys_file",
        about: "File with the secret key of these hashes, 64 hexadecimal digits; made if it is \
                missing. Gateways with the same credentials need the same file",
        kind: Path("FILE", |config, path| {
            config.policies.hash_keys_file = Some(path);
        }),
        default: Unset("`hash.key` in `data_dir`"),
    },
];

const BALANCERS: &[Setting] = &[
    Setting {
        name: "balancer_pick_timeout",
        about: "Longest CPU time of one pick by a balancer; past it the gateway makes a fallback pick",
        kind: Time(MILLISECONDS, 1..=10_000, |config, time| {
            config.balancer.pick_timeout = time;
        }),
        default: Written("10"),
    },
    Setting {
        name: "balancer_pick_cost",
        about: "CPU time of a pick that is not charged. What picks take beyond it is \
                charged to a budget that refills at 0.5 % of the time that passes; while it is \
                overdrawn, the gateway makes fallback picks",
        kind: Time(MICROSECONDS, 1..=10_000_000, |config, time| {
            config.balancer.pick_cost = time;
        }),
        default: Written("100"),
    },
    Setting {
        name: "balancer_memory",
        about: "Largest memory of one instance of a balancer; beside that one memory it may have 8 \
                tables of 10,000 elements, 8 core modules and 256 KiB of stack",
        kind: Size(KIB, 64..=65_536, |config, size| {
            config.balancer.memory = size;
        }),
        default: Written("16384"),
    },
    Setting {
        name: "balancer_state",
        about: "Largest state that an instance of a balancer hands over to the next; 0 hands over \
                nothing",
        kind: Size(KIB, 0..=65_536, |config, size| {
            config.balancer.state = size;
        }),
        default: Written("1024"),
    },
    Setting {
        name: "balancer_upload",
        about: "Largest component that the Admin API takes",
        kind: Size(KIB, 1..=65_536, |config, size| {
            config.balancer.upload = size;
        }),
        default: Written("4096"),
    },
    Setting {
        name: "balancer_compile_timeout",
        about: "Longest time to compile an uploaded component; half as many at a time as there are \
                cores, 1 to 4, each with 2 GiB of memory at most",
        kind: Time(SECONDS, 1..=600, |config, time| {
            config.balancer.compile_timeout = time;
        }),
        default: Written("30"),
    },
    Setting {
        name: "balancer_public_keys",
        about: "minisign public keys, one of which must have signed every component that is uploaded",
        kind: List {
            value: "KEYS",
            expected: "the second line of a minisign.pub file, which begins with RW",
            set: |config, entries| {
                config.balancer.public_keys = readers::each(entries, readers::public_key)?;
                Ok(())
            },
        },
        default: Unset("none, and no signature is asked for"),
    },
];
