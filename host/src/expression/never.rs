//! Expressions that hold for nothing. Kong stores them, and their routes answer no request.

use super::{Expression, Field, Predicate, Test, TextOperator};

/// What a request or a stream of a protocol has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// The value of `net.protocol`.
    pub(crate) protocol: &'static str,
    /// Whether it may have a server name of TLS.
    pub(crate) has_server_name: bool,
}

/// What is known of a part of an expression without a request.
enum Truth {
    /// It holds never, for this reason.
    Never(String),
    Always,
    Unknown,
}

impl<R> Expression<R> {
    /// Why the expression holds for none of these kinds; `None` if it may hold for one, as far as
    /// single fields tell. A regular expression is taken to match something.
    pub(crate) fn holds_never(&self, kinds: &[Kind]) -> Option<String> {
        let mut reason = None;
        for kind in kinds {
            match truth(self, *kind) {
                Truth::Never(why) => reason = reason.or(Some(why)),
                Truth::Always | Truth::Unknown => return None,
            }
        }
        reason
    }
}

fn truth<R>(expression: &Expression<R>, kind: Kind) -> Truth {
    match expression {
        Expression::All(parts) => {
            let mut is_always = true;
            for part in parts {
                match truth(part, kind) {
                    Truth::Always => {}
                    Truth::Unknown => is_always = false,
                    never @ Truth::Never(_) => return never,
                }
            }
            match contradiction(parts) {
                Some(why) => Truth::Never(why),
                None if is_always => Truth::Always,
                None => Truth::Unknown,
            }
        }
        Expression::Any(parts) => {
            let mut reason = None;
            let mut is_never = true;
            for part in parts {
                match truth(part, kind) {
                    Truth::Always => return Truth::Always,
                    Truth::Unknown => is_never = false,
                    Truth::Never(why) => reason = reason.or(Some(why)),
                }
            }
            match reason.filter(|_| is_never) {
                Some(why) => Truth::Never(why),
                None => Truth::Unknown,
            }
        }
        Expression::Not(part) => match truth(part, kind) {
            Truth::Never(_) => Truth::Always,
            Truth::Always => Truth::Never("what !( ) negates always holds".into()),
            Truth::Unknown => Truth::Unknown,
        },
        Expression::Predicate(predicate) => of_predicate(predicate, kind),
    }
}

fn of_predicate<R>(predicate: &Predicate<R>, kind: Kind) -> Truth {
    let Predicate { field, lower, .. } = predicate;
    if *field == Field::ServerName && !kind.has_server_name {
        let protocol = kind.protocol;
        return Truth::Never(format!(
            "tls.sni has no value where net.protocol is \"{protocol}\""
        ));
    }
    match &predicate.test {
        Test::Text(operator, text) => {
            let is_equal = *operator == TextOperator::Equal;
            if *lower
                && *operator != TextOperator::NotEqual
                && text.contains(|letter: char| letter.is_ascii_uppercase())
            {
                return Truth::Never(format!(
                    "lower() makes lower-case letters, and {text:?} has a capital"
                ));
            }
            if *field == Field::Protocol {
                return match passes(*operator, kind.protocol, text) {
                    true => Truth::Always,
                    false => Truth::Never(format!(
                        "by the route's protocols, net.protocol is {:?}",
                        kind.protocol
                    )),
                };
            }
            // The target of a request may be `*`.
            let begins = is_equal || *operator == TextOperator::Prefix && !text.is_empty();
            if *field == Field::Path && begins && !text.starts_with(['/', '*']) {
                return Truth::Never("every http.path begins with /".into());
            }
            Truth::Unknown
        }
        Test::Number(..) => match number(std::iter::once(predicate)) {
            Some(why) => Truth::Never(why),
            None => Truth::Unknown,
        },
        Test::Regex(_) | Test::Address(..) | Test::Network(..) => Truth::Unknown,
    }
}

/// Why predicates about the same field, which all must hold, exclude each other.
fn contradiction<R>(parts: &[Expression<R>]) -> Option<String> {
    let predicates: Vec<&Predicate<R>> = parts
        .iter()
        .filter_map(|part| match part {
            Expression::Predicate(predicate) if !predicate.any => Some(predicate),
            _ => None,
        })
        .collect();
    for (place, first) in predicates.iter().enumerate() {
        let before = &predicates[..place];
        if before.iter().any(|other| other.field == first.field) {
            continue;
        }
        let same = || {
            let all = predicates.iter().copied();
            all.filter(|other| other.field == first.field)
        };
        if let Some(why) = number(same()).or_else(|| equal(same())) {
            return Some(why);
        }
    }
    None
}

/// Why no number satisfies these predicates about one field.
fn number<'p, R: 'p>(predicates: impl Iterator<Item = &'p Predicate<R>> + Clone) -> Option<String> {
    let tests = predicates
        .clone()
        .filter_map(|predicate| match &predicate.test {
            Test::Number(operator, number) => Some((*operator, *number)),
            _ => None,
        });
    let field = &predicates.clone().next()?.field;
    let (name, greatest) = match field {
        Field::SourcePort => ("net.src.port", 65_535),
        Field::DestinationPort => ("net.dst.port", 65_535),
        Field::SegmentCount => ("http.path.segments.len", i64::MAX),
        _ => return None,
    };
    // The numbers that satisfy all tests begin and end beside numbers that these name.
    let beside =
        |(_, number): (_, i64)| [number.saturating_sub(1), number, number.saturating_add(1)];
    let candidates = tests.clone().flat_map(beside).chain([0, greatest]);
    let mut possible = candidates.filter(|number| (0..=greatest).contains(number));
    let satisfies = |value: i64| {
        let mut tests = tests.clone();
        tests.all(|(operator, number)| operator.holds(value, number))
    };
    match possible.any(satisfies) {
        true => None,
        false if greatest == 65_535 => Some(format!(
            "no number from 0 to 65535 is what it asks of {name}"
        )),
        false => Some(format!("no number is what it asks of {name}")),
    }
}

