//! The encoding of protocol buffers, as far as etcd's messages need it.

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Adds a number or a boolean. Negative numbers are not needed.
    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// Adds bytes or a text.
    pub(super) fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds a message.
    pub(super) fn message(self, field: u32, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// Adds each of several messages.
    pub(super) fn messages<'a>(
        self,
        field: u32,
        values: impl IntoIterator<Item = &'a Self>,
    ) -> Self {
        let values = values.into_iter();
        values.fold(self, |message, value| message.message(field, value))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The number; 0 for another value.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }

    /// The bytes; none for another value.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Number(_) => &[],
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// A message that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The fields of a message with their numbers, in the order in which they are written.
pub(super) fn fields(message: &[u8]) -> Result<Vec<(u64, Value<'_>)>, Malformed> {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut rest)?),
            1 => Value::Bytes(take(&mut rest, 8)?),
            2 => {
                let length = varint(&mut rest)?;
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                Value::Bytes(take(&mut rest, length)?)
            }
            5 => Value::Bytes(take(&mut rest, 4)?),
            _ => return Err(Malformed),
        };
        fields.push((key >> 3, value));
    }
    Ok(fields)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, left) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = left;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = rest.split_first().ok_or(Malformed)?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_has_the_bytes_of_the_specification() {
        // Source: protobuf.dev, Encoding: 150 in field 1, and the text "testing" in field 2.
        let message = Message::default().number(1, 150).bytes(2, b"testing");
        assert_eq!(
            message.into_bytes(),
            [b"\x08\x96\x01\x12\x07", b"testing".as_slice()].concat()
        );
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            entries in prop::collection::vec((1..1000_u32, any::<Option<u64>>(), any::<Vec<u8>>()), 0..20),
        ) {
            let mut message = Message::default();
            for (field, number, bytes) in &entries {
                message = match number {
                    Some(number) => message.number(*field, *number),
                    None => message.bytes(*field, bytes),
                };
            }
            let written = message.into_bytes();
            let expected = entries.iter().map(|(field, number, bytes)| {
                (u64::from(*field), number.map_or(Value::Bytes(bytes), Value::Number))
            });
            prop_assert_eq!(fields(&written), Ok(expected.collect::<Vec<_>>()));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in any::<Vec<u8>>()) {
            let _ = fields(&bytes);
        }
    }
}
