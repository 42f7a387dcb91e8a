//! The content of an upload: a component, the fields beside it, and its signature.

use axum::extract::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use minisign_verify::{PublicKey, Signature};
use serde_json::Value;

use super::error::Error;
use super::{Admin, arguments, decode};

/// Room for the multipart framing around a component.
const FRAME: usize = 64 << 10;

/// The base64 of a `.minisig` file, for a body that is the component alone.
const SIGNATURE: HeaderName = HeaderName::from_static("x-pointsman-signature");

/// A component with the fields that came with it.
pub(super) struct Upload {
    pub(super) name: Option<String>,
    pub(super) tags: Value,
    pub(super) component: Bytes,
}

/// Reads an upload. If keys are configured, one of them must have signed it.
pub(super) async fn read(admin: &Admin, request: Request) -> Result<Upload, Error> {
    let limit = admin.config.balancer.upload;
    let content_type = request.headers().get(CONTENT_TYPE);
    // No parameter that is looked for contains bytes that this would replace.
    let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let content_type = content_type.unwrap_or_default().into_owned();
    let mut signature = signature_of(request.headers());
    let mut upload = Upload {
        name: None,
        tags: Value::Null,
        component: Bytes::new(),
    };
    let mut tags = Vec::new();
    let query = request.uri().query().unwrap_or_default().to_owned();
    for (name, value) in arguments::pairs(query.as_bytes())? {
        match &*name {
            "name" => upload.name = Some(value),
            "tags" => tags.extend(value.split(',').map(Value::from)),
            _ => {}
        }
    }
    let too_large = |error: Error| match error {
        // A component that is too large is a wrong field, like one that is wrong in another way.
        Error::Plain(StatusCode::PAYLOAD_TOO_LARGE, _) => Error::field(
            "component",
            format!(
                "the component is larger than the {limit} bytes that this gateway takes (setting balancer_upload)"
            ),
        ),
        other => other,
    };
    if content_type.starts_with("application/wasm") {
        let body = decode::read(request.into_body(), limit).await;
        upload.component = body.map_err(too_large)?;
    } else if content_type.starts_with("multipart/form-data") {
        let body = decode::read(request.into_body(), limit + FRAME).await;
        let body = body.map_err(too_large)?;
        for part in decode::parts(&content_type, body).await? {
            let text = || arguments::utf8(&part.name, part.content.to_vec());
            match part.name.as_str() {
                "name" => upload.name = Some(text()?),
                "tags" | "tags[]" => tags.push(text()?.into()),
                "component" => upload.component = part.content,
                "signature" => signature = Some(text()?),
                other => return Err(Error::field(other, "unknown field")),
            }
        }
    } else {
        // Kong has no such endpoint, and so no form of this error.
        return Err(Error::Plain(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the component with the media type application/wasm, or as the part component of a \
             form (multipart/form-data)"
                .into(),
        ));
    }
    if !tags.is_empty() {
        upload.tags = tags.into();
    }
    let keys = &admin.config.balancer.public_keys;
    verify(keys, &upload.component, signature.as_deref())
        .map_err(|reason| Error::Plain(StatusCode::FORBIDDEN, reason))?;
    Ok(upload)
}

/// The signature in the head of a request. A value that cannot be decoded counts as a wrong
/// signature.
fn signature_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(SIGNATURE)?;
    let file = STANDARD.decode(value.as_bytes()).unwrap_or_default();
    Some(String::from_utf8_lossy(&file).into_owned())
}

/// Checks that one of the keys has signed the component, unless there are no keys.
pub(super) fn verify(
    keys: &[PublicKey],
    component: &[u8],
    signature: Option<&str>,
) -> Result<(), String> {
    if keys.is_empty() {
        return Ok(());
    }
    let Some(signature) = signature else {
        return Err(
            "the component is not signed, and this gateway takes signed ones only (setting \
             balancer_public_keys): send the base64 of its .minisig file in the header \
             X-Pointsman-Signature, or the file as the part signature of a form"
                .into(),
        );
    };
    let signature = Signature::decode(signature).map_err(
        |_| "the signature is not the content of a .minisig file, or in a header not its base64",
    )?;
    // Signatures of minisign before 0.10, which are not over a hash, are not accepted.
    if keys
        .iter()
        .any(|key| key.verify(component, &signature, false).is_ok())
    {
        return Ok(());
    }
    Err(
        "the signature is not that of this component by one of the keys that this gateway knows \
         (setting balancer_public_keys)"
            .into(),
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use minisign::KeyPair;

    use super::*;

    fn sign(pair: &KeyPair, component: &[u8]) -> String {
        let signed = minisign::sign(None, &pair.sk, component, None, None);
        signed.unwrap().into_string()
    }

    #[test]
    fn one_of_the_keys_must_have_signed_these_bytes() {
        let pairs: Vec<KeyPair> = (0..3)
            .map(|_| KeyPair::generate_unencrypted_keypair().unwrap())
            .collect();
        let keys: Vec<PublicKey> = pairs[..2]
            .iter()
            .map(|pair| PublicKey::from_base64(&pair.pk.to_base64()).unwrap())
            .collect();
        for pair in &pairs[..2] {
            verify(&keys, b"component", Some(&sign(pair, b"component"))).unwrap();
            verify(&keys, b"another", Some(&sign(pair, b"component"))).unwrap_err();
        }
        let stranger = sign(&pairs[2], b"component");
        verify(&keys, b"component", Some(&stranger)).unwrap_err();
        verify(&keys, b"component", Some("")).unwrap_err();
        verify(&keys, b"component", None).unwrap_err();
        verify(&[], b"component", None).unwrap();
    }

    #[test]
    fn a_changed_trusted_comment_is_refused() {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let keys = [PublicKey::from_base64(&pair.pk.to_base64()).unwrap()];
        let signature = sign(&pair, b"component");
        // The trusted comment is signed as well.
        let other = signature.replace("trusted comment: ", "trusted comment: not ");
        assert_ne!(signature, other);
        verify(&keys, b"component", Some(&other)).unwrap_err();
    }
}
