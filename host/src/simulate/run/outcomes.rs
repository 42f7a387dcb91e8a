//! How tries end, as balancers are told.

use super::super::fleet::Time;
use super::World;
use crate::endpoint::{EndReason, TryNotes};

/// Tells of a try that ends at the moment at which it was sent: with a status and the seconds of
/// `Retry-After`, or without a response.
pub(super) fn end_at_once(
    notes: Option<Box<TryNotes>>,
    response: Option<(u16, Option<u32>)>,
    now: Time,
) {
    let Some(mut notes) = notes else {
        return;
    };
    let why = match response {
        Some((status, retry_after)) => {
            notes.note_status(status, retry_after);
            EndReason::Complete
        }
        None => EndReason::Broken,
    };
    notes.end(why, now / 1000);
}

impl World<'_> {
    /// Notes how the present try of a request ends, if it is in flight. With the end of its
    /// response, it was answered 200.
    pub(super) fn end_try(&mut self, slot: usize, why: EndReason, now: Time) {
        let in_flight = self.requests[slot].in_flight.as_mut();
        if let Some(in_flight) = in_flight {
            if why == EndReason::Complete
                && let Some(notes) = in_flight.notes()
            {
                notes.note_status(200, None);
            }
            in_flight.end(why, || now / 1000);
        }
    }
}
