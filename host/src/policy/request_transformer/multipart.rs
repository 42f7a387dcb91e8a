//! The parts of a multipart form (RFC 7578) as fields that can be changed. A part that is not
//! changed stays as it was sent.

use bytes::{BufMut, Bytes, BytesMut};

use super::super::body_fields::{BodyFields, Part, boundary};
use super::super::transform::Fields;

/// A multipart form.
pub(super) struct Multipart {
    boundary: Vec<u8>,
    /// The bytes before the first part.
    head: Bytes,
    parts: Vec<Part>,
    /// The bytes after the last part.
    tail: Bytes,
}

impl Multipart {
    /// `None` if the body is malformed.
    pub(super) fn read(content_type: &[u8], body: &Bytes) -> Option<Self> {
        let boundary = boundary(content_type)?;
        let (head, parts, tail) = BodyFields::read(content_type, body)?.into_parts();
        Some(Self {
            boundary,
            head,
            parts,
            tail,
        })
    }

    pub(super) fn write(&self) -> Bytes {
        let mut body = BytesMut::from(&*self.head);
        for part in &self.parts {
            body.put_slice(&part.bytes);
        }
        body.put_slice(&self.tail);
        body.freeze()
    }

    /// A part with a value and no further headers.
    fn part(&self, name: &str, value: &[u8]) -> Part {
        // A quote or a line end would end the name.
        let name = name.replace(['"', '\r', '\n', '\\'], "_");
        let mut bytes = BytesMut::new();
        bytes.put_slice(b"--");
        bytes.put_slice(&self.boundary);
        bytes.put_slice(b"\r\nContent-Disposition: form-data; name=\"");
        bytes.put_slice(name.as_bytes());
        bytes.put_slice(b"\"\r\n\r\n");
        bytes.put_slice(value);
        bytes.put_slice(b"\r\n");
        Part {
            name: name.into_bytes(),
            value: Bytes::copy_from_slice(value),
            bytes: bytes.freeze(),
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        let mut parts = self.parts.iter();
        parts.position(|part| part.name == name.as_bytes())
    }
}

impl Fields<String> for Multipart {
    fn has(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    fn remove(&mut self, name: &str) {
        self.parts.retain(|part| part.name != name.as_bytes());
    }

    fn rename(&mut self, old: &str, new: &str) {
        self.remove(new);
        for at in 0..self.parts.len() {
            if self.parts[at].name == old.as_bytes() {
                self.parts[at] = self.part(new, &self.parts[at].value);
            }
        }
    }

    fn set(&mut self, name: &str, value: String) {
        let part = self.part(name, value.as_bytes());
        match self.position(name) {
            Some(at) => {
                let others = self.parts.split_off(at + 1);
                self.parts[at] = part;
                let others = others.into_iter();
                let others = others.filter(|other| other.name != name.as_bytes());
                self.parts.extend(others);
            }
            None => self.parts.push(part),
        }
    }

    fn append(&mut self, name: &str, value: String) {
        let part = self.part(name, value.as_bytes());
        self.parts.push(part);
    }
}
