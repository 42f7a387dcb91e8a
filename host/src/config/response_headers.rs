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
}

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
    };

    /// Reads the entries, which may be in any case. `off` is for all of them if it is the first one,
    /// and changes nothing after others.
    ///
    /// # Errors
    /// The entries that are none.
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
mod tests {
    use super::*;

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
