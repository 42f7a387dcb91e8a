//! Checks of texts in fields, with Kong's messages.

use std::net::IpAddr;

use serde_json::Value;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::authority::{Host, ip, parse_port, split_port, written_out};
use crate::endpoint_address::unix_path;
use crate::ip_ranges::ip_range;
use crate::tls::{self, Authorities};

/// Port of a target that is given without one. Source: Kong.
pub const DEFAULT_PORT: u16 = 8000;

/// Reads an id, in the form with hyphens alone, which its length tells apart: 32 hexadecimal digits
/// are an ordinary text. Source: Kong.
pub(crate) fn uuid(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok();
    id.filter(|_| text.len() == Hyphenated::LENGTH)
}

/// `name` of most entities.
pub(super) fn name(text: &str) -> Result<(), String> {
    let allowed = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "._-~".contains(c);
    if text.chars().all(allowed) {
        Ok(())
    } else {
        Err(format!(
            "invalid value '{text}': the only accepted ascii characters are alphanumerics or ., -, _, and ~"
        ))
    }
}

/// A tag: printable, without the two characters that separate tags in a filter.
pub(crate) fn tag(text: &str) -> Result<(), String> {
    if text
        .chars()
        .any(|c| c == ',' || c == '/' || c.is_ascii_control())
    {
        return Err(format!(
            "invalid tag '{text}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"
        ));
    }
    Ok(())
}

/// Most bytes of the key of a label, and of its value.
const LABEL: usize = 256;

/// The key of a label of a target. It can have no colon, since the label of a tag such as `zone:a`
/// has the key before its colon.
pub(super) fn label_key(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains(':') {
        return Err(format!(
            "invalid key '{text}': expected a text without a colon, such as zone"
        ));
    }
    label_value(text)
}

/// The value of a label of a target.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    if text.len() > LABEL || text.chars().any(char::is_control) {
        return Err(format!(
            "expected at most {LABEL} bytes without control characters"
        ));
    }
    Ok(())
}

/// A host without port: an address or a name.
pub(super) fn host(text: &str) -> Result<(), String> {
    if is_host(text) {
        return Ok(());
    }
    if unix_path(text).is_some() {
        return Err("a Unix socket can be the target of an upstream, which a host may name".into());
    }
    let (host, port) = split_port(text);
    if port.is_some_and(is_number) && is_host(host) {
        Err("must not have a port".into())
    } else {
        Err(format!("invalid value: {text}"))
    }
}

/// Certificates of authorities, in PEM.
pub(super) fn authority(text: &str) -> Result<(), String> {
    Authorities::parse(&[text.to_owned()]).map(|_| ())
}

/// A server name that a TLS client may send, or an address.
pub(super) fn server_name(text: &str) -> Result<(), String> {
    match tls::server_name(text) {
        Some(_) => Ok(()),
        None => Err(format!("invalid value: {text}")),
    }
}

/// Whether a text has digits, and nothing else.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A host with an optional port.
pub(super) fn host_with_optional_port(text: &str) -> Result<(), String> {
    host_in(text, text)
}

/// Checks a host with an optional port, which was written as in `told`. The sentences are Kong's.
fn host_in(text: &str, told: &str) -> Result<(), String> {
    let (host, port) = split_port(text);
    let is_right = port.is_none_or(|port| parse_port(port).is_some()) && is_host(host);
    if ip(text).is_some() || is_right {
        return Ok(());
    }
    if port.is_some_and(is_number) && is_host(host) {
        return Err("invalid port number".into());
    }
    let in_digits = |c: char| c.is_ascii_digit() || c == '.' || c == ':';
    let form = match text.matches(':').count() {
        2.. => "ipv6 address",
        _ if text.chars().all(in_digits) => "ipv4 address",
        _ => "hostname",
    };
    Err(format!("invalid {form}: {told}"))
}

/// A host of a route: as above, with an optional `*` as its leftmost or rightmost label.
pub(super) fn route_host(text: &str) -> Result<(), String> {
    let (host, _) = split_port(text);
    match host.matches('*').count() {
        0 => host_with_optional_port(text),
        1 if host.starts_with("*.") || host.ends_with(".*") => {
            // The `*` stands for a label.
            host_in(&text.replace('*', "wildcard"), text)
        }
        1 => Err("invalid wildcard: must be placed at leftmost or rightmost label".into()),
        _ => Err("invalid wildcard: must have at most one wildcard".into()),
    }
}

