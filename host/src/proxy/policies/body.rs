//! The body of a request, as policies read and replace it.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::StatusCode;

use super::super::respond::Reject;
use super::super::upload::Upload;
use crate::policy::answer::Answer;
use crate::policy::request::RequestBody;

/// The body of a request.
pub(super) struct PolicyBody<'a>(&'a Rc<Upload>);

impl<'a> PolicyBody<'a> {
    pub(super) fn new(upload: &'a Rc<Upload>) -> Self {
        Self(upload)
    }
}

impl RequestBody for PolicyBody<'_> {
    fn length(&self) -> Option<u64> {
        self.0.length()
    }

    fn read(&self, limit: usize) -> LocalBoxFuture<'_, Result<Option<Bytes>, Box<Answer>>> {
        async move { self.0.whole(limit).await.map_err(refusal) }.boxed_local()
    }

    fn limit(&self, most: u64, refusal: Answer) -> Option<Answer> {
        self.0.limit(most, refusal)
    }

    fn replace(&self, body: Bytes) {
        self.0.replace(body);
    }
}

/// The answer of a policy that cannot read the body of a request.
fn refusal(reject: Reject) -> Box<Answer> {
    match reject {
        Reject::Policy(answer) => answer,
        reject => {
            let status = reject.status();
            let message = match status {
                StatusCode::REQUEST_TIMEOUT => "Request timeout",
                _ => "Bad request",
            };
            Box::new(Answer::error(status, message))
        }
    }
}
