//! Templates: texts with references to parts of a request, such as `Bearer $(headers.x-token)`.
//! Source: Kong 3.9, `request-transformer`.
//!
//! In Kong, the text between the parentheses is any Lua expression. Here it is a table and a name
//! in it, in the forms that Lua has for that: `headers.name`, `headers["x-name"]`,
//! `headers['x-name']`. Anything else is refused when the template is parsed.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

/// A text with references to parts of a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Reference(Reference),
}

/// A part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where the value is.
    pub table: Table,
    /// Its name there: of a header, of a query argument or of a group of the route's path. A group
    /// may be named by its number as well.
    pub name: String,
}

/// What a reference can look in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// The headers of the request.
    Headers,
    /// The arguments of its query.
    QueryParams,
    /// The groups that the route's regular expression has found in its path.
    UriCaptures,
}

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// What was found between the parentheses.
    found: String,
}

const TABLES: [(&str, Table); 3] = [
    ("headers", Table::Headers),
    ("query_params", Table::QueryParams),
    ("uri_captures", Table::UriCaptures),
];

/// What starts a reference.
const START: &str = "$(";

/// Longest part of an expression that an error repeats, in characters.
const SHOWN: usize = 64;

impl Template {
    /// # Errors
    /// The text has an expression that is not a reference, or one that does not end.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(START) {
            let (reference, after) = reference(after).ok_or_else(|| TemplateError::at(after))?;
            parts.extend(literal(before));
            parts.push(Part::Reference(reference));
            rest = after;
        }
        parts.extend(literal(rest));
        Ok(Self { parts })
    }

    /// The text with the values of its references. A reference without a value is left out.
    pub fn render<'v>(&self, value: impl Fn(&Reference) -> Option<Cow<'v, str>>) -> String {
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => Cow::Borrowed(text.as_str()),
            Part::Reference(reference) => value(reference).unwrap_or_default(),
        });
        parts.collect()
    }

    /// Whether the text has nothing in it.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Its references, in order.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Reference(reference) => Some(reference),
        })
    }
}

fn literal(text: &str) -> Option<Part> {
    (!text.is_empty()).then(|| Part::Text(text.to_owned()))
}

/// The reference at the start of a text, and what follows its closing parenthesis.
fn reference(text: &str) -> Option<(Reference, &str)> {
    let (table, rest) = word(text.trim_start());
    let (_, table) = TABLES.into_iter().find(|(name, _)| *name == table)?;
    let (name, rest) = name(rest.trim_start(), table)?;
    let rest = rest.trim_start().strip_prefix(')')?;
    let name = name.to_owned();
    Some((Reference { table, name }, rest))
}

/// The name at the start of a text, in one of the forms that Lua has for it, and what follows it.
fn name(text: &str, table: Table) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let (name, rest) = word(rest.trim_start());
        let is_name = name.starts_with(|c: char| !c.is_ascii_digit());
        return is_name.then_some((name, rest));
    }
    let inner = text.strip_prefix('[')?.trim_start();
    let (name, rest) = match inner.chars().next()? {
        quote @ ('"' | '\'') => inner[1..].split_once(quote)?,
        _ => {
            let (number, rest) = word(inner);
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            let is_group = table == Table::UriCaptures && is_number && !number.is_empty();
            is_group.then_some((number, rest))?
        }
    };
    // An escaped character would mean another one to Lua.
    let is_plain = !name.is_empty() && !name.contains(['\\', '\n']);
    let rest = rest.trim_start().strip_prefix(']')?;
    is_plain.then_some((name, rest))
}

/// The letters, digits and underscores at the start of a text, and what follows them.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    text.split_at(end.unwrap_or(text.len()))
}

