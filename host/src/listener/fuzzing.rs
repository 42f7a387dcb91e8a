//! Properties that hold for what connections begin with; see `crate::fuzzing`.

use super::proxy_protocol::{client, length};
use super::server_name::{Hello, parse};

/// A header of the PROXY protocol ends where it ends, however many bytes were received, and is
/// either read or refused.
pub fn proxy_protocol(input: &[u8]) {
    let whole = length(input);
    let end = match whole {
        Ok(Some(end)) => end,
        _ => input.len(),
    };
    assert!(end <= input.len());
    for received in 0..end {
        match whole {
            Ok(_) => assert_eq!(length(&input[..received]), Ok(None), "{received}"),
            Err(_) => drop(length(&input[..received])),
        }
    }
    if let Ok(Some(end)) = whole {
        assert_eq!(length(&input[..end]), whole);
        if let Ok(Some(client)) = client(&input[..end]) {
            assert!(!client.to_string().is_empty());
        }
    }
}

/// The first byte says how much of a first message of TLS was received at first. The server name does
/// not depend on it, and is one that a route can have.
pub fn client_hello(input: &[u8]) {
    let Some((&part, sent)) = input.split_first() else {
        return;
    };
    let received = &sent[..sent.len() * usize::from(part) / 256];
    match (parse(received), parse(sent)) {
        (Hello::Start, Hello::Whole(Some(name))) | (Hello::Whole(Some(name)), _) => {
            assert!(
                !name.is_empty() && name.to_ascii_lowercase() == *name,
                "{name}"
            );
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
        }
        (Hello::Invalid, whole) => assert_eq!(whole, Hello::Invalid),
        _ => {}
    }
    if let name @ Hello::Whole(_) = parse(received) {
        assert_eq!(parse(sent), name);
    }
}
