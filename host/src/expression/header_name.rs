//! Names of headers, as routes write them.

use http::header::InvalidHeaderName;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The name of a header that a route asks for. `-` and `_` in it are the same, so `X-A` and `X_A`
/// find either; of a request that has both, the one with `_` counts. Source: Kong 3.9, which writes
/// the name with `_` and looks it up by `ngx.req.get_headers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentName {
    /// With `-` only.
    dashed: HeaderName,
    /// With `_` only, if that is another name.
    underscored: Option<HeaderName>,
}

impl SentName {
    /// # Errors
    /// Headers cannot have this name.
    pub(crate) fn parse(name: &str) -> Result<Self, InvalidHeaderName> {
        let dashed = name.replace('_', "-");
        let underscored = name.replace('-', "_");
        let differ = dashed != underscored;
        let underscored = differ.then(|| HeaderName::try_from(underscored));
        Ok(Self {
            dashed: HeaderName::try_from(dashed)?,
            underscored: underscored.transpose()?,
        })
    }

    /// The values of the header in a request.
    pub(crate) fn values<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let underscored = self.underscored.as_ref();
        let sent = underscored.filter(|name| headers.contains_key(*name));
        let values = headers.get_all(sent.unwrap_or(&self.dashed));
        values.iter().map(HeaderValue::as_bytes)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_dash_and_an_underscore_are_the_same() {
        let headers = |names: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(
                    HeaderName::from_static(name),
                    HeaderValue::from_static(name),
                );
            }
            headers
        };
        for written in ["X-A-B", "x_a_b", "X_a-b"] {
            let name = SentName::parse(written).unwrap();
            let found = |names: &[&'static str]| {
                let headers = headers(names);
                let values = name.values(&headers);
                values.map(<[u8]>::to_vec).collect::<Vec<_>>()
            };
            assert_eq!(found(&["x-a-b", "x-a-b"]), [b"x-a-b", b"x-a-b"]);
            assert_eq!(found(&["x_a_b"]), [b"x_a_b"]);
            assert_eq!(found(&["x-a-b", "x_a_b"]), [b"x_a_b"]);
            assert!(found(&["x-a_b", "x"]).is_empty());
        }
        assert!(SentName::parse("a b").is_err());
        assert!(SentName::parse("").is_err());
    }
}
