//! The path of a request: normalised for matching, and rewritten for the upstream.
//! Source: Kong 3.9, `kong.tools.uri` and the path handling of its router.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// How the path of a service and that of a request are joined. Source: Kong, `path_handling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum PathHandling {
    /// With a slash between them.
    #[default]
    V0,
    /// As they are, but with no more than one slash between them.
    V1,
}

/// Characters that are escaped before a path is sent: every byte that is neither unreserved nor
/// reserved in RFC 3986, except the `%` of an escape that was kept.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Brings a path into the form that routes are compared with: escapes of unreserved characters
/// decoded, others in upper case, `.` and `..` resolved (RFC 3986, 5.2.4), `//` merged.
///
/// Borrows the path if it is in this form already, as in nearly every request.
pub(crate) fn normalize(path: &[u8]) -> Cow<'_, [u8]> {
    if is_normal(path) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(resolve(&decode(path)))
}

/// The path of a request in the form that routes are compared with, as [`normalize`] makes it;
/// `None` if Kong refuses it, because servers disagree on what it names.
pub(crate) fn normalize_request(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    if is_normal(path) {
        return Some(Cow::Borrowed(path));
    }
    is_acceptable(path).then(|| normalize(path))
}

/// Whether each escape of a path is valid and stands for another byte than NUL, and no `..` leads
/// above the root. An escaped slash separates segments here. Source: nginx,
/// `ngx_http_parse_complex_uri`.
fn is_acceptable(path: &[u8]) -> bool {
    let Some(decoded) = decode_all(path) else {
        return false;
    };
    let mut depth = 0_usize;
    decoded.split(|&byte| byte == b'/').all(|segment| {
        let below = match segment {
            b"" | b"." => Some(depth),
            b".." => depth.checked_sub(1),
            _ => Some(depth + 1),
        };
        below.map(|below| depth = below).is_some()
    })
}

/// Decodes every escape; `None` if one is malformed or stands for NUL.
fn decode_all(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let byte = match byte {
            b'%' => {
                let (&[high, low], tail) = rest.split_first_chunk()?;
                rest = tail;
                Some(hex(high)? << 4 | hex(low)?).filter(|&value| value != 0)?
            }
            byte => byte,
        };
        decoded.push(byte);
    }
    Some(decoded)
}

/// A path in the form that routes are compared with; `None` if that is not valid UTF-8.
pub(crate) fn normal_path(path: &str) -> Option<String> {
    String::from_utf8(normalize(path.as_bytes()).into_owned()).ok()
}

/// The canonical spelling of a path: all paths that are equal for routes have the same one.
pub(crate) fn canonical_path(path: &str) -> String {
    let escaped = escape(normalize(path.as_bytes()).into_owned());
    String::from_utf8_lossy(&escaped).into_owned()
}

fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        // A segment that begins with a dot may be `.` or `..`; the slow path checks which.
        if byte == b'%' || (previous == b'/' && (byte == b'/' || byte == b'.')) {
            return false;
        }
        previous = byte;
    }
    path.first() == Some(&b'/')
}

/// Decodes `%XX` unless the character is reserved in RFC 3986 or `%` itself, since `%2F` and `/` do
/// not mean the same.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        if let (b'%', Some(&[high, low])) = (byte, tail.first_chunk::<2>())
            && let (Some(h), Some(l)) = (hex(high), hex(low))
        {
            let value = h << 4 | l;
            if b"!*'();:@&=+$,/?%#[]".contains(&value) {
                decoded.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
            } else {
                decoded.push(value);
            }
            rest = &tail[2..];
        } else {
            decoded.push(byte);
            rest = tail;
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn resolve(path: &[u8]) -> Vec<u8> {
    let mut resolved: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = resolved.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                resolved.truncate(parent);
            }
            _ => {
                resolved.push(b'/');
                resolved.extend_from_slice(segment);
            }
        }
        if last && matches!(segment, b"" | b"." | b"..") {
            resolved.push(b'/');
        }
    }
    resolved
}

/// The target of the request to the upstream, in origin form (RFC 9112, 3.2.1); see [`rewrite`].
pub(crate) fn target<'a>(
    base: &str,
    sent: &'a PathAndQuery,
    normalized: &[u8],
    stripped: usize,
    handling: PathHandling,
) -> Cow<'a, [u8]> {
    let is_kept = base == "/" && stripped == 0 && normalized == sent.path().as_bytes();
    if is_kept && !normalized.iter().any(must_escape) {
        return Cow::Borrowed(sent.as_str().as_bytes());
    }
    let mut target = match handling {
        PathHandling::V0 => rewrite(base, normalized, stripped),
        PathHandling::V1 => join(base, normalized, stripped),
    };
    if let Some(query) = sent.query() {
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
    Cow::Owned(target)
}

