//! The body of a request, as policies read and replace it.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::StatusCode;

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

    fn read(&self, limit: usize) -> LocalBoxFuture<'_, Result<Option<Bytes>, StatusCode>> {
        async move { self.0.whole(limit).await }.boxed_local()
    }

    fn limit(&self, most: u64, refusal: Answer) -> Option<Answer> {
        self.0.limit(most, refusal)
    }

    fn replace(&self, body: Bytes) {
        self.0.replace(body);
    }
}
