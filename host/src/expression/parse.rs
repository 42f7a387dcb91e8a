//! The parser, by recursive descent.

use std::ops::Range;

use super::error::{ExpressionError, Invalid, Span};
use super::field::{Family, Field, FieldError, Type};
use super::literal::{self, Literal};
use super::{Expression, NumberOperator, Predicate, Test, TextOperator};

/// How deep brackets may be nested. Expressions are walked by recursion.
const DEEPEST: usize = 100;

/// The operators. One that begins with another one stands before it.
const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("~", Operator::Regex),
    ("^=", Operator::Prefix),
    ("=^", Operator::Suffix),
    (">=", Operator::GreaterOrEqual),
    (">", Operator::Greater),
    ("<=", Operator::LessOrEqual),
    ("<", Operator::Less),
    ("contains", Operator::Contains),
    ("in", Operator::In),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Regex,
    Prefix,
    Suffix,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Contains,
    In,
    NotIn,
}

impl<R> Expression<R> {
    /// Reads an expression. `regex` compiles its regular expressions.
    ///
    /// # Errors
    /// The first mistake.
    pub(crate) fn parse<E>(
        text: &str,
        family: Family,
        mut regex: impl FnMut(&str) -> Result<R, E>,
    ) -> Result<Self, ExpressionError<E>> {
        let mut parser = Parser {
            text,
            at: 0,
            family,
            regex: &mut regex,
            depth: 0,
        };
        let expression = parser.all()?;
        parser.skip_space();
        if parser.rest().is_empty() {
            Ok(expression)
        } else {
            Err(parser.expected("&& or ||"))
        }
    }
}

struct Parser<'t, R, E> {
    text: &'t str,
    /// Bytes that are read.
    at: usize,
    family: Family,
    regex: &'t mut dyn FnMut(&str) -> Result<R, E>,
    /// Brackets that are open.
    depth: usize,
}

