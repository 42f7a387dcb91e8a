//! The fields of a request's body: of a form (WHATWG, URL), of a JSON object, or of a multipart
//! form (RFC 7578). Fields can be removed; what is left stays as the client has sent it.

use std::ops::Range;

use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::urlencoded;

/// A body with its fields.
#[derive(Debug)]
pub(super) struct BodyFields {
    body: Bytes,
    /// The bytes before the first field.
    head: Range<usize>,
    fields: Vec<Field>,
    /// What is between two fields, beside what belongs to them.
    separator: &'static [u8],
    /// The bytes after the last field.
    tail: Range<usize>,
}

/// A field of a body.
#[derive(Debug)]
struct Field {
    name: Vec<u8>,
    value: FieldValue,
    /// Its bytes in the body.
    span: Range<usize>,
}

/// The value of a field.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FieldValue {
    /// A text, or the content of a part, decoded.
    Text(Vec<u8>),
    /// A list of JSON.
    List,
    /// Another value of JSON.
    Other,
}

/// A field with the bytes that it takes in the body.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: Vec<u8>,
    /// The content of a part; empty for a value of JSON that is not a string.
    pub(super) value: Bytes,
    pub(super) bytes: Bytes,
}

/// The boundary of a multipart form.
pub(super) fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let (_, parameters) = split_at_first(content_type, b';')?;
    parameter(parameters, "boundary")
}

impl BodyFields {
    /// Reads a body of this media type; `None` if it is malformed, or of another type. The bytes of
    /// the media type need not be text, as servers ignore parameters that they do not know.
    pub(super) fn read(content_type: &[u8], body: &Bytes) -> Option<Self> {
        let (essence, parameters) =
            split_at_first(content_type, b';').unwrap_or((content_type, b""));
        let is = |media_type: &[u8]| essence.trim_ascii().eq_ignore_ascii_case(media_type);
        if is(b"application/x-www-form-urlencoded") {
            Some(Self::form(body))
        } else if is(b"application/json") {
            Self::json(body)
        } else if is(b"multipart/form-data") {
            Self::multipart(body, &parameter(parameters, "boundary")?)
        } else {
            None
        }
    }

    /// The values of all fields with this name.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &FieldValue> {
        let named = move |field: &&Field| field.name == name.as_bytes();
        self.fields.iter().filter(named).map(|field| &field.value)
    }

    /// The body without the fields of this name; `None` if there is none.
    pub(super) fn without(&self, name: &str) -> Option<Bytes> {
        let others = self.fields.iter();
        let others = others.filter(|field| field.name != name.as_bytes());
        let others: Vec<&[u8]> = others.map(|field| &self.body[field.span.clone()]).collect();
        (others.len() < self.fields.len()).then(|| {
            let head = &self.body[self.head.clone()];
            let tail = &self.body[self.tail.clone()];
            [head, &others.join(self.separator), tail].concat().into()
        })
    }

    /// The bytes before the first field, the fields, and the bytes after the last one.
    pub(super) fn into_parts(self) -> (Bytes, Vec<Part>, Bytes) {
        let body = &self.body;
        let fields = self.fields.into_iter();
        let parts = fields.map(|field| Part {
            name: field.name,
            value: match field.value {
                FieldValue::Text(text) => text.into(),
                FieldValue::List | FieldValue::Other => Bytes::new(),
            },
            bytes: body.slice(field.span),
        });
        (
            body.slice(self.head),
            parts.collect(),
            body.slice(self.tail),
        )
    }

    fn form(body: &Bytes) -> Self {
        let mut fields = Vec::new();
        let mut start = 0;
        for pair in body.split(|byte| *byte == b'&') {
            let span = start..start + pair.len();
            start = span.end + 1;
            if let Some((name, value)) = urlencoded::pairs(pair).next() {
                fields.push(Field {
                    name: name.into_owned(),
                    value: FieldValue::Text(value.into_owned()),
                    span,
                });
            }
        }
        Self {
            body: body.clone(),
            head: 0..0,
            fields,
            separator: b"&",
            tail: body.len()..body.len(),
        }
    }

    fn json(body: &Bytes) -> Option<Self> {
        let mut json = Json { text: body, at: 0 };
        json.expect(b'{')?;
        let head = 0..json.at;
        let mut fields = Vec::new();
        if json.peek()? != b'}' {
            loop {
                json.skip_space();
                let start = json.at;
                let name: String = json.value()?;
                json.expect(b':')?;
                let value = match json.peek()? {
                    b'"' => FieldValue::Text(json.value::<String>()?.into_bytes()),
                    first => {
                        json.value::<IgnoredAny>()?;
                        if first == b'[' {
                            FieldValue::List
                        } else {
                            FieldValue::Other
                        }
                    }
                };
                fields.push(Field {
                    name: name.into_bytes(),
                    value,
                    span: start..json.at,
                });
                if json.peek()? != b',' {
                    break;
                }
                json.expect(b',')?;
            }
        }
        let tail = json.at..body.len();
        json.expect(b'}')?;
        json.peek().is_none().then(|| Self {
            body: body.clone(),
            head,
            fields,
            separator: b",",
            tail,
        })
    }

    fn multipart(body: &Bytes, boundary: &[u8]) -> Option<Self> {
        let delimiter = [b"--", boundary].concat();
        // Where the lines of delimiters begin.
        let mut marks = Vec::new();
        let mut start = 0;
        for line in body.split_inclusive(|byte| *byte == b'\n') {
            let after = line.strip_prefix(&*delimiter);
            if after.is_some_and(|after| after.starts_with(b"--") || after.trim_ascii().is_empty())
            {
                marks.push(start);
            }
            start += line.len();
        }
        let mut fields = Vec::new();
        for pair in marks.windows(2) {
            let [start, end] = *pair else { continue };
            let part = body[start..end].strip_prefix(&*delimiter)?;
            if part.starts_with(b"--") {
                return None;
            }
            let (head, content) = split_part(part)?;
            fields.push(Field {
                name: name_of_part(head).unwrap_or_default(),
                value: FieldValue::Text(content.to_vec()),
                span: start..end,
            });
        }
        let (first, last) = (*marks.first()?, *marks.last()?);
        let is_closed = body[last..].strip_prefix(&*delimiter)?.starts_with(b"--");
        is_closed.then(|| Self {
            body: body.clone(),
            head: 0..first,
            fields,
            separator: b"",
            tail: last..body.len(),
        })
    }
}

