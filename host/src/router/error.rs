//! Why a stored route cannot be matched.

use thiserror::Error;

use crate::pattern::PatternError;

/// Why a stored route cannot be matched.
#[derive(Debug, Error)]
#[error("{cause}")]
pub struct RouteError {
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong with it.
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

impl RouteError {
    pub(super) fn new(
        field: &'static str,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            field,
            cause: Box::new(cause),
        }
    }

    /// Whether the route would compile if the patterns of other routes left more memory.
    pub fn is_want_of_room(&self) -> bool {
        matches!(
            self.cause.downcast_ref::<PatternError>(),
            Some(PatternError::NoRoom { .. })
        )
    }
}