impl<'t, R, E> Parser<'t, R, E> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        let space = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.at += space;
    }

    /// Reads this text, if it comes next.
    fn take(&mut self, text: &str) -> bool {
        self.skip_space();
        let is_next = self.rest().starts_with(text);
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    /// Reads the characters that come next and are of this kind.
    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// The error that something else should come next.
    fn expected(&self, what: &str) -> ExpressionError<E> {
        self.invalid(None, self.at..self.at, format!("expected {what}"))
    }

    fn invalid(
        &self,
        sentence: Option<&'static str>,
        bytes: Range<usize>,
        remedy: String,
    ) -> ExpressionError<E> {
        ExpressionError::Invalid(Box::new(Invalid {
            sentence,
            span: Span::new(self.text, bytes),
            remedy,
        }))
    }

    /// Terms with `&&` between them, which binds less than `||`. Source: atc-router.
    fn all(&mut self) -> Result<Expression<R>, ExpressionError<E>> {
        self.joined("&&", Expression::All, |parser| {
            parser.joined("||", Expression::Any, Self::term)
        })
    }

    fn joined(
        &mut self,
        operator: &str,
        join: fn(Vec<Expression<R>>) -> Expression<R>,
        mut part: impl FnMut(&mut Self) -> Result<Expression<R>, ExpressionError<E>>,
    ) -> Result<Expression<R>, ExpressionError<E>> {
        let first = part(self)?;
        if !self.take(operator) {
            return Ok(first);
        }
        let mut parts = vec![first, part(self)?];
        while self.take(operator) {
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    /// A predicate, or an expression in brackets, with `!` before it or without.
    fn term(&mut self) -> Result<Expression<R>, ExpressionError<E>> {
        let negated = self.take("!");
        let start = self.at;
        if self.take("(") {
            self.depth += 1;
            if self.depth > DEEPEST {
                let remedy = format!("brackets are nested more than {DEEPEST} deep");
                return Err(self.invalid(None, start..self.at, remedy));
            }
            let inner = self.all()?;
            if !self.take(")") {
                return Err(self.expected("&&, || or )"));
            }
            self.depth -= 1;
            return Ok(match negated {
                true => Expression::Not(Box::new(inner)),
                false => inner,
            });
        }
        match negated {
            true => Err(self.expected("( after !")),
            false => self.predicate().map(Expression::Predicate),
        }
    }

    fn predicate(&mut self) -> Result<Predicate<R>, ExpressionError<E>> {
        self.skip_space();
        let start = self.at;
        let (field, field_place, lower, any) = self.left()?;
        let operator = self.operator()?;
        self.skip_space();
        let value_start = self.at;
        let value = self.literal()?;
        let bytes = start..self.at;
        let field = Field::parse(field, self.family).map_err(|wrong| match wrong {
            FieldError::Unknown => self.invalid(
                Some("Unknown LHS field"),
                field_place.clone(),
                format!("there is no field {field}{}", self.meant(field)),
            ),
            FieldError::Segments => self.invalid(
                Some("illformed http.path.segments.* field"),
                field_place.clone(),
                "expected http.path.segments.len, .N or .N_M, from 0, with N less than M".into(),
            ),
        })?;
        if lower && field.of_type() != Type::Text {
            return Err(self.invalid(
                Some("lower-case transformation function only supported with String type fields"),
                field_place,
                "the values of this field are no texts: leave lower() out".into(),
            ));
        }
        let span = (bytes, value_start..self.at);
        let test = self.test(&field, operator, value, span)?;
        Ok(Predicate {
            field,
            lower,
            any,
            test,
        })
    }

    /// The name of a field, its span, and whether `lower()` and `any()` are around it.
    fn left(&mut self) -> Result<(&'t str, Range<usize>, bool, bool), ExpressionError<E>> {
        let (mut lower, mut any, mut open) = (false, false, 0_usize);
        loop {
            self.skip_space();
            let start = self.at;
            let is_start = self.rest().starts_with(|c: char| c.is_ascii_alphabetic());
            if !is_start {
                let what = match open {
                    0 => "(, !( or a field such as http.path",
                    _ => "a field such as http.path",
                };
                return Err(self.expected(what));
            }
            let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            let span = start..self.at;
            if self.take("(") {
                match name {
                    "lower" => lower = true,
                    "any" => any = true,
                    _ => {
                        let remedy = format!(
                            "unknown transformation function: {name}. There are lower() and any()"
                        );
                        return Err(self.invalid(None, span, remedy));
                    }
                }
                open += 1;
                continue;
            }
            for _ in 0..open {
                if !self.take(")") {
                    return Err(self.expected(")"));
                }
            }
            return Ok((name, span, lower, any));
        }
    }

    fn operator(&mut self) -> Result<Operator, ExpressionError<E>> {
        let start = self.at;
        if self.take("not") && self.take("in") {
            return Ok(Operator::NotIn);
        }
        self.at = start;
        for &(text, operator) in OPERATORS {
            if self.take(text) {
                return Ok(operator);
            }
        }
        Err(self.expected("an operator: ==, !=, ~, ^=, =^, contains, in, not in, >, >=, < or <="))
    }

    fn literal(&mut self) -> Result<Literal, ExpressionError<E>> {
        if self.take("r#\"") {
            let Some((text, _)) = self.rest().split_once("\"#") else {
                return Err(self.expected("\"# at the end of the text"));
            };
            self.at += text.len() + 2;
            return Ok(Literal::Text(text.to_owned()));
        }
        if self.take("\"") {
            return self.quoted().map(Literal::Text);
        }
        let start = self.at;
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '/' | '-');
        let text = self.take_while(is_part);
        if !text.starts_with(|c: char| c.is_ascii_hexdigit() || c == ':' || c == '-') {
            self.at = start;
            return Err(
                self.expected("a value: a text in quotes, a number, an IP address or a CIDR")
            );
        }
        literal::bare(text).map_err(|remedy| self.invalid(None, start..self.at, remedy))
    }

    /// The text up to the closing quote, without its escapes.
    fn quoted(&mut self) -> Result<String, ExpressionError<E>> {
        let mut text = String::new();
        loop {
            text.push_str(self.take_while(|c| c != '"' && c != '\\'));
            if self.rest().starts_with('"') {
                self.at += 1;
                return Ok(text);
            }
            let escape = self.rest().get(..2).unwrap_or_default();
            text.push(match escape {
                "\\\"" => '"',
                "\\\\" => '\\',
                "\\n" => '\n',
                "\\r" => '\r',
                "\\t" => '\t',
                _ if self.rest().is_empty() => {
                    return Err(self.expected("\" at the end of the text"));
                }
                _ => {
                    return Err(self.expected(
                        "one of the escapes \\\", \\\\, \\n, \\r and \\t; a text such as r#\"…\"# \
                         has none",
                    ));
                }
            });
            self.at += 2;
        }
    }

    /// Joins an operator and a value to the test of a field. `span` is that of the predicate, and
    /// that of the value.
    fn test(
        &mut self,
        field: &Field,
        operator: Operator,
        value: Literal,
        span: (Range<usize>, Range<usize>),
    ) -> Result<Test<R>, ExpressionError<E>> {
        let (predicate, value_span) = span;
        if operator == Operator::Regex {
            let Literal::Text(regex) = &value else {
                let remedy = "regex operator can only be used with String operands".into();
                return Err(self.invalid(None, predicate, remedy));
            };
            if field.of_type() != Type::Text {
                let sentence = "Regex operators only supports string operands";
                return Err(self.invalid(Some(sentence), predicate, not_for(field)));
            }
            return (self.regex)(regex)
                .map(Test::Regex)
                .map_err(|error| ExpressionError::Regex {
                    span: Box::new(Span::new(self.text, value_span)),
                    error,
                });
        }
        let is_in = matches!(operator, Operator::In | Operator::NotIn);
        let fits = match (field.of_type(), &value) {
            (Type::Text, Literal::Text(_))
            | (Type::Number, Literal::Number(_))
            | (Type::Address, Literal::Address(_)) => true,
            (Type::Address, Literal::Network(_)) => is_in,
            _ => false,
        };
        if !fits {
            let sentence = "Type mismatch between the LHS and RHS values of predicate";
            let remedy = format!("expected {}", wanted(field.of_type(), is_in));
            return Err(self.invalid(Some(sentence), value_span, remedy));
        }
        let test = match value {
            Literal::Network(network) => Some(Test::Network(operator == Operator::In, network)),
            Literal::Address(address) => match operator {
                Operator::Equal => Some(Test::Address(true, address)),
                Operator::NotEqual => Some(Test::Address(false, address)),
                _ => None,
            },
            Literal::Number(number) => of_number(operator).map(|of| Test::Number(of, number)),
            Literal::Text(mut text) => {
                if field.is_name() {
                    text.make_ascii_lowercase();
                }
                of_text(operator).map(|of| Test::Text(of, text.into()))
            }
        };
        test.ok_or_else(|| self.invalid(Some(misused(operator)), predicate, not_for(field)))
    }

    /// The end of the sentence about a field that does not exist.
    fn meant(&self, field: &str) -> &'static str {
        match self.family {
            Family::Stream if field.starts_with("http.") => {
                ": the first of the route's protocols is one of streams"
            }
            _ if field == "http.headers" || field == "http.queries" => {
                ": the name follows, as in http.headers.x_tenant"
            }
            _ => "",
        }
    }
}