/// A TLS server name, with an optional `*` as its leftmost or rightmost character.
pub(super) fn sni(text: &str) -> Result<(), String> {
    if ip(text).is_some() || ip(split_port(text).0).is_some() {
        return Err("must not be an IP".into());
    }
    if split_port(text).1.is_some_and(is_number) {
        return Err("must not have a port".into());
    }
    match text.matches('*').count() {
        0 => host(text),
        1 if text.starts_with('*') || text.ends_with('*') => host(&text.replace('*', "w")),
        1 => Err("wildcard must be leftmost or rightmost character".into()),
        _ => Err("only one wildcard must be specified".into()),
    }
}

/// The name of an upstream.
pub(super) fn upstream_name(text: &str) -> Result<(), String> {
    let invalid = |why: &str| Err(format!("Invalid name ('{text}'); {why}"));
    if ip(text).is_some() || ip(split_port(text).0).is_some() {
        return invalid("no ip addresses allowed");
    }
    if !is_hostname(split_port(text).0) {
        return invalid("must be a valid hostname");
    }
    if split_port(text).1.is_some() {
        return invalid("no port allowed");
    }
    Ok(())
}

/// A path: absolute, without empty segments, in the characters of RFC 3986, correctly escaped.
pub(super) fn path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err("should start with: /".into());
    }
    if text.contains("//") {
        return Err("must not have empty segments".into());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%".contains(c);
    if !text.chars().all(allowed) {
        return Err(format!(
            "invalid path: '{text}' (characters outside of the reserved list of RFC 3986 found)"
        ));
    }
    rightly_escaped(text)
}

/// Whether two hexadecimal digits follow each `%`.
fn rightly_escaped(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let escape: String = text[at..].chars().take(3).collect();
        if escape.len() < 3 || !escape[1..].bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("invalid url-encoded value: '{escape}'"));
        }
    }
    Ok(())
}

/// A path of a route: a prefix in normal form, of any characters, or `~` and a regular expression.
/// A prefix may be escaped as well, as clients send it; Kong refuses that.
pub(super) fn route_path(text: &str) -> Result<(), String> {
    if let Some(pattern) = text.strip_prefix('~').filter(|p| p.starts_with('/')) {
        return is_pattern(pattern);
    }
    if !text.starts_with('/') {
        return Err("should start with: / (fixed path) or ~/ (regex path)".into());
    }
    if text.contains("//") {
        return Err("must not have empty segments".into());
    }
    rightly_escaped(text)?;
    let sent = crate::path::canonical_path(text);
    let normal = crate::path::normal_path(text).unwrap_or_else(|| sent.clone());
    if normal != text && sent != text {
        return Err(format!(
            "non-normalized path, consider use '{normal}' instead"
        ));
    }
    Ok(())
}

/// Whether a text is a valid regular expression. Whether there is room for it is checked when it is
/// compiled, together with those of all other routes.
fn is_pattern(pattern: &str) -> Result<(), String> {
    crate::pattern::is_pattern(pattern).map_err(|error| error.to_string())
}

/// The values of a header of a route: a single value that starts with `~*` is a regular expression.
pub(super) fn route_header_values(values: &[Value]) -> Result<(), String> {
    match values {
        [Value::String(value)] => value.strip_prefix("~*").map_or(Ok(()), is_pattern),
        _ => Ok(()),
    }
}

/// A method.
pub(super) fn method(text: &str) -> Result<(), String> {
    if text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        Ok(())
    } else {
        Err(format!("invalid value: {text}"))
    }
}

/// The name of a header.
pub(super) fn header_name(text: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !text.is_empty() && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(format!(
            "bad header name '{text}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
        ))
    }
}

/// A text that can be sent as the value of a header (RFC 9110, 5.5). One that cannot would be left
/// out of each response.
pub(super) fn header_value(text: &str) -> Result<(), String> {
    match text.chars().any(|c| c.is_ascii_control() && c != '\t') {
        true => Err("must not have control characters, since it is sent in a header".into()),
        false => Ok(()),
    }
}

/// The name of a header that a route matches.
pub(super) fn route_header_name(text: &str) -> Result<(), String> {
    if text.eq_ignore_ascii_case("host") {
        return Err(
            "cannot contain 'host' header, which must be specified in the 'hosts' attribute".into(),
        );
    }
    header_name(text)
}

