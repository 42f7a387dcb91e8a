//! In place of a policy whose stored settings cannot be used: refuses all requests.

use http::StatusCode;

use super::answer::Answer;
use super::request::Request;
use super::{Access, DryRun, Policy, Stream};

/// Refuses all requests.
#[derive(Debug)]
pub(super) struct Unusable;

impl Policy for Unusable {
    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

    fn access<'a>(&'a self, _: &'a mut Request<'_>) -> Access<'a> {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Answer::error(status, "An unexpected error occurred").into()
    }

    fn admits_stream(&self, _: &Stream) -> bool {
        false
    }
}