/// Reads JSON a value at a time, so that the place of each value is known.
struct Json<'t> {
    text: &'t [u8],
    at: usize,
}

impl Json<'_> {
    fn skip_space(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.at += rest.iter().take_while(space).count();
    }

    /// The next byte that is not a space.
    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value<T: DeserializeOwned>(&mut self) -> Option<T> {
        let rest = self.text.get(self.at..)?;
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<T>();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value)
    }
}

/// The head and the content of a part: all between two delimiters.
fn split_part(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let part = part.strip_suffix(b"\r\n")?;
    // The rest of the delimiter's line may be spaces.
    let line = part.iter().position(|byte| *byte == b'\n')?;
    let part = &part[line + 1..];
    let mut end = 0;
    for line in part.split_inclusive(|byte| *byte == b'\n') {
        if line == b"\r\n" {
            return Some((&part[..end], &part[end + line.len()..]));
        }
        end += line.len();
    }
    None
}

/// The name of the field of a part, by the head of the part (RFC 7578, 4.2). A part without a name
/// that can be read must not keep the others from being read, as servers skip it.
fn name_of_part(head: &[u8]) -> Option<Vec<u8>> {
    let lines = head
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let mut fields = lines.filter_map(|line| split_at_first(line, b':'));
    let is_disposition =
        |name: &[u8]| (name.trim_ascii()).eq_ignore_ascii_case(b"content-disposition");
    let (_, disposition) = fields.find(|(name, _)| is_disposition(name))?;
    let (_, parameters) = split_at_first(disposition, b';')?;
    parameter(parameters, "name")
}

/// What is before and after the first of these bytes.
fn split_at_first(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|other| *other == byte)?;
    Some((&text[..at], &text[at + 1..]))
}

/// The value of a parameter, in quotes or not (RFC 9110, 5.6.6).
fn parameter(parameters: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut rest = parameters;
    loop {
        let (found, after) = split_at_first(rest, b'=')?;
        let (value, after) = match after.trim_ascii_start().strip_prefix(b"\"") {
            None => {
                let (value, after) = split_at_first(after, b';').unwrap_or((after, b""));
                (value.trim_ascii().to_vec(), after)
            }
            Some(quoted) => {
                let (value, after) = unquote(quoted)?;
                let after = split_at_first(after, b';').map_or(&b""[..], |(_, after)| after);
                (value, after)
            }
        };
        if found.trim_ascii().eq_ignore_ascii_case(name.as_bytes()) {
            return Some(value);
        }
        rest = after;
    }
}

