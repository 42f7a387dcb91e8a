//! `basic-auth`: a consumer is known by a username and a password (RFC 7617). Source: Kong 3.9,
//! `basic-auth`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, PROXY_AUTHORIZATION};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::identity::{AuthenticatedCredential, Identities, PasswordCredential};
use super::request::Request;
use super::{Access, DryRun, Policy, auth};
use crate::entity::basic_auth_credential::hash;
use crate::entity::plugin::basic_auth::Config;

/// Finds the consumer by a username and a password.
#[derive(Debug)]
pub(super) struct BasicAuth(Config);

/// A username and a password in a request.
#[derive(Debug, PartialEq, Eq)]
struct SentPassword {
    username: String,
    password: String,
}

impl BasicAuth {
    pub(super) fn new(config: Config) -> Self {
        Self(config)
    }

    /// Authenticates a request. Returns whether it has valid credentials.
    fn authenticate(&self, request: &mut Request<'_>) -> bool {
        let identities = request.identities;
        let mut found = self.find(request, &PROXY_AUTHORIZATION);
        let is_known = |sent: &SentPassword| identities.password(&sent.username).is_some();
        if !found.as_ref().is_some_and(is_known) {
            found = self.find(request, &AUTHORIZATION);
        }
        let Some(sent) = found else {
            return false;
        };
        let Some(credential) = check(identities, &sent) else {
            return false;
        };
        let Some(consumer) = identities.consumer(credential.consumer) else {
            return false;
        };
        let credential = AuthenticatedCredential {
            id: credential.id,
            identifier: sent.username.into(),
        };
        auth::authenticate(request, consumer.clone(), credential);
        true
    }

    /// The username and the password in a header.
    fn find(&self, request: &mut Request<'_>, header: &HeaderName) -> Option<SentPassword> {
        let headers: &mut HeaderMap = &mut request.head.headers;
        let sent = headers.get(header).and_then(|value| read(value.as_bytes()));
        if self.0.hide_credentials {
            headers.remove(header);
        }
        sent
    }
}

/// The credential with this username, if the password is right. Checking takes the same time for
/// every password, and for a username that does not exist.
fn check<'i>(identities: &'i Identities, sent: &SentPassword) -> Option<&'i PasswordCredential> {
    let credential = identities.password(&sent.username);
    let consumer = credential.map_or(Uuid::nil(), |credential| credential.consumer);
    let hashed = hash(&sent.password, consumer);
    let stored = credential.map_or("", |credential| &credential.password);
    let is_right: bool = hashed.as_bytes().ct_eq(stored.as_bytes()).into();
    credential.filter(|_| is_right)
}

/// Reads the value of a header (RFC 7617, 2).
fn read(value: &[u8]) -> Option<SentPassword> {
    let decoded = STANDARD.decode(auth::credentials(value, "Basic")?).ok()?;
    // Stored usernames and passwords are text, so others are not valid.
    let (username, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    (!username.is_empty()).then(|| SentPassword {
        username: username.to_owned(),
        password: password.to_owned(),
    })
}

impl Policy for BasicAuth {
    fn dry_run(&self) -> DryRun {
        DryRun::Authenticates
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let anonymous = self.0.anonymous.as_deref();
        if auth::skips(request, true, anonymous) || self.authenticate(request) {
            return Access::PASS;
        }
        let refuse = || auth::unauthorized("Unauthorized", "Basic", Some(&self.0.realm));
        Access::Done(auth::fail(request, anonymous, refuse))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_a_username_and_a_password_in_base64() {
        let sent = |username: &str, password: &str| {
            Some(SentPassword {
                username: username.into(),
                password: password.into(),
            })
        };
        // printf 'user:pa:ss' | base64
        for value in [
            "Basic dXNlcjpwYTpzcw==",
            "basic  dXNlcjpwYTpzcw==",
            "BASIC dXNlcjpwYTpzcw== ",
        ] {
            assert_eq!(read(value.as_bytes()), sent("user", "pa:ss"), "{value}");
        }
        assert_eq!(read(b"Basic dXNlcjo="), sent("user", ""));
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basicd",
            "Bearer dXNlcjpwYTpzcw==",
            "Basic dXNlcg==",
            "Basic OnBhc3M=",
            "Basic %",
            "Basic /zph",
        ] {
            assert_eq!(read(value.as_bytes()), None, "{value}");
        }
    }
}
