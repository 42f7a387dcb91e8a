//! Directives that hold for the blocks inside the one that has them, and those that can be left out
//! without answering a request that nginx refuses.

use std::collections::BTreeMap;

use super::grammar::Directive;

/// Directives of which the innermost one holds.
const SINGLE: [&str; 9] = [
    "auth_basic",
    "auth_jwt",
    "auth_request",
    "proxy_connect_timeout",
    "proxy_read_timeout",
    "proxy_send_timeout",
    "proxy_ssl_verify",
    "satisfy",
    "ssl_verify_client",
];

/// The directives that hold for a block: its own, or those of the blocks around it.
#[derive(Clone, Default)]
pub(super) struct Inherited<'d> {
    single: BTreeMap<&'d str, &'d Directive>,
    /// `allow` and `deny`. Those of a block replace all around it. Source: nginx.
    pub(super) access: Vec<&'d Directive>,
    /// `proxy_set_header`, likewise.
    pub(super) headers: Vec<&'d Directive>,
    /// Further directives that refuse requests.
    pub(super) guards: Vec<&'d Directive>,
}

impl<'d> Inherited<'d> {
    /// What holds inside a block.
    pub(super) fn within(&self, block: &'d [Directive]) -> Self {
        let mut inner = self.clone();
        let own = |names: &[&str]| {
            let own = block.iter().filter(|own| names.contains(&own.name()));
            own.collect::<Vec<_>>()
        };
        for (list, own) in [
            (&mut inner.access, own(&["allow", "deny"])),
            (&mut inner.headers, own(&["proxy_set_header"])),
        ] {
            if !own.is_empty() {
                *list = own;
            }
        }
        for directive in block {
            if SINGLE.contains(&directive.name()) {
                inner.single.insert(directive.name(), directive);
            } else if is_guard(directive.name()) || is_unknown_include(directive) {
                inner.guards.push(directive);
            }
        }
        inner
    }

    /// The directive of this name that holds.
    pub(super) fn get(&self, name: &str) -> Option<&'d Directive> {
        self.single.get(name).copied()
    }

    /// What asks clients for something that is not converted: a password, a token, a certificate.
    pub(super) fn authentication(&self) -> Vec<&'d Directive> {
        let names = [
            "auth_basic",
            "auth_jwt",
            "auth_request",
            "ssl_verify_client",
        ];
        let all = names.iter().filter_map(|name| self.get(name));
        all.filter(|directive| directive.value() != "off").collect()
    }
}

/// Whether a directive is read where it is inherited.
pub(super) fn is_inherited(name: &str) -> bool {
    SINGLE.contains(&name) || ["allow", "deny", "proxy_set_header"].contains(&name)
}

/// Whether a directive includes a file that may refuse requests. The one with media types does not.
fn is_unknown_include(directive: &Directive) -> bool {
    directive.name() == "include" && directive.value().rsplit('/').next() != Some("mime.types")
}

/// Whether a directive of another module refuses requests.
fn is_guard(name: &str) -> bool {
    !is_harmless(name)
        && ["access_by_", "auth_", "js_access", "rewrite_by_"]
            .iter()
            .any(|begin| name.starts_with(begin))
}

/// Directives without which the gateway answers what nginx answers, but for their limits of rates,
/// numbers and sizes. A name that ends in `_` stands for all that begin so.
const HARMLESS: &[&str] = &[
    "absolute_redirect",
    "access_log",
    "add_header",
    "add_header_inherit",
    "add_trailer",
    "aio",
    "aio_write",
    "alias",
    // Without the directive that they belong to, they ask clients for nothing.
    "auth_basic_user_file",
    "auth_delay",
    "auth_jwt_",
    "auth_request_set",
    "autoindex",
    "autoindex_",
    "brotli",
    "brotli_",
    "charset",
    "charset_",
    "chunked_transfer_encoding",
    "client_",
    "connection_pool_size",
    "default_type",
    "directio",
    "directio_alignment",
    "error_log",
    "error_page",
    "etag",
    "expires",
    "fastcgi_",
    "gunzip",
    "gunzip_",
    "gzip",
    "gzip_",
    "http2",
    "http2_",
    "http3",
    "http3_",
    "if_modified_since",
    "ignore_invalid_headers",
    "index",
    "keepalive_",
    "large_client_header_buffers",
    "limit_conn",
    "limit_conn_",
    "limit_rate",
    "limit_rate_after",
    "limit_req",
    "limit_req_",
    "lingering_",
    "log_",
    "max_ranges",
    "merge_slashes",
    "mirror",
    "mirror_",
    "msie_",
    "open_file_",
    "output_buffers",
    "port_in_redirect",
    "postpone_output",
    "proxy_",
    "quic_",
    "read_ahead",
    "real_ip_",
    "recursive_error_pages",
    "request_pool_size",
    "reset_timedout_connection",
    "resolver",
    "resolver_",
    "root",
    "send_",
    "sendfile",
    "sendfile_",
    "server_name_in_redirect",
    "server_tokens",
    "set",
    "set_real_ip_from",
    "ssl",
    "ssl_",
    "status_zone",
    "sub_filter",
    "sub_filter_",
    "tcp_",
    "types",
    "types_hash_",
    "underscores_in_headers",
    "variables_hash_",
];

/// Whether a directive can be left out without answering a request that nginx refuses.
pub(super) fn is_harmless(name: &str) -> bool {
    let is_meant = |known: &&str| match known.strip_suffix('_') {
        Some(_) => name.starts_with(*known),
        None => name == *known,
    };
    !name.ends_with("_pass") && HARMLESS.iter().any(is_meant)
}
