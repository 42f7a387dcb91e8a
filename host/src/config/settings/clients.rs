//! The settings of clients and their requests.

use super::super::debug_token::DebugToken;
use super::super::declaration::DefaultValue::{Unset, Written};
use super::super::declaration::Kind::{List, Number, Size, Text, Time};
use super::super::declaration::{BYTES, BYTES_PER_SECOND, MIB, ONE, SECONDS, Setting};
use super::super::readers;
use super::super::real_ip::{RealIpSource, TrustedIps};
use super::super::response_headers::{self, ResponseHeaders};
use super::super::router_flavor::RouterFlavor;

/// Which peers are trusted to name clients, and what clients may do.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "trusted_ips",
        about: "Peers that are [trusted](docs/client-address.md) to name their clients: addresses, \
                ranges such as `10.0.0.0/8`, and `unix:` for Unix sockets",
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
                let upstream_request_id = config.proxy.headers.upstream_request_id;
                config.proxy.headers = ResponseHeaders {
                    upstream_request_id,
                    ..ResponseHeaders::parse(entries)?
                };
                Ok(())
            },
        },
        default: Written(response_headers::DEFAULT),
    },
    Setting {
        name: "headers_upstream",
        about: "Headers that the gateway adds to requests to endpoints and that can be switched off: \
                `X-Kong-Request-Id`, or `off` for none; a header of that name that a client has sent \
                is passed on then",
        kind: List {
            value: "NAMES",
            expected: "X-Kong-Request-Id, or off",
            set: |config, entries| {
                let is_told = ResponseHeaders::parse_upstream(entries)?;
                config.proxy.headers.upstream_request_id = is_told;
                Ok(())
            },
        },
        default: Written(response_headers::UPSTREAM),
    },
    Setting {
        name: "debug_token",
        about: "Token of at least 16 characters by which a client may [ask what has \
                happened](docs/operating.md#debugging-a-request) to its request, in the header \
                `Pointsman-Debug`",
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
        name: "allow_debug_header",
        about: "Whether the responses to clients that send `Kong-Debug` [have the route and the \
                service](docs/operating.md#debugging-a-request): `Kong-Route-Id`, `Kong-Route-Name`, \
                `Kong-Service-Id`, `Kong-Service-Name`",
        kind: Text {
            value: "on|off",
            expected: "on or off",
            set: |config, text| {
                readers::switch(text).map(|on| config.proxy.allow_debug_header = on)
            },
        },
        default: Written("off"),
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
        about: "Longest time until the gateway next sends a part of the response to a client that has \
                closed its sending side; after that the client is taken to be gone",
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
