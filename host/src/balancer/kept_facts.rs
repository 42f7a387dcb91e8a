//! The facts of a request as a copy, for a balancer that is asked on another thread.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::body::{BodyAnswer, ReadBody};
use super::facts::RequestFacts;
use crate::trace::BodyQuestion;

/// Approximate overhead of a copy, in bytes.
const OVERHEAD: usize = 256;

/// How many bytes all copies have that exist at a time.
#[derive(Debug, Clone)]
pub(super) struct FactsBudget {
    used: Arc<AtomicUsize>,
    most: usize,
}

impl FactsBudget {
    pub(super) fn new(most: usize) -> Self {
        let used = Arc::default();
        Self { used, most }
    }

    /// Takes so many bytes, until the returned share is dropped; none if there are not as many
    /// left.
    fn take(&self, bytes: usize) -> Option<Share> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let share = Share {
            used: Arc::clone(&self.used),
            bytes,
        };
        (before.saturating_add(bytes) <= self.most).then_some(share)
    }
}

#[derive(Debug)]
struct Share {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A copy of what a balancer may ask about a request. Its headers are one piece of memory.
#[derive(Debug)]
pub(super) struct KeptFacts {
    method: Option<Box<str>>,
    path: Option<Box<str>>,
    query: Option<Box<str>>,
    client: Option<Box<str>>,
    /// Names and values, one after another.
    headers: Vec<u8>,
    /// The lengths of each name and value.
    lengths: Vec<(usize, usize)>,
    body: Option<(Bytes, bool)>,
    _share: Share,
}

impl KeptFacts {
    /// Copies the facts, with at most `most` bytes of the body. None if the budget is used up.
    pub(super) fn of(
        facts: &dyn RequestFacts,
        most: usize,
        budget: &FactsBudget,
    ) -> Option<Box<Self>> {
        let kept = |fact: Option<Cow<'_, str>>| fact.map(|text| text.into_owned().into_boxed_str());
        let texts = [facts.method(), facts.path(), facts.query(), facts.client()].map(kept);
        let (mut headers, mut lengths) = (Vec::new(), Vec::new());
        facts.headers(&mut |name, value| {
            headers.extend_from_slice(name.as_bytes());
            headers.extend_from_slice(value);
            lengths.push((name.len(), value.len()));
        });
        let body = (most > 0).then(|| facts.keep_body(most)).flatten();
        let text: usize = texts.iter().flatten().map(|text| text.len()).sum();
        let length = body.as_ref().map_or(0, |(body, _)| body.len());
        let lengths_size = lengths.len() * size_of::<(usize, usize)>();
        let share = budget.take(OVERHEAD + text + headers.len() + lengths_size + length)?;
        let [method, path, query, client] = texts;
        Some(Box::new(Self {
            method,
            path,
            query,
            client,
            headers,
            lengths,
            body,
            _share: share,
        }))
    }

    /// Whether the request has more of a body than is known; none if nothing is known of one.
    pub(super) fn is_body_cut(&self) -> Option<bool> {
        self.body.as_ref().map(|(_, is_cut)| *is_cut)
    }

    /// The facts, to be asked about.
    pub(super) fn view(&self) -> KeptView<'_> {
        let body = self.body.as_ref();
        KeptView {
            kept: self,
            body: body.map(|(bytes, is_cut)| ReadBody::new(bytes, *is_cut)),
        }
    }
}

/// A copy of facts whose body may be scanned.
pub(super) struct KeptView<'a> {
    kept: &'a KeptFacts,
    body: Option<ReadBody<'a>>,
}

