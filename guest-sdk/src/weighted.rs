//! A pick with what the request weighs.

/// A position, with the cost of the request in units of the balancer.
///
/// ```
/// # use guest_sdk::Weighted;
/// // A prompt of 1,200 tokens, and an answer of about 300.
/// let pick = Weighted { position: 2, first_byte: 1200, rest: 300 };
/// # assert_eq!(Weighted::from(2), Weighted { first_byte: 0, rest: 0, ..pick });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weighted {
    /// A position in the table.
    pub position: usize,
    /// The part of the cost that is done with the first byte of the response's body.
    pub first_byte: u32,
    /// The part that is done with the end of the response.
    pub rest: u32,
}

/// A position for a request without a cost.
impl From<usize> for Weighted {
    fn from(position: usize) -> Self {
        Self {
            position,
            ..Self::default()
        }
    }
}
