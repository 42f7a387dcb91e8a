//! The certificate of a listener: that of the settings, or a generated one; and the authorities of
//! the certificates that its clients show.

use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::server::danger::ClientCertVerifier;

use crate::config::{self, CertificateFiles, VerifyClient};
use crate::tls::{Authorities, ServerCertificate, generated};

/// The start of anything in PEM.
const PEM: &str = "-----BEGIN";

/// Bytes of the longest path that a message shows.
const LONGEST_PATH: usize = 255;

/// The certificate of the listeners whose settings begin with `prefix` (`admin_`, for example), or
/// one that is generated and kept in the data folder.
///
/// # Errors
/// A sentence of Kong's: a file is missing or of no use.
pub(crate) fn listener_certificate(
    prefix: &str,
    files: &CertificateFiles,
    data_dir: &Path,
) -> anyhow::Result<Arc<ServerCertificate>> {
    let CertificateFiles { certificates, keys } = files;
    match (certificates.len(), keys.len()) {
        (0, 0) => {
            let name = format!("{}default", prefix.replace('_', "-"));
            let generated = generated::open(&data_dir.join("ssl"), &name);
            return generated.map(Arc::new).map_err(anyhow::Error::msg);
        }
        (_, 0) => bail!("{prefix}ssl_cert_key must be specified"),
        (0, _) => bail!("{prefix}ssl_cert must be specified"),
        (certificates, keys) if certificates != keys => bail!(
            "{prefix}ssl_cert was specified {certificates} times while {prefix}ssl_cert_key was \
             specified {keys} times"
        ),
        _ => {}
    }
    let mut pairs = Vec::new();
    for (certificate, key) in certificates.iter().zip(keys) {
        let pem = load(certificate).ok_or_else(|| {
            let from = shown(certificate);
            anyhow!("{prefix}ssl_cert: failed loading certificate from {from}")
        })?;
        let key = load(key).ok_or_else(|| {
            let from = shown(key);
            anyhow!("{prefix}ssl_cert_key: failed loading key from {from}")
        })?;
        let read = ServerCertificate::from_pem([(&*pem, &*key)]);
        if let Err(why) = read {
            let from = shown(certificate);
            bail!("{prefix}ssl_cert: {from} cannot be used: {why}");
        }
        pairs.push((pem, key));
    }
    let pairs = pairs.iter().map(|(pem, key)| (&**pem, &**key));
    let certificate = ServerCertificate::from_pem(pairs);
    certificate.map(Arc::new).map_err(anyhow::Error::msg)
}

/// Verifies the certificates of clients, if the settings have them asked for one.
///
/// # Errors
/// A sentence: a certificate of an authority is missing or of no use.
pub(crate) fn client_verifier(
    settings: &config::Tls,
) -> anyhow::Result<Option<Arc<dyn ClientCertVerifier>>> {
    if settings.verify_client == VerifyClient::Off {
        return Ok(None);
    }
    let mut authorities = Vec::new();
    for authority in &settings.client_authorities {
        authorities.push(load(authority).ok_or_else(|| {
            let from = shown(authority);
            anyhow!("ssl_client_certificate: failed loading certificate from {from}")
        })?);
    }
    if authorities.is_empty() {
        bail!(
            "ssl_client_certificate must be specified, since ssl_verify_client asks for certificates"
        );
    }
    let authorities = Authorities::parse(&authorities)
        .map_err(|why| anyhow!("ssl_client_certificate cannot be used: {why}"))?;
    let required = settings.verify_client == VerifyClient::On;
    let verifier = authorities.verify_clients(required);
    verifier.map(Some).map_err(anyhow::Error::msg)
}

/// PEM, read from a file if there is one of this name.
pub(crate) fn load(text: &str) -> Option<String> {
    if text.contains(PEM) {
        return Some(text.to_owned());
    }
    if let Ok(pem) = std::fs::read_to_string(text) {
        return Some(pem).filter(|pem| pem.contains(PEM));
    }
    // Tools that encode break lines.
    let encoded: String = text.split_ascii_whitespace().collect();
    let decoded = BASE64_STANDARD.decode(encoded).ok()?;
    let pem = String::from_utf8(decoded).ok()?;
    Some(pem).filter(|pem| pem.contains(PEM))
}

/// What a message says in place of the value, which may be a key: only what is a path for certain.
/// Base64 contains no dot, and neither PEM nor DER in base64 begins with a slash.
fn shown(text: &str) -> &str {
    let is_path = (text.starts_with('/') || text.contains('.')) && !text.contains('\n');
    if is_path && text.len() <= LONGEST_PATH {
        text
    } else {
        "the text that is given"
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn issued() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn read(certificates: &[&str], keys: &[&str]) -> Result<Arc<ServerCertificate>, String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let files = CertificateFiles {
            certificates: owned(certificates),
            keys: owned(keys),
        };
        let folder = tempfile::tempdir().unwrap();
        let read = listener_certificate("admin_", &files, folder.path());
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_is_a_path_or_pem_or_base64() {
        let (cert, key) = issued();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        std::fs::write(&path, &cert).unwrap();
        let encoded = BASE64_STANDARD.encode(&key);
        assert!(read(&[path.to_str().unwrap()], &[&encoded]).is_ok());
        assert!(read(&[&cert], &[&key]).is_ok());
        assert!(read(&[], &[]).is_ok());
    }

    #[test]
    fn base64_may_have_line_breaks() {
        let (cert, key) = issued();
        let mut broken = String::new();
        for line in BASE64_STANDARD.encode(&key).as_bytes().chunks(76) {
            broken.push_str(std::str::from_utf8(line).unwrap());
            broken.push_str("\r\n");
        }
        assert!(read(&[&cert], &[&broken]).is_ok());
    }

    #[test]
    fn a_message_shows_paths_and_no_text_that_may_be_a_key() {
        let (cert, _) = issued();
        let long = format!("/{}", "a".repeat(300));
        for hidden in [
            "MC4CAQAwBQYDK2VwBCIEIC/secret/0123",
            "secret",
            "MC4CAQAw/secret\nBQYDK2Vw.",
            &long,
        ] {
            let told = read(&[&cert], &[hidden]).unwrap_err();
            let expected = "admin_ssl_cert_key: failed loading key from the text that is given";
            assert_eq!(told, expected);
        }
        for path in ["/none/key", "../none/key", "tls/none.key"] {
            assert_eq!(shown(path), path);
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_reported_with_kongs_messages() {
        let ((cert, key), (other, _)) = (issued(), issued());
        for (certificates, keys, told) in [
            (vec![&*cert], vec![], "admin_ssl_cert_key must be specified"),
            (vec![], vec![&*key], "admin_ssl_cert must be specified"),
            (
                vec![&*cert, &*cert],
                vec![&*key],
                "admin_ssl_cert was specified 2 times while admin_ssl_cert_key was specified 1 times",
            ),
            (
                vec!["/none.crt"],
                vec![&*key],
                "admin_ssl_cert: failed loading certificate from /none.crt",
            ),
            (
                vec![&*cert],
                vec!["none.key"],
                "admin_ssl_cert_key: failed loading key from none.key",
            ),
        ] {
            assert_eq!(read(&certificates, &keys).unwrap_err(), told);
        }
        let refused = read(&[&other], &[&key]).unwrap_err();
        assert!(refused.ends_with("does not match the key"), "{refused}");
        assert!(!refused.contains(key.lines().nth(1).unwrap()));
    }
}
