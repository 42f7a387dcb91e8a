//! The settings of the log of requests.

use super::super::declaration::DefaultValue::Written;
use super::super::declaration::Kind::{Number, Size, Text};
use super::super::declaration::{MIB, ONE, Setting};

/// The settings of the log of requests. The format comes first: the name of a format behind the
/// target takes precedence.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "proxy_access_log_format",
        about: "Form of the lines of the [access log](docs/logging.md#the-access-log): `kong`, \
                `combined`, `common`, `json`, or a template with nginx's variables, such as \
                `$remote_addr $status`",
        kind: Text {
            value: "FORMAT",
            expected: "json, common, combined, kong, or a template",
            set: |config, text| {
                config.access_log.written_format = text.to_owned();
                Some(())
            },
        },
        default: Written("kong"),
    },
    Setting {
        name: "proxy_access_log",
        about: "[Access log](docs/logging.md#the-access-log) of the proxy: `off`, a path, \
                `/dev/stdout`, `/dev/stderr`, or `syslog:` with nginx's options such as \
                `syslog:server=192.0.2.1,tag=edge`; the name of a format may follow",
        kind: Text {
            value: "TARGET",
            expected: "off, a path with a slash or a dot, /dev/stdout, /dev/stderr, or syslog: with options such as \
                       server=192.0.2.1:514,facility=local7,severity=info,tag=pointsman,nohostname; \
                       behind it json, common, combined, kong, or nothing",
            set: |config, text| config.access_log.set_target(text),
        },
        default: Written("off"),
    },
    Setting {
        name: "proxy_stream_access_log_format",
        about: "Form of the lines of the [log of streams](docs/logging.md#the-access-log-of-streams): \
                `basic`, `json`, or a template with nginx's variables, such as `$remote_addr $status`",
        kind: Text {
            value: "FORMAT",
            expected: "json, basic, or a template",
            set: |config, text| {
                config.stream_access_log.log.written_format = text.to_owned();
                Some(())
            },
        },
        default: Written("basic"),
    },
    Setting {
        name: "proxy_stream_access_log",
        about: "[Access log of streams](docs/logging.md#the-access-log-of-streams): `off`, or as \
                `proxy_access_log`; the name of a format may follow",
        kind: Text {
            value: "TARGET",
            expected: "off, a path with a slash or a dot, /dev/stdout, /dev/stderr, or syslog: with options; behind it json, \
                       basic, or nothing",
            set: |config, text| config.stream_access_log.set_target(text),
        },
        default: Written("off"),
    },
    Setting {
        name: "proxy_access_log_max_size",
        about: "Size at which the file of an access log is renamed and another one begins; 0 sets no \
                limit",
        kind: Size(MIB, 0..=1_048_576, |config, size| {
            let max_size = (size > 0).then_some(size as u64);
            config.access_log.max_size = max_size;
            config.stream_access_log.log.max_size = max_size;
        }),
        default: Written("0"),
    },
    Setting {
        name: "proxy_access_log_max_files",
        about: "Renamed files of an access log that are kept, by names that end in `.1`, the newest, \
                and so on",
        kind: Number(ONE, 1..=1000, |config, n| {
            config.access_log.max_files = n;
            config.stream_access_log.log.max_files = n;
        }),
        default: Written("5"),
    },
];
