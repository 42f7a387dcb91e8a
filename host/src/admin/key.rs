//! How a path names a row.

use uuid::Uuid;

use super::error::Error;
use crate::entity::{Declaration, Kind, Row, uuid};

/// How a path identifies a row.
pub(super) enum Key {
    Id(Uuid),
    /// By the value of a field.
    Name(&'static str, String),
}

impl Key {
    /// The key at the end of a path below the root.
    ///
    /// # Errors
    /// No row can have this name.
    pub(super) fn of(kind: Kind, text: &str) -> Result<Self, Error> {
        let declaration = kind.declaration();
        Self::by(declaration, declaration.endpoint_key, text)
    }

    /// The key at the end of a path below another row.
    ///
    /// # Errors
    /// As above.
    pub(super) fn nested(kind: Kind, text: &str) -> Result<Self, Error> {
        let declaration = kind.declaration();
        Self::by(declaration, declaration.nested_key(), text)
    }

    /// A key that is an id or, if a field is given, the value of that field.
    fn by(
        declaration: &Declaration,
        field: Option<&'static str>,
        text: &str,
    ) -> Result<Self, Error> {
        if let Some(id) = uuid(text) {
            return Ok(Self::Id(id));
        }
        let Some(field) = field else {
            return Err(Error::primary_key_form(text));
        };
        let checked = declaration.check_key(field, text);
        checked.map_err(|message| Error::unique_key(field, message))?;
        Ok(Self::Name(field, declaration.stored_form(field, text)))
    }

    pub(super) fn missing(&self) -> Error {
        let (name, value) = match self {
            Self::Id(id) => ("id", id.to_string()),
            Self::Name(field, text) => (*field, text.clone()),
        };
        Error::no_row(&Row::from_iter([(name.to_owned(), value.into())]))
    }
}
