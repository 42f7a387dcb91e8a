//! `redirect`: sends clients elsewhere. Source: Kong 3.9, `redirect`.

use http::StatusCode;
use http::header::LOCATION;
use url::{Position, Url};

use super::answer::Answer;
use super::request::Request;
use super::{Access, DryRun, Policy};
use crate::entity::plugin::redirect::Config;
use crate::path;

/// Answers requests with another place.
#[derive(Debug)]
pub(super) struct Redirect {
    status: StatusCode,
    location: Location,
}

#[derive(Debug)]
enum Location {
    /// This text.
    Fixed(String),
    /// This URL, with the path and the query of the request.
    WithPath(Url),
}

impl Redirect {
    /// # Errors
    /// The location is no URL.
    pub(super) fn new(config: Config) -> Result<Self, String> {
        let location = match config.keep_incoming_path {
            false => Location::Fixed(config.location),
            true => Location::WithPath(
                config
                    .location
                    .parse()
                    .map_err(|error: url::ParseError| format!("{}: {error}", config.location))?,
            ),
        };
        Ok(Self {
            // The declaration allows no other status.
            status: StatusCode::from_u16(config.status_code)
                .unwrap_or(StatusCode::MOVED_PERMANENTLY),
            location,
        })
    }

    /// `path` is normalised, and the query is as the client sent it. Source: Kong.
    fn location(&self, path: &[u8], query: Option<&str>) -> String {
        match &self.location {
            Location::Fixed(text) => text.clone(),
            Location::WithPath(url) => {
                let mut text = url[..Position::BeforePath].to_owned();
                text.push_str(&path::sendable(path));
                if let Some(query) = query.filter(|query| !query.is_empty()) {
                    text.push('?');
                    text.push_str(query);
                }
                if let Some(fragment) = url.fragment() {
                    text.push('#');
                    text.push_str(fragment);
                }
                text
            }
        }
    }
}

impl Policy for Redirect {
    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let location = self.location(request.path, request.query.text());
        let answer = Answer::raw(self.status, "redirecting");
        answer.with_header(LOCATION, &location).into()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn location(keep_incoming_path: bool, location: &str, path: &str, query: &str) -> String {
        let config = Config {
            status_code: 301,
            location: location.into(),
            keep_incoming_path,
        };
        let redirect = Redirect::new(config).unwrap();
        redirect.location(path.as_bytes(), Some(query))
    }

    #[test]
    fn a_location_without_the_path_of_the_request_is_sent_as_it_is_written() {
        let written = "HTTPS://Example.com:443/a b?x=1#y";
        assert_eq!(location(false, written, "/p", "q"), written);
    }

    #[test]
    fn the_path_and_the_query_of_the_request_replace_those_of_the_location() {
        for (written, path, query, expected) in [
            ("https://example.com", "/p", "", "https://example.com/p"),
            (
                "https://example.com/a?x=1",
                "/p/q r%2F|",
                "y=%41&z={}",
                "https://example.com/p/q%20r%2F%7C?y=%41&z={}",
            ),
            (
                "https://example.com/a?x=1",
                "/p",
                "",
                "https://example.com/p",
            ),
            (
                "HTTPS://Example.COM:443/a#end",
                "/p",
                "",
                "https://example.com/p#end",
            ),
            (
                "http://example.com:443/",
                "/",
                "q",
                "http://example.com:443/?q",
            ),
        ] {
            assert_eq!(location(true, written, path, query), expected);
        }
    }
}