/// The path that the upstream gets. `base` is the service's path, `request` the normalised path of
/// the request, `stripped` how many bytes of it the route matched and removes (0 to keep all).
fn rewrite(base: &str, request: &[u8], stripped: usize) -> Vec<u8> {
    let mut path = Vec::with_capacity(base.len() + request.len() + 1);
    if stripped == 0 {
        let base = base.as_bytes();
        if let Some(bare) = base.strip_suffix(b"/") {
            path.extend_from_slice(bare);
            path.extend_from_slice(request);
        } else {
            path.extend_from_slice(base);
            if request != b"/" {
                path.extend_from_slice(request);
            }
        }
        return escape(path);
    }
    let rest = tidy(request.get(stripped..).unwrap_or_default());
    let ends_with_slash = request.len() > 1 && request.last() == Some(&b'/');
    let bare = base.strip_suffix('/').unwrap_or(base);
    path.extend_from_slice(bare.as_bytes());
    if rest.is_empty() {
        // If no rest is left, the path ends with a slash if the request does; an empty path becomes
        // `/`.
        if ends_with_slash || bare.is_empty() {
            path.push(b'/');
        }
    } else {
        path.push(b'/');
        path.extend_from_slice(rest.strip_prefix(b"/").unwrap_or(rest));
    }
    escape(path)
}

/// As [`rewrite`], but for `path_handling: v1`.
fn join(base: &str, request: &[u8], stripped: usize) -> Vec<u8> {
    let rest = match stripped {
        0 => request.strip_prefix(b"/").unwrap_or(request),
        stripped => tidy(request.get(stripped..).unwrap_or_default()),
    };
    let rest = match base.ends_with('/') {
        true => rest.strip_prefix(b"/").unwrap_or(rest),
        false => rest,
    };
    escape([base.as_bytes(), rest].concat())
}

/// Removes a leading `.` or `..` segment, so that the rest after the prefix cannot leave the
/// service's path.
fn tidy(rest: &[u8]) -> &[u8] {
    match rest {
        b"." | b".." => b"",
        _ => rest
            .strip_prefix(b"./")
            .or_else(|| rest.strip_prefix(b"../"))
            .unwrap_or(rest),
    }
}

/// A normalised path, or the rest of one behind a prefix, as it is sent.
pub(crate) fn sendable(rest: &[u8]) -> String {
    let rest = rest.strip_prefix(b"/").unwrap_or(rest);
    format!("/{}", percent_encode(rest, ESCAPED))
}

/// Whether a byte has to be escaped in a path: see [`ESCAPED`].
fn must_escape(byte: &u8) -> bool {
    !byte.is_ascii_graphic()
        || matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{'..=b'}')
}