/// The name of a cookie: a token (RFC 2616, 2.2). The sentence is Kong's.
pub(super) fn cookie_name(text: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b);
    if text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(
            "contains one or more invalid characters. ASCII control characters (0-31;127), space, \
             tab and the characters ()<>@,;:\\\"/?={}[] are not allowed."
                .into(),
        )
    }
}

/// A URL with a scheme and a host.
pub(super) fn url(text: &str) -> Result<(), String> {
    let (scheme, authority) = url_parts(text);
    if authority.is_none_or(|authority| split_user_info(authority).1.is_empty()) {
        return Err("missing host in url".into());
    }
    if scheme.is_none() {
        return Err("missing scheme in url".into());
    }
    Ok(())
}

/// Whether a URL has the name of a user, and maybe a password.
pub(super) fn has_user_info(url: &str) -> bool {
    let authority = url_parts(url).1;
    authority.is_some_and(|authority| split_user_info(authority).0.is_some())
}

/// The scheme and the authority of a URL, as far as it has them (RFC 3986, 3).
fn url_parts(url: &str) -> (Option<&str>, Option<&str>) {
    let is_scheme = |text: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(allowed)
    };
    let (scheme, rest) = match url.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, url),
    };
    let authority = rest.strip_prefix("//").map(|rest| {
        let end = rest.find(['/', '?', '#']);
        end.map_or(rest, |end| &rest[..end])
    });
    (scheme, authority)
}

/// The user and the host of an authority. The host has no port.
fn split_user_info(authority: &str) -> (Option<&str>, &str) {
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    (user, split_port(host).0)
}

/// An address or a range of addresses.
pub(super) fn ip_or_cidr(text: &str) -> Result<(), String> {
    match ip_range(text) {
        Some(_) => Ok(()),
        None => Err(format!("invalid ip or cidr range: '{text}'")),
    }
}

/// A target, in any of the forms that [`normalize_target`] takes.
pub(super) fn target(text: &str) -> Result<(), String> {
    match normalize_target(text) {
        Some(_) => Ok(()),
        None if text.starts_with("unix:") => Err(format!(
            "Invalid target ('{text}'); expected unix: and an absolute path of at most 107 bytes"
        )),
        None => Err(format!(
            "Invalid target ('{text}'); not a valid hostname or ip address"
        )),
    }
}

/// `host:port` as targets are stored: port 8000 unless given, IPv4 without leading zeros, IPv6
/// expanded and in brackets, names as they are. Or a Unix socket, which Kong does not have.
pub(super) fn normalize_target(text: &str) -> Option<String> {
    if unix_path(text).is_some() {
        return Some(text.to_owned());
    }
    if let Some(address) = ip(text) {
        return Some(address_with_port(address, DEFAULT_PORT));
    }
    let (host, port) = split_port(text);
    let port: u16 = port.map_or(Some(DEFAULT_PORT), parse_port)?;
    match ip(host) {
        Some(address) => Some(address_with_port(address, port)),
        None => is_hostname(host).then(|| format!("{host}:{port}")),
    }
}

fn address_with_port(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => {
            format!("[{}]:{port}", written_out(address))
        }
    }
}

/// An address or a name.
fn is_host(text: &str) -> bool {
    ip(text).is_some() || is_hostname(text)
}

fn is_hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_fits = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.bytes().all(allowed) && !label.ends_with('-')
    };
    // For Kong, digits and dots alone are an IPv4 address, and here an invalid one.
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    !name.is_empty() && !numeric && name.split('.').all(label_fits)
}

/// The form in which names of upstreams are compared, independent of spelling.
pub(super) fn same_host(text: &str) -> Option<String> {
    Host::of_setting(text).map(|host| host.as_str().to_owned())
}

/// The form in which targets are compared: the stored form, with names in lower case and without
/// the trailing dot.
pub(crate) fn same_target(text: &str) -> Option<String> {
    if unix_path(text).is_some() {
        return Some(text.to_owned());
    }
    let stored = normalize_target(text)?.to_ascii_lowercase();
    let (host, port) = stored.rsplit_once(':')?;
    let host = host.strip_suffix('.').unwrap_or(host);
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests;