impl TemplateError {
    /// The error for the text after the start of an expression.
    fn at(text: &str) -> Self {
        let mut open = 1_u32;
        let end = text.find(|c: char| {
            match c {
                '(' => open += 1,
                ')' => open -= 1,
                _ => {}
            }
            open == 0
        });
        let inner = &text[..end.unwrap_or(text.len())];
        let mut found: String = inner.chars().take(SHOWN).collect();
        if found.len() < inner.len() {
            found.push('\u{2026}');
        }
        let close = if end.is_some() { ")" } else { "" };
        Self {
            found: format!("{START}{found}{close}"),
        }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not a reference, and no Lua is run here: use $(headers.name), \
             $(query_params.name) or $(uri_captures.name), or $(headers[\"x-name\"]) for a name \
             with other characters than letters, digits and underscores",
            self.found
        )
    }
}

impl std::error::Error for TemplateError {}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Shows each reference as its table and its name.
    fn shown(text: &str) -> String {
        let template = Template::parse(text).unwrap();
        template.render(|found| Some(format!("<{:?} {}>", found.table, found.name).into()))
    }

    #[test]
    fn a_name_is_written_in_any_form_of_lua() {
        for (text, expected) in [
            ("", ""),
            ("plain $ (x) $x", "plain $ (x) $x"),
            ("$(headers.host)", "<Headers host>"),
            ("a$(headers.x_y)b", "a<Headers x_y>b"),
            ("$(headers[\"x-y\"])", "<Headers x-y>"),
            ("$( query_params [ 'a b' ] )", "<QueryParams a b>"),
            ("$(query_params['a)b'])", "<QueryParams a)b>"),
            ("$(uri_captures[1])", "<UriCaptures 1>"),
            (
                "$$(uri_captures.id)/$(query_params.q)",
                "$<UriCaptures id>/<QueryParams q>",
            ),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn a_reference_without_a_value_is_left_out() {
        let template = Template::parse("a$(headers.x)b").unwrap();
        assert_eq!(template.render(|_| None), "ab");
        assert!(!template.is_empty());
        assert!(Template::parse("").unwrap().is_empty());
    }

    #[test]
    fn an_expression_of_lua_is_refused_and_repeated() {
        for (text, found) in [
            ("$(shared.x)", "$(shared.x)"),
            ("$(headers.x or 'y')", "$(headers.x or 'y')"),
            ("$(headers.x-y)", "$(headers.x-y)"),
            ("$(headers[1])", "$(headers[1])"),
            ("$(headers.1x)", "$(headers.1x)"),
            ("$(headers[\"\"])", "$(headers[\"\"])"),
            ("$(headers['a\\'b'])", "$(headers['a\\'b'])"),
            (
                "x $((function() return 1 end)()) y",
                "$((function() return 1 end)())",
            ),
            ("$(headers)", "$(headers)"),
            ("$(headers.x", "$(headers.x"),
            ("$()", "$()"),
        ] {
            let error = Template::parse(text).unwrap_err().to_string();
            let start = format!("'{found}' is not a reference, and no Lua is run here: ");
            assert!(error.starts_with(&start), "{text}: {error}");
        }
        let long = Template::parse(&format!("$({})", "\u{e4}".repeat(100))).unwrap_err();
        assert_eq!(long.found, format!("$({}\u{2026})", "\u{e4}".repeat(64)));
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_refused(text in ".{0,40}") {
            let parsed = Template::parse(&text);
            if !text.contains(START) {
                prop_assert_eq!(parsed.map(|parsed| parsed.render(|_| None)), Ok(text));
            }
        }

        #[test]
        fn almost_templates_do_not_make_the_parser_fail(
            text in r#"(\$|\(|\)|\[|\]|"|'|\.| |headers|query_params|uri_captures|x|1|\\){0,16}"#
        ) {
            if let Ok(template) = Template::parse(&text) {
                // Each reference was written out somewhere.
                for reference in template.references() {
                    prop_assert!(text.contains(&reference.name));
                }
            }
        }

        #[test]
        fn the_values_stand_where_the_references_were(
            texts in prop::collection::vec("[^$]{0,8}", 1..6),
            name in "[a-zA-Z_][a-zA-Z0-9_]{0,8}",
            value in ".{0,8}",
        ) {
            let text = texts.join(&format!("$(headers.{name})"));
            let template = Template::parse(&text).unwrap();
            let looked_up = |found: &Reference| {
                (found.name == name && found.table == Table::Headers)
                    .then_some(Cow::Borrowed(value.as_str()))
            };
            prop_assert_eq!(template.render(looked_up), texts.join(&value));
            prop_assert_eq!(template.references().count(), texts.len() - 1);
        }
    }
}
