//! Properties that hold for what connections begin with; see `crate::fuzzing`.

use super::proxy_protocol::{client, length};
use super::server_name::{Hello, parse};

/// The length of a header of the PROXY protocol is the same, however many bytes were received, and
/// the header is either read or refused.
pub fn proxy_protocol(input: &[u8]) {
    let whole = length(input);
    for received in 0..input.len() {
        match length(&input[..received]) {
            Ok(None) => {}
            decided => assert_eq!(decided, whole, "{received}"),
        }
    }
    if let Ok(Some(end)) = whole
        && let Ok(Some(client)) = client(&input[..end.min(input.len())])
    {
        assert!(!client.to_string().is_empty());
    }
}

/// The first byte says how much of a first message of TLS was received at first. The server name
/// does not depend on it, and is one that a route can have.
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
