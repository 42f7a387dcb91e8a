//! The settings of TLS towards clients.

use super::super::declaration::{DefaultValue, Kind, Setting};
use super::super::{Config, readers, tls};

use DefaultValue::{Unset, Written};
use Kind::{List, Text};

/// What stands in place of a certificate that is not set.
const GENERATED: &str = "generated, and kept in the data folder";

/// A list of certificates or of keys.
const fn files(
    name: &'static str,
    about: &'static str,
    default: &'static str,
    set: fn(&mut Config, &[&str]) -> Result<(), Vec<String>>,
) -> Setting {
    Setting {
        name,
        about,
        kind: List {
            value: "FILES",
            expected: "paths, PEM, or PEM in base64, separated by commas",
            set,
        },
        default: Unset(default),
    }
}

/// Versions, cipher suites, and certificates of each list of addresses.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "ssl_cipher_suite",
        about: "[Versions and ciphers](docs/tls.md#versions-and-ciphers) that clients may use: \
                `modern` (TLS 1.3), `intermediate` (TLS 1.2 and 1.3) or `custom`, which the next \
                three settings define",
        kind: Text {
            value: "NAME",
            expected: "modern, intermediate or custom; Kong's old and fips need versions and \
                       ciphers that are not offered here",
            set: |config, text| tls::suite(text).map(|suite| config.tls.cipher_suite = suite),
        },
        default: Written("intermediate"),
    },
    Setting {
        name: "ssl_protocols",
        about: "Versions of `custom`: `TLSv1.2`, `TLSv1.3`, or both, separated by spaces",
        kind: Text {
            value: "VERSIONS",
            expected: "TLSv1.2 and TLSv1.3, or one of them; older versions are not offered",
            set: |config, text| tls::protocols(text).map(|all| config.tls.protocols = all),
        },
        default: Written("TLSv1.2 TLSv1.3"),
    },
    Setting {
        name: "ssl_ciphers",
        about: "Cipher suites that `custom` has of TLS 1.2, as OpenSSL names them, separated by \
                colons; TLS 1.3 has all of its own",
        kind: Text {
            value: "CIPHERS",
            expected: "names among ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-ECDSA-AES256-GCM-SHA384, \
                       ECDHE-ECDSA-CHACHA20-POLY1305 and the same with ECDHE-RSA, separated by \
                       colons",
            set: |config, text| tls::ciphers(text).map(|all| config.tls.ciphers = all),
        },
        default: Written(
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
             ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
             ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305",
        ),
    },
    Setting {
        name: "ssl_prefer_server_ciphers",
        about: "Whose order of ciphers decides in `custom`: `on`, that of `ssl_ciphers`; \
                `off`, the client's",
        kind: Text {
            value: "SWITCH",
            expected: "on or off",
            set: |config, text| {
                readers::switch(text).map(|on| config.tls.prefer_server_ciphers = on)
            },
        },
        default: Written("on"),
    },
    Setting {
        name: "ssl_session_tickets",
        about: "`on`: clients get session tickets; `off`: only sessions in the cache are \
                [resumed](docs/tls.md#sessions)",
        kind: Text {
            value: "SWITCH",
            expected: "on or off",
            set: |config, text| readers::switch(text).map(|on| config.tls.sessions.tickets = on),
        },
        default: Written("on"),
    },
    Setting {
        name: "ssl_session_cache_size",
        about: "Size of the cache of sessions of clients without tickets; 4,000 fit in a megabyte, \
                and with 0 there is none",
        kind: Text {
            value: "SIZE",
            expected: "a number of bytes, such as 10m or 512k, up to 1024m",
            set: |config, text| tls::sessions(text).map(|most| config.tls.sessions.cached = most),
        },
        default: Written("10m"),
    },
    Setting {
        name: "ssl_session_timeout",
        about: "How long a session may be resumed; tickets are good for twelve hours at most",
        kind: Text {
            value: "TIME",
            expected: "a time such as 30m, 12h or 1d, from 1s to 7d",
            set: |config, text| {
                tls::session_timeout(text).map(|time| config.tls.sessions.timeout = time)
            },
        },
        default: Written("1d"),
    },
    files(
        "ssl_cert",
        "Certificates that the proxy shows to clients whose server name has [none of its own](docs/tls.md#certificates)",
        GENERATED,
        |config, entries| {
            config.tls.proxy.certificates = readers::owned(entries);
            Ok(())
        },
    ),
    files(
        "ssl_cert_key",
        "The keys of `ssl_cert`, in its order",
        GENERATED,
        |config, entries| {
            config.tls.proxy.keys = readers::owned(entries);
            Ok(())
        },
    ),
    files(
        "admin_ssl_cert",
        "Certificates of the Admin API",
        GENERATED,
        |config, entries| {
            config.tls.admin.certificates = readers::owned(entries);
            Ok(())
        },
    ),
    files(
        "admin_ssl_cert_key",
        "The keys of `admin_ssl_cert`, in its order",
        GENERATED,
        |config, entries| {
            config.tls.admin.keys = readers::owned(entries);
            Ok(())
        },
    ),
    files(
        "admin_gui_ssl_cert",
        "Certificates of `admin_gui_listen`",
        GENERATED,
        |config, entries| {
            config.tls.gui.certificates = readers::owned(entries);
            Ok(())
        },
    ),
    files(
        "admin_gui_ssl_cert_key",
        "The keys of `admin_gui_ssl_cert`, in its order",
        GENERATED,
        |config, entries| {
            config.tls.gui.keys = readers::owned(entries);
            Ok(())
        },
    ),
    files(
        "status_ssl_cert",
        "Certificates of `status_listen`",
        GENERATED,
        |config, entries| {
            config.tls.status.certificates = readers::owned(entries);
            Ok(())
        },
    ),
    files(
        "status_ssl_cert_key",
        "The keys of `status_ssl_cert`, in its order",
        GENERATED,
        |config, entries| {
            config.tls.status.keys = readers::owned(entries);
            Ok(())
        },
    ),
    Setting {
        name: "ssl_verify_client",
        about: "Whether clients of the proxy have to show a [certificate](docs/tls.md#client-certificates) \
                over TLS: `on`, `optional` or `off`",
        kind: Text {
            value: "SWITCH",
            expected: "on, optional or off",
            set: |config, text| {
                tls::verify_client(text).map(|verify| config.tls.verify_client = verify)
            },
        },
        default: Written("off"),
    },
    files(
        "ssl_client_certificate",
        "Certificates of the authorities that certificates of clients are verified by",
        "none",
        |config, entries| {
            config.tls.client_authorities = readers::owned(entries);
            Ok(())
        },
    ),
];
