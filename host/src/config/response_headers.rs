//! Which headers the gateway adds to responses. Source: Kong 3.9, `headers`.

/// Which headers the gateway adds to responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeaders {
    /// `Server`, of responses that the gateway makes, and of those of endpoints that have none.
    pub server: bool,
    /// `Via`, of responses that an endpoint has made.
    pub via: bool,
    /// `X-Kong-Upstream-Latency`.
    pub upstream_latency: bool,
    /// `X-Kong-Proxy-Latency`.
    pub proxy_latency: bool,
    /// `X-Kong-Response-Latency`.
    pub response_latency: bool,
    /// `X-Kong-Admin-Latency`.
    pub admin_latency: bool,
    /// `X-Kong-Upstream-Status`.
    pub upstream_status: bool,
    /// `X-Kong-Request-Id`.
    pub request_id: bool,
    /// `X-Kong-Request-Id` of requests to endpoints: the setting `headers_upstream`.
    pub upstream_request_id: bool,
}

/// The only header of requests to endpoints that can be switched, and the default of the setting.
pub(super) const UPSTREAM: &str = "X-Kong-Request-Id";

/// The default of the setting, as it is written.
pub(super) const DEFAULT: &str = "server_tokens, latency_tokens, X-Kong-Request-Id";

impl Default for ResponseHeaders {
    fn default() -> Self {
        Self {
            server: true,
            via: true,
            upstream_latency: true,
            proxy_latency: true,
            response_latency: true,
            admin_latency: true,
            upstream_status: false,
            request_id: true,
            upstream_request_id: true,
        }
    }
}

impl ResponseHeaders {
    /// None of them.
    pub const NONE: Self = Self {
        server: false,
        via: false,
        upstream_latency: false,
        proxy_latency: false,
        response_latency: false,
        admin_latency: false,
        upstream_status: false,
        request_id: false,
        // It is none of a response.
        upstream_request_id: true,
    };

    /// Reads the entries of `headers_upstream`, as [`ResponseHeaders::parse`] reads its own:
    /// whether endpoints are told the id of a request. Source: Kong 3.9.
    ///
    /// # Errors
    /// The entries that are not known.
    pub(super) fn parse_upstream(entries: &[&str]) -> Result<bool, Vec<String>> {
        let is = |entry: &str, name: &str| entry.eq_ignore_ascii_case(name);
        let wrong = entries
            .iter()
            .filter(|entry| !is(entry, "off") && !is(entry, UPSTREAM));
        let wrong: Vec<String> = wrong.map(|entry| (*entry).to_owned()).collect();
        match wrong.is_empty() {
            true => Ok(entries.first().is_some_and(|entry| !is(entry, "off"))),
            false => Err(wrong),
        }
    }

    /// The entries of `headers` that stand for these.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let latencies = [
            (self.upstream_latency, "X-Kong-Upstream-Latency"),
            (self.proxy_latency, "X-Kong-Proxy-Latency"),
            (self.response_latency, "X-Kong-Response-Latency"),
            (self.admin_latency, "X-Kong-Admin-Latency"),
        ];
        let servers = [(self.server, "Server"), (self.via, "Via")];
        let others = [
            (self.upstream_status, "X-Kong-Upstream-Status"),
            (self.request_id, "X-Kong-Request-Id"),
        ];
        let mut names = Vec::new();
        for (group, members) in [
            (Some("server_tokens"), &servers[..]),
            (Some("latency_tokens"), &latencies),
            (None, &others),
        ] {
            match group {
                Some(group) if members.iter().all(|(is_on, _)| *is_on) => names.push(group),
                _ => names.extend(
                    members
                        .iter()
                        .filter(|(is_on, _)| *is_on)
                        .map(|(_, name)| *name),
                ),
            }
        }
        if names.is_empty() {
            names.push("off");
        }
        names
    }

    /// The entries of `headers_upstream` that stand for these.
    pub(crate) fn upstream_names(&self) -> [&'static str; 1] {
        [if self.upstream_request_id {
            UPSTREAM
        } else {
            "off"
        }]
    }

    /// Reads the entries, which may be in any case. `off` is for all of them if it is the first
    /// one, and changes nothing after others.
    ///
    /// # Errors
    /// The entries that are not known.
    pub(super) fn parse(entries: &[&str]) -> Result<Self, Vec<String>> {
        let mut headers = Self::NONE;
        let mut wrong = Vec::new();
        for entry in entries {
            match entry.to_ascii_lowercase().as_str() {
                "server_tokens" => (headers.server, headers.via) = (true, true),
                "latency_tokens" => {
                    headers.upstream_latency = true;
                    headers.proxy_latency = true;
                    headers.response_latency = true;
                    headers.admin_latency = true;
                }
                "server" => headers.server = true,
                "via" => headers.via = true,
                "x-kong-upstream-latency" => headers.upstream_latency = true,
                "x-kong-proxy-latency" => headers.proxy_latency = true,
                "x-kong-response-latency" => headers.response_latency = true,
                "x-kong-admin-latency" => headers.admin_latency = true,
                "x-kong-upstream-status" => headers.upstream_status = true,
                "x-kong-request-id" => headers.request_id = true,
                "off" => {}
                _ => wrong.push((*entry).to_owned()),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let is_off = entries
            .first()
            .is_some_and(|entry| entry.eq_ignore_ascii_case("off"));
        Ok(if is_off { Self::NONE } else { headers })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sent_the_id_unless_off_comes_first() {
        let parse = ResponseHeaders::parse_upstream;
        assert_eq!(parse(&["x-kong-request-id"]), Ok(true));
        assert_eq!(parse(&["X-Kong-Request-Id", "off"]), Ok(true));
        assert_eq!(parse(&["OFF", "x-kong-request-id"]), Ok(false));
        assert_eq!(parse(&["off", "via"]), Err(vec!["via".to_owned()]));
    }

    #[test]
    fn the_entries_that_are_shown_stand_for_the_same_headers() {
        let default: Vec<&str> = DEFAULT.split(", ").collect();
        assert_eq!(ResponseHeaders::default().names(), default);
        assert_eq!(ResponseHeaders::NONE.names(), ["off"]);
        for entries in [
            &["Via", "X-Kong-Request-Id"][..],
            &["Server", "X-Kong-Proxy-Latency", "X-Kong-Admin-Latency"],
            &["latency_tokens", "X-Kong-Upstream-Status"],
        ] {
            let headers = ResponseHeaders::parse(entries).unwrap();
            assert_eq!(headers.names(), entries);
        }
        for upstream_request_id in [true, false] {
            let headers = ResponseHeaders {
                upstream_request_id,
                ..ResponseHeaders::NONE
            };
            let shown = headers.upstream_names();
            assert_eq!(
                ResponseHeaders::parse_upstream(&shown),
                Ok(upstream_request_id)
            );
        }
    }

    #[test]
    fn entries_are_those_of_kong() {
        let default: Vec<&str> = DEFAULT.split(", ").collect();
        assert_eq!(
            ResponseHeaders::parse(&default),
            Ok(ResponseHeaders::default())
        );
        assert_eq!(
            ResponseHeaders::parse(&["OFF", "Via"]),
            Ok(ResponseHeaders::NONE)
        );
        let one = ResponseHeaders {
            upstream_status: true,
            ..ResponseHeaders::NONE
        };
        assert_eq!(
            ResponseHeaders::parse(&["x-kong-upstream-STATUS", "off"]),
            Ok(one)
        );
        let wrong = ResponseHeaders::parse(&["via", "X-Other"]);
        assert_eq!(wrong, Err(vec!["X-Other".to_owned()]));
    }
}