fn escape(path: Vec<u8>) -> Vec<u8> {
    if path.iter().any(must_escape) {
        percent_encode(&path, ESCAPED).to_string().into_bytes()
    } else {
        path
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(path: &[u8]) -> String {
        String::from_utf8_lossy(&normalize(path)).into_owned()
    }

    #[test]
    fn paths_are_normalised_as_in_kong() {
        for (path, normal) in [
            ("/a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/.hidden", "/a/.hidden"),
            ("/%61%2fb%7e", "/a%2Fb~"),
            ("/a%zz", "/a%zz"),
            ("/", "/"),
            ("//", "/"),
        ] {
            assert_eq!(text(path.as_bytes()), normal, "{path}");
        }
    }

    #[test]
    fn a_path_that_servers_read_differently_is_refused() {
        for refused in [
            "/%",
            "/%4",
            "/%zz",
            "/%4g",
            "/a%2",
            "/a%00b",
            "/..",
            "/../a",
            "/a/../..",
            "/a/../../b",
            "//..",
            "/./..",
            "/%2e%2E",
            "/a/..%2f..",
            "/a%2f../../..",
        ] {
            assert_eq!(normalize_request(refused.as_bytes()), None, "{refused}");
        }
        for (path, normal) in [
            ("/", "/"),
            ("/a/..", "/"),
            ("/a/b/../../c", "/c"),
            ("/...", "/..."),
            ("/..a", "/..a"),
            ("/a%2fb/../..", "/"),
            ("/%25%32%35", "/%2525"),
            ("/%ff", "/\u{fffd}"),
        ] {
            let got = normalize_request(path.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&got), normal, "{path}");
        }
    }

    /// The table of `path_handling: v0`: base, matched prefix, request, stripped, kept.
    #[test]
    fn paths_are_rewritten_as_in_kong() {
        for (base, prefix, request, strip, keep) in [
            ("/", "/fee", "/fee", "/", "/fee"),
            ("/", "/fee", "/fee/", "/", "/fee/"),
            ("/", "/fee", "/fee/x", "/x", "/fee/x"),
            ("/", "/fee", "/feex", "/x", "/feex"),
            ("/", "/fee/", "/fee/x", "/x", "/fee/x"),
            ("/api", "/", "/", "/api", "/api"),
            ("/api", "/", "/x", "/api/x", "/api/x"),
            ("/api", "/fee", "/fee", "/api", "/api/fee"),
            ("/api", "/fee", "/fee/", "/api/", "/api/fee/"),
            ("/api", "/fee", "/fee/x", "/api/x", "/api/fee/x"),
            ("/api", "/fee", "/feex", "/api/x", "/api/feex"),
            ("/api", "/fee/", "/fee/", "/api/", "/api/fee/"),
            ("/api", "/fee/", "/fee/x", "/api/x", "/api/fee/x"),
            ("/api/", "/", "/x", "/api/x", "/api/x"),
            ("/api/", "/fee", "/fee", "/api", "/api/fee"),
            ("/api/", "/fee", "/fee/", "/api/", "/api/fee/"),
            ("/api/", "/fee", "/feex", "/api/x", "/api/feex"),
            ("/api/", "/fee/", "/fee/", "/api/", "/api/fee/"),
            ("/api/", "/fee/", "/fee/x", "/api/x", "/api/fee/x"),
        ] {
            let request = request.as_bytes();
            let case = format!("{base} {prefix} {request:?}");
            assert_eq!(
                rewrite(base, request, prefix.len()),
                strip.as_bytes(),
                "{case}"
            );
            assert_eq!(rewrite(base, request, 0), keep.as_bytes(), "{case}");
        }
    }

    /// The table of `path_handling: v1`.
    #[test]
    fn paths_are_joined_as_in_kong() {
        for (base, prefix, request, strip, keep) in [
            ("/", "/fee", "/fee", "/", "/fee"),
            ("/", "/fee", "/fee/", "/", "/fee/"),
            ("/", "/fee", "/feex", "/x", "/feex"),
            ("/api", "/", "/", "/api", "/api"),
            ("/api", "/", "/x", "/apix", "/apix"),
            ("/api", "/fee", "/fee", "/api", "/apifee"),
            ("/api", "/fee", "/fee/", "/api/", "/apifee/"),
            ("/api", "/fee", "/feex", "/apix", "/apifeex"),
            ("/api", "/fee/", "/fee/", "/api", "/apifee/"),
            ("/api", "/fee/", "/fee/x", "/apix", "/apifee/x"),
            ("/api/", "/", "/x", "/api/x", "/api/x"),
            ("/api/", "/fee", "/fee", "/api/", "/api/fee"),
            ("/api/", "/fee", "/fee/", "/api/", "/api/fee/"),
            ("/api/", "/fee", "/feex", "/api/x", "/api/feex"),
            ("/api/", "/fee/", "/fee/x", "/api/x", "/api/fee/x"),
        ] {
            let request = request.as_bytes();
            let case = format!("{base} {prefix} {request:?}");
            assert_eq!(
                join(base, request, prefix.len()),
                strip.as_bytes(),
                "{case}"
            );
            assert_eq!(join(base, request, 0), keep.as_bytes(), "{case}");
        }
    }

    #[test]
    fn rewritten_paths_are_escaped() {
        assert_eq!(rewrite("/", b"/a b\xff{", 0), b"/a%20b%FF%7B");
        assert_eq!(rewrite("/", b"/a%2Fb", 0), b"/a%2Fb");
        // The one that is sent as it came, as well.
        let sent = PathAndQuery::from_static("/a{|?b={");
        let target = target("/", &sent, b"/a{|", 0, PathHandling::V0);
        assert_eq!(&*target, b"/a%7B%7C?b={");
    }

    proptest! {
        #[test]
        fn a_normal_path_has_no_dot_or_empty_segments(path in "/[a-z./%2Ff~]{0,20}") {
            let once = normalize(path.as_bytes()).into_owned();
            prop_assert_eq!(once.first(), Some(&b'/'));
            prop_assert!(!once.windows(2).any(|pair| pair == b"//"));
            prop_assert!(!once.windows(3).any(|three| three == b"/./"));
            prop_assert!(!once.windows(4).any(|four| four == b"/../"));
        }

        #[test]
        fn an_accepted_path_has_its_usual_form(path in "/[a-z./%2Ff0]{0,20}") {
            if let Some(accepted) = normalize_request(path.as_bytes()) {
                prop_assert_eq!(accepted, normalize(path.as_bytes()));
            }
        }

        #[test]
        fn any_rewritten_path_can_be_sent(
            base in "/|/[a-z]{1,5}/?",
            path in prop::collection::vec(any::<u8>(), 0..20),
            stripped in 0_usize..25,
        ) {
            let mut request = vec![b'/'];
            request.extend(path);
            let sent = rewrite(&base, &normalize(&request), stripped);
            prop_assert_eq!(sent.first(), Some(&b'/'));
            prop_assert!(sent.iter().all(u8::is_ascii_graphic));
        }
    }
}
