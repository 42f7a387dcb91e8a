//! The certificate that clients are shown where the operator has given none.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};

use super::ServerCertificate;

/// How long a generated certificate is valid. Source: Kong.
const VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);

/// Clocks of clients may be this much behind.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads the certificate `name.crt` with its key `name.key` of a folder. If they are not there,
/// they are generated: self-signed, for `localhost`, with a key on P-256.
///
/// # Errors
/// A sentence: the files cannot be read or written, or they do not fit together.
pub(crate) fn open(folder: &Path, name: &str) -> Result<ServerCertificate, String> {
    let (certificate, key) = (
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
    );
    let shown = certificate.display();
    let read = |path: &Path| match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    };
    let (cert, key_text) = match (read(&certificate)?, read(&key)?) {
        (Some(cert), Some(key)) => (cert, key),
        // The certificate is written last, so a start that was interrupted is made up for.
        _ => {
            let (cert, key_text) = generate()
                .map_err(|error| format!("cannot generate the certificate {shown}: {error}"))?;
            fs::create_dir_all(folder)
                .and_then(|()| write(&key, &key_text))
                .and_then(|()| write(&certificate, &cert))
                .map_err(|error| format!("cannot write the certificate {shown}: {error}"))?;
            (cert, key_text)
        }
    };
    ServerCertificate::from_pem([(&*cert, &*key_text)])
        .map_err(|why| format!("{shown} cannot be used ({why}); delete it to have a new one"))
}

/// A certificate and its key, in PEM.
fn generate() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, "localhost");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Pointsman");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + VALIDITY).into();
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Writes a file that only this user can read.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tls::CertificateFacts;

    #[test]
    fn a_certificate_is_generated_once_and_its_key_is_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("ssl");
        open(&folder, "default").unwrap();
        let (crt, key) = (folder.join("default.crt"), folder.join("default.key"));
        let first = fs::read_to_string(&crt).unwrap();
        let mode = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let facts = CertificateFacts::from_pem(&first).unwrap();
        assert!(!facts.is_authority);
        open(&folder, "default").unwrap();
        assert_eq!(fs::read_to_string(&crt).unwrap(), first);
        // Without the key, the certificate is of no use.
        fs::remove_file(&key).unwrap();
        open(&folder, "default").unwrap();
        assert_ne!(fs::read_to_string(&crt).unwrap(), first);

        fs::write(&key, "x").unwrap();
        let refused = open(&folder, "default").unwrap_err();
        assert!(refused.contains("delete it"), "{refused}");
    }
}
