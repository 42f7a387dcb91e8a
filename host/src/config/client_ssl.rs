//! The certificate that the gateway shows to endpoints unless another one is named for them.
//! Source: Kong, `client_ssl`.

/// The certificate that the gateway shows to endpoints unless another one is named for them.
#[derive(Debug, Clone, Default)]
pub struct ClientSsl {
    /// Whether it is shown.
    pub on: bool,
    /// The certificate: the path of a file in PEM, the PEM text itself, or its base64.
    pub certificate: Option<String>,
    /// Its key, in the same forms.
    pub key: Option<String>,
}

impl ClientSsl {
    /// Checks that the settings fit together. Without both others, `client_ssl` has no effect, as
    /// in Kong.
    pub(super) fn check(&self, mistakes: &mut Vec<String>) {
        let missing = match (&self.certificate, &self.key) {
            (Some(_), None) => "client_ssl_cert_key",
            (None, Some(_)) => "client_ssl_cert",
            _ => return,
        };
        if self.on {
            mistakes.push(format!("{missing} must be specified (client_ssl is on)"));
        }
    }

    /// The certificate and the key as they are written, if they are in effect.
    pub(crate) fn pair(&self) -> Option<(&str, &str)> {
        let pair = self.certificate.as_deref().zip(self.key.as_deref());
        pair.filter(|_| self.on)
    }
}
