//! The settings of gateways that share a configuration.

use super::super::declaration::{DefaultValue, Kind, Setting};
use super::super::etcd::{Etcd, EtcdEndpoint};
use super::super::{Config, readers};

use DefaultValue::{Unset, Written};
use Kind::{List, Path, Text};

/// A certificate or a key.
const fn pem(
    name: &'static str,
    about: &'static str,
    default: &'static str,
    set: fn(&mut Config, &str) -> Option<()>,
) -> Setting {
    Setting {
        name,
        about,
        kind: Text {
            value: "FILE",
            expected: "a path, PEM, or PEM in base64",
            set,
        },
        default: Unset(default),
    }
}

/// Which store is used, and etcd's settings.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "store",
        about: "Where entities are kept: `sled`, in `data_dir`; or `etcd`, which [several gateways \
                share](docs/cluster.md), with a copy in `data_dir`",
        kind: Text {
            value: "sled|etcd",
            expected: "sled or etcd",
            set: |config, text| {
                config.shares_store = match text {
                    "sled" => false,
                    "etcd" => true,
                    _ => return None,
                };
                Some(())
            },
        },
        default: Written("sled"),
    },
    Setting {
        name: "channel",
        about: "`canary`: [what is rolled out](docs/cluster.md#rolling-out-with-care) takes effect here \
                before it does at the gateways of the channel `main`",
        kind: Text {
            value: "main|canary",
            expected: "main or canary",
            set: |config, text| {
                config.is_canary = match text {
                    "main" => false,
                    "canary" => true,
                    _ => return None,
                };
                Some(())
            },
        },
        default: Written("main"),
    },
    Setting {
        name: "etcd_endpoints",
        about: "The members of etcd, such as `https://10.0.0.1:2379`",
        kind: List {
            value: "URLS",
            expected: "URLs such as https://10.0.0.1:2379, separated by commas",
            set: |config, entries| {
                config.etcd.endpoints = readers::each(entries, EtcdEndpoint::parse)?;
                Ok(())
            },
        },
        default: Unset("none"),
    },
    Setting {
        name: "etcd_prefix",
        about: "What all keys in etcd begin with; gateways with the same prefix share a configuration",
        kind: Text {
            value: "PREFIX",
            expected: "ASCII characters without spaces, such as /pointsman/",
            set: |config, text| Etcd::read_prefix(text).map(|prefix| config.etcd.prefix = prefix),
        },
        default: Written("/pointsman/"),
    },
    Setting {
        name: "etcd_user",
        about: "User of etcd, if it asks for one",
        kind: Text {
            value: "NAME",
            expected: "a name",
            set: |config, text| {
                config.etcd.user = text.to_owned();
                Some(())
            },
        },
        default: Unset("none"),
    },
    Setting {
        name: "etcd_password",
        about: "Password of that user",
        kind: Text {
            value: "TEXT",
            expected: "a password",
            set: |config, text| {
                config.etcd.password = text.to_owned();
                Some(())
            },
        },
        default: Unset("none"),
    },
    pem(
        "etcd_ca",
        "Certificates of the authorities of etcd's certificates: a path, PEM, or PEM in base64",
        "those that the system trusts",
        |config, text| {
            config.etcd.ca = Some(text.to_owned());
            Some(())
        },
    ),
    pem(
        "etcd_cert",
        "Certificate that etcd is shown, in the same forms",
        "none",
        |config, text| {
            config.etcd.cert = Some(text.to_owned());
            Some(())
        },
    ),
    pem(
        "etcd_cert_key",
        "Key of that certificate",
        "none",
        |config, text| {
            config.etcd.cert_key = Some(text.to_owned());
            Some(())
        },
    ),
    Setting {
        name: "keyring_file",
        about: "Keys of 64 hexadecimal digits, one on each line, with which entities are [sealed before \
                they reach etcd](docs/cluster.md#sealed-entities); the first one seals",
        kind: Path("FILE", |config, path| config.etcd.keyring = Some(path)),
        default: Unset("none: in clear"),
    },
];
