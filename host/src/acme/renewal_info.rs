//! When the authority suggests to renew a certificate (RFC 9773): it spreads the renewals of all
//! its clients, and asks for early ones before it revokes certificates.

use std::time::{Duration, SystemTime};

use instant_acme::{Account, CertificateIdentifier, Error, RenewalInfo};
use rustls::pki_types::Der;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;

/// Bounds of the time between two looks, whatever the authority asks for (RFC 9773, 4.3.2).
const BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 60 * 60));

/// Time until the next look after one that has failed. Source: RFC 9773, 4.3.3.
const AFTER_FAILURE: Duration = Duration::from_secs(6 * 60 * 60);

/// How a certificate is named to its authority.
pub(super) type CertificateId = CertificateIdentifier<'static>;

/// What the authority has said of a certificate.
#[derive(Debug, Clone)]
pub(super) struct Suggestion {
    pub(super) certificate: CertificateId,
    /// When it is to be renewed; none if the authority suggests nothing.
    pub(super) renewal: Option<SystemTime>,
    /// When to look again.
    pub(super) next_look: SystemTime,
}

impl Suggestion {
    /// Of an authority that could not be asked.
    pub(super) fn unknown(certificate: CertificateId) -> Self {
        Self {
            certificate,
            renewal: None,
            next_look: SystemTime::now() + AFTER_FAILURE,
        }
    }
}

/// How the first certificate of a PEM is named; none if it does not name the key of its authority.
pub(super) fn id_of(pem: &str) -> Option<CertificateId> {
    let first = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    let certificate = first.parse_x509().ok()?;
    let mut extensions = certificate.extensions().iter();
    let authority = extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref(),
        _ => None,
    })?;
    let id = CertificateIdentifier::new(
        Der::from_slice(authority.0),
        Der::from_slice(certificate.tbs_certificate.raw_serial()),
    );
    Some(id.into_owned())
}

/// Asks the authority about a certificate. `last` is what it has said before.
pub(super) async fn ask(
    account: &Account,
    certificate: CertificateId,
    last: Option<Suggestion>,
) -> Suggestion {
    let asked = account.renewal_info(&certificate).await;
    let now = SystemTime::now();
    let last = last.filter(|last| last.certificate == certificate);
    let last = last.and_then(|last| last.renewal);
    let (renewal, pause) = match asked {
        Ok((info, pause)) => match moment(&info, last) {
            Some(renewal) => (Some(renewal), pause.clamp(BOUNDS.0, BOUNDS.1)),
            None => {
                tracing::debug!("acme: the authority suggests a time that ends before it begins");
                (last, AFTER_FAILURE)
            }
        },
        Err(Error::Unsupported(_)) => (None, BOUNDS.1),
        Err(error) => {
            tracing::debug!("acme: the authority does not say when to renew: {error}");
            (last, AFTER_FAILURE)
        }
    };
    Suggestion {
        certificate,
        renewal,
        next_look: now + pause,
    }
}

/// The moment of a renewal: the last one if it is still suggested, or else a random one.
fn moment(info: &RenewalInfo, last: Option<SystemTime>) -> Option<SystemTime> {
    let seconds = |timestamp: i64| u64::try_from(timestamp).unwrap_or(0);
    let window = &info.suggested_window;
    let begin = seconds(window.start.unix_timestamp());
    let end = seconds(window.end.unix_timestamp());
    within(begin, end, last)
}

fn within(begin: u64, end: u64, last: Option<SystemTime>) -> Option<SystemTime> {
    if begin >= end {
        return None;
    }
    let at = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let (first, latest) = (at(begin)?, at(end)?);
    match last.filter(|last| (first..latest).contains(last)) {
        Some(last) => Some(last),
        None => at(fastrand::u64(begin..end)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_moment_is_in_the_window_and_stays_while_it_is_suggested() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for _ in 0..100 {
            let moment = within(100, 110, None).unwrap();
            assert!((at(100)..at(110)).contains(&moment));
            assert_eq!(within(100, 110, Some(moment)), Some(moment));
            assert!(within(200, 210, Some(moment)).unwrap() >= at(200));
        }
        assert_eq!(within(100, 100, None), None);
        assert_eq!(within(0, u64::MAX, None), None);
    }

    #[test]
    fn a_certificate_is_named_by_its_authority_and_its_serial_number() {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.serial_number = Some(vec![0x87, 0x65, 0x43].into());
        params.use_authority_key_identifier_extension = true;
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1, 2, 3]);
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertifiedIssuer::self_signed(authority, key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let id = id_of(&certificate.pem()).unwrap();
        // The serial number as DER has it, with the zero before a first bit that is set.
        assert_eq!(id.to_string(), "AQID.AIdlQw");
        assert_eq!(id_of("no PEM"), None);
    }
}
