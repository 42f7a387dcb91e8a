//! How much a text may stand for. An alias of YAML shares the value of its anchor, so a few lines
//! can stand for billions of values.

use serde_json::Value;

use super::{TEXTS, VALUES, too_large};

/// What may still be built.
#[derive(Debug)]
pub(in super::super) struct TextBudget {
    values: usize,
    texts: usize,
}

impl TextBudget {
    /// As much as a text may stand for.
    pub(in super::super) fn of_text() -> Self {
        Self {
            values: VALUES,
            texts: TEXTS,
        }
    }

    /// Takes what a value with all inside it needs.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(in super::super) fn take_value(&mut self, value: &Value) -> Result<(), String> {
        self.take(1, value.as_str().map_or(0, str::len))?;
        match value {
            Value::Array(list) => list.iter().try_for_each(|value| self.take_value(value)),
            Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
                self.take(0, name.len())?;
                self.take_value(value)
            }),
            _ => Ok(()),
        }
    }

    /// Takes so many values, and texts of so many bytes.
    ///
    /// # Errors
    /// There is not as much.
    pub(in super::super) fn take(&mut self, values: usize, text: usize) -> Result<(), String> {
        let left = self.values.checked_sub(values);
        self.values = left.ok_or_else(too_large)?;
        let left = self.texts.checked_sub(text);
        self.texts = left.ok_or_else(|| {
            format!("its texts have more than {TEXTS} bytes, with aliases and defaults written out")
        })?;
        Ok(())
    }
}
