//! Parses the text of single settings.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use minisign_verify::PublicKey;
use tracing_subscriber::filter::{LevelFilter, Targets};
use url::Url;

use super::{AdminToken, DnsType};

/// Parses every entry of a list, or returns those that are wrong.
pub(super) fn each<T>(
    entries: &[&str],
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Vec<String>> {
    let mut values = Vec::new();
    let mut wrong = Vec::new();
    for entry in entries {
        match read(entry) {
            Some(value) => values.push(value),
            None => wrong.push((*entry).to_owned()),
        }
    }
    if wrong.is_empty() {
        Ok(values)
    } else {
        Err(wrong)
    }
}

/// The entries of a list that restricts access. One that is written without an entry is a mistake,
/// such as a variable of a secret that is missing: read as "none", it would let everyone in.
pub(super) fn non_empty<'a, 'b>(entries: &'a [&'b str]) -> Result<&'a [&'b str], Vec<String>> {
    if entries.is_empty() {
        return Err(vec![String::new()]);
    }
    Ok(entries)
}

/// The entries of a list as they are.
pub(super) fn owned(entries: &[&str]) -> Vec<String> {
    entries.iter().map(|entry| (*entry).to_owned()).collect()
}

/// The number of cores that the process may use.
pub(super) fn cores() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.to_string()
}

/// A switch, as Kong reads it.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "on" | "true" => Some(true),
        "off" | "false" => Some(false),
        _ => None,
    }
}

/// A time as nginx writes it: a number of seconds, or with a unit.
pub(super) fn time(text: &str) -> Option<Duration> {
    let (number, factor) = match text.strip_suffix(|unit: char| unit.is_ascii_alphabetic()) {
        None => (text, 1),
        Some(number) => match text.as_bytes().last()? {
            b's' => (number, 1),
            b'm' => (number, 60),
            b'h' => (number, 3600),
            b'd' => (number, 86_400),
            _ => return None,
        },
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| is_number)?;
    number.checked_mul(factor).map(Duration::from_secs)
}

/// What is logged, as a level or as directives.
pub(super) fn log(text: &str) -> Option<Targets> {
    // Parsed as a directive, a word that is not a level would be the name of a module.
    if !text.contains(['=', ',']) {
        let level: LevelFilter = text.parse().ok()?;
        return Some(Targets::new().with_default(level));
    }
    text.parse().ok()
}

/// The URL of a web page as it is written, and its origin as browsers write it (RFC 6454, 6.2).
pub(super) fn page(url: &str) -> Option<(String, String)> {
    let parsed = Url::parse(url).ok()?;
    let is_web = matches!(parsed.scheme(), "http" | "https");
    is_web.then(|| (url.to_owned(), parsed.origin().ascii_serialization()))
}

/// A prefix of paths, without the slash at its end.
pub(super) fn prefix(text: &str) -> Option<String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_segment = |segment: &str| {
        let is_dots = matches!(segment, "." | "..");
        !segment.is_empty() && !is_dots && segment.bytes().all(is_allowed)
    };
    let mut segments = path.split('/');
    (segments.next() == Some("") && segments.all(is_segment)).then(|| path.to_owned())
}

/// A host name, in lower case and without a trailing dot.
pub(super) fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!name.is_empty() && name.bytes().all(allowed)).then(|| name.to_ascii_lowercase())
}

/// An address; if it has no port, that of DNS is added.
pub(super) fn dns_server(text: &str) -> Option<SocketAddr> {
    let with_port = text.parse().ok();
    with_port.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53)))
}

/// Types of records, of which at least one leads to addresses.
pub(super) fn dns_order(entries: &[&str]) -> Result<Vec<DnsType>, Vec<String>> {
    let types = each(entries, |word| match word.to_ascii_uppercase().as_str() {
        "SRV" => Some(Some(DnsType::Srv)),
        "A" => Some(Some(DnsType::A)),
        "AAAA" => Some(Some(DnsType::Aaaa)),
        "LAST" => Some(Some(DnsType::Last)),
        // A type of Kong. Every look-up here follows CNAME records, so it has no effect.
        "CNAME" => Some(None),
        _ => None,
    })?;
    let order: Vec<DnsType> = types.into_iter().flatten().collect();
    if order.iter().all(|kind| *kind == DnsType::Last) {
        return Err(vec![entries.join(",")]);
    }
    Ok(order)
}

/// A minisign public key.
pub(super) fn public_key(text: &str) -> Option<PublicKey> {
    PublicKey::from_base64(text).ok()
}

/// Tokens of the Admin API, each with a name of its own. Of a wrong entry only the start is
/// returned, since it may be a token instead of its hash.
pub(super) fn admin_tokens(entries: &[&str]) -> Result<Vec<AdminToken>, Vec<String>> {
    let mut tokens: Vec<AdminToken> = Vec::new();
    let mut wrong = Vec::new();
    for entry in entries {
        let is_new = |token: &AdminToken| !tokens.iter().any(|known| known.name == token.name);
        match AdminToken::parse(entry).filter(is_new) {
            Some(token) => tokens.push(token),
            None => {
                let name = entry.split_once(':').map_or("", |(name, _)| name);
                wrong.push(format!("{name}…"));
            }
        }
    }
    if wrong.is_empty() {
        Ok(tokens)
    } else {
        Err(wrong)
    }
}
