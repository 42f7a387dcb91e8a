//! Every setting.
//!
//! A new setting is an entry here and a field of [`Config`](super::Config). The flag, the variable,
//! the key in the file, `--help`, the check and the row in README follow from the entry; a test
//! prints the rows that README lacks.

mod access_log;
mod clients;
mod etcd;
mod listeners;
mod tls;
mod traces;

use super::declaration::{
    DefaultValue, KIB, Kind, MIB, MICROSECONDS, MILLISECONDS, ONE, SECONDS, Section, Setting,
};
use super::readers;

use DefaultValue::{Computed, Unset, Written};
use Kind::{List, Number, Path, Size, Text, Time};

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
        settings: listeners::SETTINGS,
    },
    Section {
        title: "TLS of listeners",
        settings: tls::SETTINGS,
    },
    Section {
        title: "Clients and their requests",
        settings: clients::SETTINGS,
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
        title: "Traces",
        settings: traces::SETTINGS,
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
            value: "on|off",
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
        about: "Largest memory of one instance of a balancer; besides that one memory it may have 8 \
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
            expected: "the second line of a minisign.pub file, which begins with RW; leave it out for \
                       none",
            set: |config, entries| {
                let entries = readers::non_empty(entries)?;
                config.balancer.public_keys = readers::each(entries, readers::public_key)?;
                Ok(())
            },
        },
        default: Unset("none, and no signature is asked for"),
    },
];
