//! The end of a request that has policies or is logged: passes the body of the response through the
//! filters of the policies, and has the record made when the last byte was sent.

use bytes::Bytes;
use http_body::Frame;

use super::super::client::Client;
use super::super::download::Error;
use super::super::request_id::RequestId;
use super::super::tunnel::TunnelBytes;
use super::recorder::Recorder;
use crate::policy::response::BodyFilter;

/// What is left to do for a request while its response is sent.
pub(in super::super) struct Finish {
    filters: Vec<Box<dyn BodyFilter>>,
    keeps_length: bool,
    /// Trailers that follow what the filters have sent at the end.
    trailers: Option<Frame<Bytes>>,
    recorder: Option<Recorder>,
}

/// What the filters make of a frame.
pub(in super::super) enum Passed {
    /// They keep it for later.
    Nothing,
    /// What is sent: a frame, or the end of the body.
    Frame(Option<Result<Frame<Bytes>, Error>>),
}

impl Finish {
    /// `None` if there is nothing left to do.
    pub(in super::super) fn new(
        filters: Vec<Box<dyn BodyFilter>>,
        keeps_length: bool,
        recorder: Option<Recorder>,
    ) -> Option<Box<Self>> {
        (recorder.is_some() || !filters.is_empty() || !keeps_length).then(|| {
            Box::new(Self {
                filters,
                keeps_length,
                trailers: None,
                recorder,
            })
        })
    }

    /// Whether the body passes filters.
    pub(in super::super) fn has_filters(&self) -> bool {
        !self.filters.is_empty()
    }

    /// Whether all filters keep the length of the body.
    pub(in super::super) fn keeps_length(&self) -> bool {
        self.keeps_length
    }

    /// The trailers, once they are next.
    pub(in super::super) fn trailers(&mut self) -> Option<Frame<Bytes>> {
        self.trailers.take()
    }

    /// Passes a frame through the filters. `is_last` is whether no other frame follows it.
    pub(in super::super) fn pass(
        &mut self,
        frame: Option<Result<Frame<Bytes>, Error>>,
        is_last: bool,
    ) -> Passed {
        let is_trailers = matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
        let (piece, trailers) = match frame {
            Some(Err(error)) => {
                // The body is not complete: the filters do not see an end.
                self.filters.clear();
                return Passed::Frame(Some(Err(error)));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => (self.data(piece), None),
                Err(trailers) => (Bytes::new(), self.pass_trailers(trailers)),
            },
            None => (Bytes::new(), None),
        };
        let is_end = is_last || is_trailers;
        let tail = if is_end { self.end() } else { Bytes::new() };
        let piece = match (piece.is_empty(), tail.is_empty()) {
            (_, true) => piece,
            (true, false) => tail,
            (false, false) => [piece, tail].concat().into(),
        };
        if !piece.is_empty() {
            self.trailers = trailers;
            if let Some(recorder) = &mut self.recorder {
                recorder.sent += piece.len() as u64;
            }
            return Passed::Frame(Some(Ok(Frame::data(piece))));
        }
        match trailers {
            Some(trailers) => Passed::Frame(Some(Ok(trailers))),
            None if is_end => Passed::Frame(None),
            None => Passed::Nothing,
        }
    }

    /// Shows the filters the trailers. Returns those that they have left.
    fn pass_trailers(&mut self, trailers: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let mut trailers = trailers.into_trailers().ok()?;
        let had_any = !trailers.is_empty();
        for filter in &mut self.filters {
            filter.trailers(&mut trailers);
        }
        let are_taken = had_any && trailers.is_empty();
        (!are_taken).then(|| Frame::trailers(trailers))
    }

    /// What is sent in place of a piece of the body.
    fn data(&mut self, piece: Bytes) -> Bytes {
        let filters = self.filters.iter_mut();
        filters.fold(piece, |piece, filter| match piece.is_empty() {
            true => piece,
            false => filter.data(piece),
        })
    }

    /// What is sent at the end of the body. The filters see nothing after it.
    fn end(&mut self) -> Bytes {
        let mut tail = Bytes::new();
        for mut filter in self.filters.drain(..) {
            let passed = match tail.is_empty() {
                true => Bytes::new(),
                false => filter.data(tail),
            };
            let own = filter.end();
            tail = match (passed.is_empty(), own.is_empty()) {
                (_, true) => passed,
                (true, false) => own,
                (false, false) => [passed, own].concat().into(),
            };
        }
        tail
    }