impl RequestFacts for KeptView<'_> {
    fn method(&self) -> Option<Cow<'_, str>> {
        self.kept.method.as_deref().map(Cow::Borrowed)
    }

    fn path(&self) -> Option<Cow<'_, str>> {
        self.kept.path.as_deref().map(Cow::Borrowed)
    }

    fn query(&self) -> Option<Cow<'_, str>> {
        self.kept.query.as_deref().map(Cow::Borrowed)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = Vec::new();
        self.headers(&mut |known, value| {
            if known.eq_ignore_ascii_case(name) {
                values.push(String::from_utf8_lossy(value).into_owned());
            }
        });
        (!values.is_empty()).then(|| values.join(", ").into())
    }

    fn headers(&self, each: &mut dyn FnMut(&str, &[u8])) {
        let mut rest = &self.kept.headers[..];
        for (name, value) in &self.kept.lengths {
            let Some((known, after)) = rest.split_at_checked(*name) else {
                return;
            };
            let Some((text, after)) = after.split_at_checked(*value) else {
                return;
            };
            each(str::from_utf8(known).unwrap_or_default(), text);
            rest = after;
        }
    }

    fn client(&self) -> Option<Cow<'_, str>> {
        self.kept.client.as_deref().map(Cow::Borrowed)
    }

    fn body_start(&self, most: usize) -> Option<Cow<'_, [u8]>> {
        Some(self.body.as_ref()?.start(most).into())
    }

    fn of_body(&self, question: &BodyQuestion) -> Option<BodyAnswer> {
        self.body.as_ref()?.answer(question)
    }

    fn prepare(&self, questions: &[BodyQuestion]) {
        if let Some(body) = &self.body {
            body.prepare(questions);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Posted {
        headers: Vec<(String, Vec<u8>)>,
        body: ReadBody<'static>,
    }

    impl RequestFacts for Posted {
        fn method(&self) -> Option<Cow<'_, str>> {
            Some("POST".into())
        }
        fn path(&self) -> Option<Cow<'_, str>> {
            Some("/a".into())
        }
        fn client(&self) -> Option<Cow<'_, str>> {
            Some("192.0.2.7".into())
        }
        fn headers(&self, each: &mut dyn FnMut(&str, &[u8])) {
            for (name, value) in &self.headers {
                each(name, value);
            }
        }
        fn keep_body(&self, most: usize) -> Option<(Bytes, bool)> {
            Some(self.body.keep(most))
        }
    }

    fn posted(headers: Vec<(String, Vec<u8>)>, body: Vec<u8>) -> Posted {
        let body = Box::leak(Box::new(Bytes::from(body)));
        Posted {
            headers,
            body: ReadBody::shared(body, false),
        }
    }

    proptest! {
        /// A copy has the same answers, whatever is in the headers, and the start of the body.
        #[test]
        fn a_copy_answers_as_the_request_does(
            headers in prop::collection::vec(("[a-c]{1,2}", prop::collection::vec(any::<u8>(), 0..9)), 0..6),
            length in 0_usize..9000, most in 1_usize..9000,
        ) {
            let request = posted(headers.clone(), vec![b'x'; length]);
            let kept = KeptFacts::of(&request, most, &FactsBudget::new(1 << 20)).unwrap();
            let view = kept.view();
            let facts = [view.method(), view.path(), view.query(), view.client()];
            let facts = facts.map(|fact| fact.map(Cow::into_owned));
            let expected = [Some("POST"), Some("/a"), None, Some("192.0.2.7")];
            prop_assert_eq!(facts, expected.map(|fact| fact.map(str::to_owned)));
            for name in ["a", "b", "cc", "none"] {
                let own = headers.iter().filter(|(known, _)| known == name);
                let own: Vec<_> = own.map(|(_, value)| String::from_utf8_lossy(value)).collect();
                let expected = (!own.is_empty()).then(|| own.join(", "));
                let found = view.header(&name.to_uppercase());
                prop_assert_eq!(found.as_deref(), expected.as_deref());
            }
            prop_assert_eq!(view.body_start(usize::MAX).unwrap().len(), length.min(most));
            prop_assert_eq!(kept.is_body_cut(), Some(length > most));
            let known = view.of_body(&BodyQuestion::Length);
            prop_assert_eq!(known, Some(BodyAnswer::Length(length.min(most) as u64, length > most)));
        }
    }

    #[test]
    fn copies_are_made_until_the_budget_is_used_up_and_again_once_one_is_dropped() {
        let request = posted(Vec::new(), vec![b'x'; 10_000]);
        let budget = FactsBudget::new(25_000);
        let keep = |most| KeptFacts::of(&request, most, &budget);
        let first = [keep(usize::MAX), keep(usize::MAX)];
        assert!(first.iter().all(Option::is_some));
        assert!(keep(usize::MAX).is_none());
        // Without the body there is room, and what was refused has left no trace.
        assert!(keep(0).is_some());
        drop(first);
        assert!(keep(usize::MAX).is_some());
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