fn of_text(operator: Operator) -> Option<TextOperator> {
    Some(match operator {
        Operator::Equal => TextOperator::Equal,
        Operator::NotEqual => TextOperator::NotEqual,
        Operator::Prefix => TextOperator::Prefix,
        Operator::Suffix => TextOperator::Suffix,
        Operator::Contains => TextOperator::Contains,
        _ => return None,
    })
}

fn of_number(operator: Operator) -> Option<NumberOperator> {
    Some(match operator {
        Operator::Equal => NumberOperator::Equal,
        Operator::NotEqual => NumberOperator::NotEqual,
        Operator::Greater => NumberOperator::Greater,
        Operator::GreaterOrEqual => NumberOperator::GreaterOrEqual,
        Operator::Less => NumberOperator::Less,
        Operator::LessOrEqual => NumberOperator::LessOrEqual,
        _ => return None,
    })
}

/// Kong's sentence about an operator that the type of a field does not have.
fn misused(operator: Operator) -> &'static str {
    match operator {
        Operator::In | Operator::NotIn => "In/NotIn operators only supports IP in CIDR",
        Operator::Contains => "Contains operator only supports string operands",
        Operator::Prefix | Operator::Suffix => {
            "Regex/Prefix/Postfix operators only supports string operands"
        }
        _ => "Greater/GreaterOrEqual/Lesser/LesserOrEqual operators only supports integer operands",
    }
}

fn wanted(of: Type, is_in: bool) -> &'static str {
    match of {
        Type::Text => "a text in quotes",
        Type::Number => "a number",
        Type::Address if is_in => "a CIDR such as 10.0.0.0/8",
        Type::Address => "an IP address; a CIDR follows in or not in",
    }
}

/// The operators of a field, as a remedy.
fn not_for(field: &Field) -> String {
    let operators = match field.of_type() {
        Type::Text => "==, !=, ~, ^=, =^ and contains",
        Type::Number => "==, !=, >, >=, < and <=",
        Type::Address => "==, !=, in and not in",
    };
    format!("this field has the operators {operators}")
}