/// Why no value is equal to what these predicates about one field name.
fn equal<'p, R: 'p>(predicates: impl Iterator<Item = &'p Predicate<R>> + Clone) -> Option<String> {
    let is_text = |predicate: &&Predicate<R>| {
        !predicate.lower && matches!(predicate.test, Test::Text(TextOperator::Equal, _))
    };
    for predicate in predicates.clone() {
        let excluded = |other: &Predicate<R>| match (&predicate.test, &other.test) {
            (Test::Text(TextOperator::Equal, own), Test::Text(operator, text)) => {
                is_text(&predicate) && !other.lower && !passes(*operator, own, text)
            }
            (Test::Address(true, own), Test::Address(is, other)) => (own == other) != *is,
            (Test::Address(true, own), Test::Network(is_in, network)) => {
                network.contains(own) != *is_in
            }
            _ => false,
        };
        if predicates.clone().any(excluded) {
            return Some("it asks that a field has two different values".into());
        }
    }
    None
}

fn passes(operator: TextOperator, value: &str, text: &str) -> bool {
    match operator {
        TextOperator::Equal => value == text,
        TextOperator::NotEqual => value != text,
        TextOperator::Prefix => value.starts_with(text),
        TextOperator::Suffix => value.ends_with(text),
        TextOperator::Contains => value.contains(text),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;
    use crate::expression::Family;

    const TCP: Kind = Kind {
        protocol: "tcp",
        has_server_name: false,
    };
    const TLS: Kind = Kind {
        protocol: "tls",
        has_server_name: true,
    };
    const REQUESTS: [Kind; 2] = [
        Kind {
            protocol: "http",
            has_server_name: false,
        },
        Kind {
            protocol: "https",
            has_server_name: true,
        },
    ];

    fn why(text: &str, family: Family, kinds: &[Kind]) -> Option<String> {
        let read = Expression::parse(text, family, crate::pattern::is_pattern);
        read.unwrap().holds_never(kinds)
    }

    #[test]
    fn what_holds_for_no_stream_has_a_reason() {
        for (text, kinds, reason) in [
            (
                r#"net.protocol == "tls_passthrough""#,
                &[TLS][..],
                r#"by the route's protocols, net.protocol is "tls""#,
            ),
            (
                r#"net.dst.port == 90 && net.protocol == "udp""#,
                &[TCP, TLS],
                r#"by the route's protocols, net.protocol is "tcp""#,
            ),
            (
                r#"tls.sni != "a" || tls.sni ~ "b""#,
                &[TCP],
                r#"tls.sni has no value where net.protocol is "tcp""#,
            ),
            (
                "net.dst.port == 65536",
                &[TCP],
                "no number from 0 to 65535 is what it asks of net.dst.port",
            ),
            (
                "net.src.port > 5 && net.src.port < 7 && net.src.port != 6",
                &[TCP],
                "no number from 0 to 65535 is what it asks of net.src.port",
            ),
            (
                r#"!(net.protocol ^= "t")"#,
                &[TCP, TLS],
                "what !( ) negates always holds",
            ),
            (
                "net.src.ip == 10.0.0.1 && net.src.ip in 10.1.0.0/16",
                &[TCP],
                "it asks that a field has two different values",
            ),
        ] {
            assert_eq!(
                why(text, Family::Stream, kinds).as_deref(),
                Some(reason),
                "{text}"
            );
        }
    }

    #[test]
    fn what_holds_for_no_request_has_a_reason() {
        for (text, reason) in [
            (
                r#"net.protocol == "tcp""#,
                r#"by the route's protocols, net.protocol is "http""#,
            ),
            (r#"http.path ^= "api""#, "every http.path begins with /"),
            (
                r#"lower(http.headers.a) == "B""#,
                r#"lower() makes lower-case letters, and "B" has a capital"#,
            ),
            (
                r#"http.host == "a" && http.method == "GET" && http.host == "b""#,
                "it asks that a field has two different values",
            ),
            (
                "http.path.segments.len < 0",
                "no number is what it asks of http.path.segments.len",
            ),
        ] {
            assert_eq!(
                why(text, Family::Http, &REQUESTS).as_deref(),
                Some(reason),
                "{text}"
            );
        }
    }

    #[test]
    fn what_may_hold_has_none() {
        for text in [
            r#"net.protocol == "https" && tls.sni == "a""#,
            r#"net.protocol == "tcp" || http.path == "/""#,
            r#"!(tls.sni == "a")"#,
            r#"any(http.headers.a) == "b" && any(http.headers.a) == "c""#,
            r#"http.path ^= "" && http.path != "a""#,
            r#"lower(http.path) == "/a" && http.path == "/A""#,
            r#"lower(http.host) != "A""#,
            "net.dst.port >= 0 && net.dst.port <= 65535",
            "net.src.ip in 10.0.0.0/8 && net.src.ip == 10.0.0.1",
            "net.src.ip != 10.0.0.1 && net.src.ip != 10.0.0.2",
        ] {
            assert_eq!(why(text, Family::Http, &REQUESTS), None, "{text}");
        }
        let of_streams = r#"net.protocol == "tls" && tls.sni =^ ".a""#;
        assert_eq!(why(of_streams, Family::Stream, &[TCP, TLS]), None);
    }
}
