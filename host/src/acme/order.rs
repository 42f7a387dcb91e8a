//! Requests a certificate: an order, the challenge of its name, and the certificate (RFC 8555,
//! 7.4).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenges::{Challenges, Offered};
use super::renewal_info::CertificateId;

/// Longest time that the authority may take to verify a name, and to sign a certificate.
const AUTHORITY_TIMEOUT: Duration = Duration::from_secs(90);

/// A certificate with the chain behind it, and its key, in PEM.
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Why there is no certificate.
#[derive(Debug)]
pub(super) enum Error {
    /// The authority has refused, or cannot be reached.
    Acme(instant_acme::Error),
    /// Another reason.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acme(error) => error.fmt(f),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl From<instant_acme::Error> for Error {
    fn from(error: instant_acme::Error) -> Self {
        Self::Acme(error)
    }
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Other(format!("no certificate can be requested: {error}"))
    }
}

/// Requests a certificate for a name in lower case. `failures` is the number of tries before this
/// one: each takes another challenge, if the authority offers several. `replaced` is the
/// certificate that this one replaces, for an authority that suggests when to renew (RFC 9773, 5).
pub(super) async fn certificate(
    account: &Account,
    name: &str,
    failures: u32,
    replaced: Option<CertificateId>,
    challenges: &Arc<Challenges>,
) -> Result<Issued, Error> {
    let identifiers = [Identifier::Dns(name.to_owned())];
    let mut order = NewOrder::new(&identifiers);
    if let Some(replaced) = replaced {
        order = order.replaces(replaced);
    }
    let mut order = account.new_order(&order).await?;
    let offered = answer(&mut order, name, failures, challenges).await?;
    let policy = RetryPolicy::new().timeout(AUTHORITY_TIMEOUT);
    match order.poll_ready(&policy).await {
        Ok(OrderStatus::Invalid) => return Err(refusal(&mut order).await),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    drop(offered);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    order.finalize_csr(request.der()).await?;
    Ok(Issued {
        certificate: order.poll_certificate(&policy).await?,
        key: key.serialize_pem(),
    })
}

/// Answers the challenge of a name that is not verified yet, and tells the authority that it may
/// verify it.
async fn answer(
    order: &mut Order,
    name: &str,
    failures: u32,
    challenges: &Arc<Challenges>,
) -> Result<Vec<Offered>, Error> {
    let mut offered = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let known = [ChallengeType::Http01, ChallengeType::TlsAlpn01];
        let mut usable: Vec<ChallengeType> = known.into();
        usable.retain(|kind| authorization.challenges.iter().any(|c| c.r#type == *kind));
        if usable.is_empty() {
            return Err(Error::Other(format!(
                "the authority offers neither http-01 nor tls-alpn-01 for {name}"
            )));
        }
        let kind = usable.swap_remove(failures as usize % usable.len());
        let is_http = kind == ChallengeType::Http01;
        let Some(mut challenge) = authorization.challenge(kind.clone()) else {
            continue;
        };
        let answer = challenge.key_authorization();
        offered.push(match is_http {
            true => challenges.offer_http(&challenge.token, answer.as_str()),
            false => {
                let digest = answer.digest();
                let offered = challenges.offer_tls(name, digest.as_ref());
                offered.map_err(Error::Other)?
            }
        });
        let begun = challenge.set_ready().await;
        begun.map_err(|error| failed(&kind, &error))?;
    }
    Ok(offered)
}

/// Why the authority has not verified the name of an order.
async fn refusal(order: &mut Order) -> Error {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let mut challenges = state.challenges.iter();
        let found = challenges.find_map(|challenge| Some((challenge, challenge.error.as_ref()?)));
        if let Some((challenge, problem)) = found {
            return failed(&challenge.r#type, problem);
        }
    }
    Error::Other("the authority has not verified the name".into())
}

fn failed(kind: &ChallengeType, why: &dyn fmt::Display) -> Error {
    let kind = match kind {
        ChallengeType::Http01 => "http-01",
        ChallengeType::TlsAlpn01 => "tls-alpn-01",
        _ => "the challenge",
    };
    Error::Other(format!("{kind} has failed: {why}"))
}
