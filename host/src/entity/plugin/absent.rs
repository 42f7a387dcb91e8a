//! The plugins of Kong that do not exist here. An error says so, so that an operator does not look
//! for a mistyped name.

use super::known_names;

/// The plugins that come with Kong 3.9, and those of Kong Enterprise, some of them of later
/// versions. Source: `kong.constants`, and Kong's plugin hub.
const ABSENT: &[&str] = &[
    "ai-azure-content-safety",
    "ai-prompt-decorator",
    "ai-prompt-guard",
    "ai-prompt-template",
    "ai-proxy",
    "ai-proxy-advanced",
    "ai-rag-injector",
    "ai-rate-limiting-advanced",
    "ai-request-transformer",
    "ai-response-transformer",
    "ai-sanitizer",
    "ai-semantic-cache",
    "ai-semantic-prompt-guard",
    "app-dynamics",
    "application-registration",
    "aws-lambda",
    "azure-functions",
    "canary",
    "confluent",
    "confluent-consume",
    "datadog",
    "degraphql",
    "exit-transformer",
    "forward-proxy",
    "graphql-proxy-cache-advanced",
    "graphql-rate-limiting-advanced",
    "grpc-gateway",
    "header-cert-auth",
    "hmac-auth",
    "injection-protection",
    "jq",
    "json-threat-protection",
    "jwe-decrypt",
    "jwt-signer",
    "kafka-consume",
    "kafka-log",
    "kafka-upstream",
    "key-auth-enc",
    "ldap-auth",
    "ldap-auth-advanced",
    "loggly",
    "mocking",
    "mtls-auth",
    "oas-validation",
    "oauth2",
    "oauth2-introspection",
    "opa",
    "openid-connect",
    "post-function",
    "pre-function",
    "proxy-cache-advanced",
    "rate-limiting-advanced",
    "request-callout",
    "request-transformer-advanced",
    "request-validator",
    "response-transformer-advanced",
    "route-by-header",
    "route-transformer-advanced",
    "saml",
    "service-protection",
    "session",
    "standard-webhooks",
    "statsd-advanced",
    "tls-handshake-modifier",
    "tls-metadata-headers",
    "upstream-oauth",
    "upstream-timeout",
    "vault-auth",
    "websocket-size-limit",
    "websocket-validator",
    "xml-threat-protection",
    "zipkin",
];

/// The message for a plugin of Kong that does not exist here; none for any other name.
pub(super) fn message(name: &str) -> Option<String> {
    ABSENT.binary_search(&name).ok()?;
    let there = known_names();
    Some(format!(
        "Pointsman does not have Kong's plugin '{name}'; it has {there}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::plugin::PluginKind;

    #[test]
    fn no_plugin_that_exists_is_called_absent() {
        assert!(ABSENT.is_sorted());
        for name in ABSENT {
            assert!(PluginKind::named(name).is_none(), "{name} exists");
        }
    }

    #[test]
    fn a_name_that_kong_does_not_have_is_not_called_kongs() {
        assert!(message("hmac-auth").is_some());
        assert!(message("hmac-aut").is_none() && message("").is_none());
    }
}
