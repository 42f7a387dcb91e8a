//! The laws for what clients send to the Admin API; see `crate::fuzzing`.

#![expect(clippy::expect_used, reason = "a law that does not hold ends the run")]

use axum::body::Body;
use axum::extract::Request;
use futures_util::FutureExt;
use http::header::CONTENT_TYPE;
use minisign_verify::PublicKey;
use uuid::Uuid;

use super::{BODY_LIMIT, decode, upload};
use crate::config::RouterFlavor;
use crate::entity::{Kind, Row, view};
use crate::pattern::{PATTERN_MEMORY, PatternError};
use crate::router::Route;

/// The first byte selects the format of the rest, the second the entity. The laws: an accepted row
/// is read again as it was written, and an accepted route can be compiled.
pub fn form(input: &[u8]) {
    let Some((&[form, entity], body)) = input.split_first_chunk() else {
        return;
    };
    let content_type = match form % 3 {
        0 => "application/x-www-form-urlencoded",
        1 => "multipart/form-data; boundary=b",
        _ => "application/json",
    };
    let kind = Kind::ALL[usize::from(entity) % Kind::ALL.len()];
    let declaration = kind.declaration();
    let request = Request::builder().header(CONTENT_TYPE, content_type);
    let request = request.body(Body::from(body.to_vec())).expect("a request");
    let fields = decode::fields(declaration.fields, request, BODY_LIMIT);
    let fields = fields.now_or_never().expect("the body is there");
    let row = fields.map(|fields| declaration.create(Uuid::nil(), fields));
    let Ok(Ok(row)) = row else { return };
    let text = serde_json::to_vec(&row).expect("it can be written");
    let again: Row = serde_json::from_slice(&text).expect("it can be read again");
    assert_eq!(again, row);
    if kind == Kind::Route {
        let route = view(kind, row).expect("the data plane can read it");
        match Route::compile(route, RouterFlavor::default(), PATTERN_MEMORY) {
            Ok(route) => assert!(route.pattern_memory <= PATTERN_MEMORY),
            Err(error) => assert!(
                matches!(
                    error.cause.downcast_ref::<PatternError>(),
                    Some(PatternError::NoRoom { .. } | PatternError::TooLarge)
                ),
                "{error}"
            ),
        }
    }
}

/// No input is accepted as a signature by a key that did not make it.
pub fn signature(input: &[u8]) {
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let key = PublicKey::from_base64(key);
    let keys = [key.expect("minisign's own key")];
    let text = String::from_utf8_lossy(input);
    assert!(upload::verify(&keys, b"not signed", Some(&text)).is_err());
}