    /// Adds what has passed through a tunnel.
    pub(in super::super) fn add_passed(&mut self, passed: TunnelBytes) {
        if let Some(recorder) = &mut self.recorder {
            recorder.sent += passed.sent;
            recorder.received += passed.received;
        }
    }

    /// Makes the record of the request.
    pub(in super::super) fn record(&mut self, client: &Client, id: &RequestId) {
        if let Some(recorder) = self.recorder.take() {
            recorder.record(client, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    /// Keeps the body to its end, and then sends it in upper case.
    #[derive(Default)]
    struct Whole(Vec<u8>);

    impl BodyFilter for Whole {
        fn data(&mut self, piece: Bytes) -> Bytes {
            self.0.extend_from_slice(&piece);
            Bytes::new()
        }

        fn end(&mut self) -> Bytes {
            self.0.to_ascii_uppercase().into()
        }

        fn keeps_length(&self) -> bool {
            false
        }
    }

    /// Doubles each byte, and ends the body with a mark.
    struct Doubled;

    impl BodyFilter for Doubled {
        fn data(&mut self, piece: Bytes) -> Bytes {
            piece.iter().flat_map(|byte| [*byte, *byte]).collect()
        }

        fn end(&mut self) -> Bytes {
            Bytes::from_static(b".")
        }

        fn keeps_length(&self) -> bool {
            false
        }
    }

    fn filtered(first: usize) -> Finish {
        let mut filters: Vec<Box<dyn BodyFilter>> = vec![Box::new(Whole::default())];
        filters.insert(first, Box::new(Doubled));
        Finish {
            filters,
            keeps_length: false,
            trailers: None,
            recorder: None,
        }
    }

    /// What is sent of a body: its bytes, and how many trailers; `None` if it breaks off.
    fn send(
        finish: &mut Finish,
        frames: Vec<Option<Result<Frame<Bytes>, Error>>>,
    ) -> (Vec<u8>, usize, bool) {
        let (mut sent, mut trailers, mut is_broken) = (Vec::new(), 0, false);
        let count = frames.len();
        for (at, frame) in frames.into_iter().enumerate() {
            if let Passed::Frame(Some(frame)) = finish.pass(frame, at + 1 == count) {
                match frame.map(Frame::into_data) {
                    Ok(Ok(piece)) => sent.extend_from_slice(&piece),
                    Ok(Err(_)) => trailers += 1,
                    Err(_) => is_broken = true,
                }
            }
        }
        trailers += usize::from(finish.trailers().is_some());
        (sent, trailers, is_broken)
    }

    proptest! {
        #[test]
        fn a_body_passes_all_filters_however_it_is_divided(
            pieces in proptest::collection::vec("[a-c]{0,3}", 0..5),
            has_trailers: bool,
            is_ended_apart: bool,
            first in 0_usize..2,
        ) {
            let body = pieces.concat();
            let mut frames: Vec<_> = pieces
                .into_iter()
                .map(|piece| Some(Ok(Frame::data(Bytes::from(piece)))))
                .collect();
            if has_trailers {
                frames.push(Some(Ok(Frame::trailers(HeaderMap::new()))));
            } else if is_ended_apart || frames.is_empty() {
                frames.push(None);
            }
            let doubled = |text: &str| text.chars().flat_map(|c| [c, c]).collect::<String>();
            let expected = match first {
                0 => format!("{}.", doubled(&body).to_uppercase()),
                _ => format!("{}.", doubled(&body.to_uppercase())),
            };
            let sent = send(&mut filtered(first), frames);
            prop_assert_eq!(sent, (expected.into_bytes(), usize::from(has_trailers), false));
        }
    }

    #[test]
    fn a_body_that_breaks_off_has_no_end() {
        for first in 0..2 {
            let mut finish = filtered(first);
            let frames = vec![
                Some(Ok(Frame::data(Bytes::from_static(b"ab")))),
                Some(Err("broken".into())),
            ];
            let (sent, _, is_broken) = send(&mut finish, frames);
            assert!(is_broken);
            assert_eq!(sent, b"");
            assert!(!finish.has_filters());
        }
    }
}
