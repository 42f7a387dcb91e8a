//! Settings of the traces of requests.

use super::super::declaration::{DefaultValue, Kind, Setting};
use super::super::traces::{self, Instrumentations};

use DefaultValue::Written;
use Kind::{List, Text};

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "tracing_instrumentations",
        about: "Spans of the [traces](docs/tracing.md) that the plugin `opentelemetry` sends: `all`, \
                or some of `request`, `router`, `balancer`, `plugin_access` and \
                `plugin_header_filter`; with `off`, the plugin only passes contexts on",
        kind: List {
            value: "SPANS",
            expected: "off, all, or some of request, router, balancer, plugin_access and \
                       plugin_header_filter, separated by commas",
            set: |config, entries| {
                config.policies.tracing.instrumentations = Instrumentations::parse(entries)?;
                Ok(())
            },
        },
        default: Written("all"),
    },
    Setting {
        name: "tracing_sampling_rate",
        about: "Share of the requests with a plugin `opentelemetry` that are traced, from 0 to 1, \
                unless the plugin has a `sampling_rate` of its own",
        kind: Text {
            value: "SHARE",
            expected: "a number from 0 to 1, such as 0.01",
            set: |config, text| {
                let share = traces::share(text)?;
                config.policies.tracing.sampling_rate = share;
                Some(())
            },
        },
        default: Written("0.01"),
    },
];
