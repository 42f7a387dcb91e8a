//! OpenMetrics 1.0, which allows exemplars. The samples are those of the text format, so no series
//! has other labels or another name than there.

use std::fmt::Write;

use http::HeaderValue;
use http::header::GetAll;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether a client prefers OpenMetrics to the text format, by its header fields `Accept`
/// (RFC 9110, 12.5.1).
pub(super) fn is_preferred(accept: GetAll<'_, HeaderValue>) -> bool {
    let (mut openmetrics, mut text) = (0.0_f32, 0.0_f32);
    let fields = accept.iter().filter_map(|value| value.to_str().ok());
    for range in fields.flat_map(|field| field.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut is_known_version) = (1.0, true);
        for part in parts {
            match part.split_once('=') {
                Some(("q" | "Q", value)) => quality = value.parse().unwrap_or(0.0),
                Some(("version", version)) => {
                    is_known_version = matches!(version, "1.0.0" | "0.0.1");
                }
                _ => {}
            }
        }
        match &*kind {
            "application/openmetrics-text" if is_known_version => {
                openmetrics = openmetrics.max(quality);
            }
            "text/plain" => text = text.max(quality),
            _ => {}
        }
    }
    openmetrics > 0.0 && openmetrics >= text
}

/// A page of the text format as OpenMetrics. There, a counter has a name that ends in `_total`,
/// which is not part of the family's name; a counter of another name, as Kong has one, is of
/// unknown type.
pub(super) fn converted(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + "# EOF\n".len());
    let mut help = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let (family, kind) = match (kind, name.strip_suffix("_total")) {
                ("counter", Some(family)) => (family, "counter"),
                ("counter", None) | ("untyped", _) => (name, "unknown"),
                (kind, _) => (name, kind),
            };
            // Writing to memory does not fail.
            if let Some((_, help)) = help.take() {
                let help = help.replace('"', "\\\"");
                let _ = writeln!(text, "# HELP {family} {help}");
            }
            let _ = writeln!(text, "# TYPE {family} {kind}");
        } else {
            let _ = writeln!(text, "{line}");
        }
    }
    text.push_str("# EOF\n");
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use http::HeaderMap;
    use http::header::ACCEPT;

    use super::*;

    fn prefers(accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        is_preferred(headers.get_all(ACCEPT))
    }

    #[test]
    fn openmetrics_is_sent_to_clients_that_prefer_it() {
        // What Prometheus 2 and 3 send.
        assert!(prefers(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(prefers(
            "application/openmetrics-text; version=0.0.1; q=0.3, text/plain;q=0.2"
        ));
        for other in [
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.1, text/plain",
        ] {
            assert!(!prefers(other), "{other}");
        }
        assert!(!is_preferred(HeaderMap::new().get_all(ACCEPT)));
    }

    #[test]
    fn families_are_named_as_openmetrics_wants_and_samples_stay() {
        let page = "# HELP a_total A \"b\"\n# TYPE a_total counter\na_total{x=\"1\"} 2\n\
                    # HELP bytes B\n# TYPE bytes counter\nbytes 3\n\
                    # HELP c_total C\n# TYPE c_total gauge\nc_total 4\n";
        assert_eq!(
            converted(page),
            "# HELP a A \\\"b\\\"\n# TYPE a counter\na_total{x=\"1\"} 2\n\
             # HELP bytes B\n# TYPE bytes unknown\nbytes 3\n\
             # HELP c_total C\n# TYPE c_total gauge\nc_total 4\n# EOF\n"
        );
    }
}