/// The text up to the closing quote, and what follows that.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut bytes = text.iter().copied().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &text[at + 1..])),
            b'\\' => value.push(bytes.next()?.1),
            byte => value.push(byte),
        }
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json; charset=utf-8";
    const MULTIPART: &str = "Multipart/Form-Data; charset=utf-8; boundary=\"a b\"";

    fn read(content_type: &str, body: &str) -> Option<BodyFields> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        BodyFields::read(content_type.as_bytes(), &body)
    }

    fn texts(fields: &BodyFields, name: &str) -> Vec<String> {
        let texts = fields.values(name).map(|value| match value {
            FieldValue::Text(text) => String::from_utf8(text.clone()).unwrap(),
            other => format!("{other:?}"),
        });
        texts.collect()
    }

    #[test]
    fn fields_are_read_and_removed_and_the_others_stay_as_they_were_sent() {
        let multipart = "preamble\r\n\
            --a b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nx\r\n\
            --a b  \r\nContent-Type: text/plain\r\ncontent-disposition: form-data; \
            filename=\"a;name=b\"; name=other\r\n\r\n1\r\n\r\n2\r\n\
            --a b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n\r\n\
            --a b--\r\nend";
        let left = "preamble\r\n\
            --a b  \r\nContent-Type: text/plain\r\ncontent-disposition: form-data; \
            filename=\"a;name=b\"; name=other\r\n\r\n1\r\n\r\n2\r\n\
            --a b--\r\nend";
        for (content_type, body, expected, other, left) in [
            (
                FORM,
                "a=%31&key=x+y&&b&key=",
                &["x y", ""][..],
                "1",
                "a=%31&b",
            ),
            (
                JSON,
                r#" { "a": "1" , "key":"x","n":1e400, "key": [ 1 ], "\u006bey": 2.0 } "#,
                &["x", "List", "Other"],
                "1",
                r#" {"a": "1","n":1e400} "#,
            ),
            (MULTIPART, multipart, &["x", ""], "1\r\n\r\n2", left),
        ] {
            let fields = read(content_type, body).unwrap();
            assert_eq!(texts(&fields, "key"), expected, "{content_type}");
            let name = if content_type == MULTIPART {
                "other"
            } else {
                "a"
            };
            assert_eq!(texts(&fields, name), [other]);
            let without = fields.without("key").unwrap();
            assert_eq!(without, left);
            let without = BodyFields::read(content_type.as_bytes(), &without).unwrap();
            assert_eq!(texts(&without, name), [other]);
            assert_eq!(without.without("key"), None);
        }
    }

    #[test]
    fn bytes_that_are_no_text_hide_no_field() {
        let form = b"application/x-www-form-urlencoded; x=\xff";
        let fields = BodyFields::read(form, &Bytes::from_static(b"key=\xff")).unwrap();
        assert_eq!(fields.values("key").count(), 1);
        let multipart = b"multipart/form-data; x=\xe9; boundary=\xff";
        for head in [
            &b"Content-Disposition: form-data; filename=\"\xff\"; name=other"[..],
            b"Content-Disposition: form-data; name=\"key",
            b"Content-Disposition: form-data",
            b"name: key\r\nx\xff",
        ] {
            let body = [
                b"--\xff\r\n",
                head,
                b"\r\n\r\n1\r\n--\xff\r\nContent-Disposition: form-data; name=key\r\n\r\n2\r\n--\xff--",
            ]
            .concat();
            let fields = BodyFields::read(multipart, &body.into()).unwrap();
            assert_eq!(texts(&fields, "key"), ["2"], "{head:?}");
            assert_eq!(fields.fields.len(), 2);
        }
    }

    #[test]
    fn a_body_without_fields_is_read() {
        for (content_type, body) in [(FORM, ""), (JSON, " {\n} "), (MULTIPART, "--a b--\r\n")] {
            assert_eq!(read(content_type, body).unwrap().without("key"), None);
        }
    }

    #[test]
    fn a_value_of_any_depth_is_skipped() {
        let (open, close) = ("[".repeat(1_000_000), "]".repeat(1_000_000));
        let deep = format!("{{\"a\":{open}{close}}}");
        let fields = read(JSON, &deep).unwrap();
        assert_eq!(texts(&fields, "a"), ["List"]);
    }

    #[test]
    fn a_malformed_body_and_one_of_another_type_have_no_fields() {
        let json = [
            "",
            "{",
            "{}}",
            "[]",
            "1",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":1}",
            "{,}",
            "{1:1}",
        ];
        for body in json {
            assert!(read(JSON, body).is_none(), "{body}");
        }
        let multipart = [
            "",
            "--a b\r\n",
            "--a b\r\nContent-Disposition: form-data; name=key\r\n\r\nx",
            "--a b\r\nContent-Disposition: form-data; name=key\r\n\r\nx\r\n--a b",
            "--a b--\r\n--a b--",
            "--a b c\r\nContent-Disposition: form-data; name=key\r\n\r\nx\r\n--a b c--",
        ];
        for body in multipart {
            assert!(read(MULTIPART, body).is_none(), "{body}");
        }
        assert!(read("multipart/form-data", "--\r\n").is_none());
        assert!(read("text/plain", "key=x").is_none());
        assert!(read("", "key=x").is_none());
    }

    proptest! {
        #[test]
        fn json_is_read_as_serde_json_reads_it(body in r#"[{}\[\],:"a1 \\]{0,12}"#) {
            let ours = read(JSON, &body).is_some();
            let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&body);
            prop_assert_eq!(ours, theirs.is_ok());
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            content_type in "(multipart/form-data; ?boundary=\"?a\"?)|(application/json)",
            pieces in prop::collection::vec(
                "(--a)|(--)|(\r\n)|(\n)|(Content-Disposition:)|(;)|(name=)|(\")|(\\\\)|(x)|(é)|([{}:,])",
                0..20,
            ),
        ) {
            let body = pieces.concat();
            if let Some(fields) = read(&content_type, &body) {
                let _ = fields.without("x");
            }
        }
    }
}
