#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Expression<String>, String> {
    parse_as(text, Family::Http)
}

fn parse_as(text: &str, family: Family) -> Result<Expression<String>, String> {
    let regex = |regex: &str| match regex.contains('(') {
        true => Err("unclosed group"),
        false => Ok(regex.to_owned()),
    };
    Expression::parse(text, family, regex).map_err(|error| error.to_string())
}

fn predicate(text: &str) -> Predicate<String> {
    match parse(text).unwrap() {
        Expression::Predicate(predicate) => predicate,
        other => panic!("{other:?}"),
    }
}

fn text(operator: TextOperator, text: &str) -> Test<String> {
    Test::Text(operator, text.into())
}

#[test]
fn every_field_has_its_name() {
    for (name, field) in [
        ("net.protocol", Field::Protocol),
        ("tls.sni", Field::ServerName),
        ("http.method", Field::Method),
        ("http.host", Field::Host),
        ("http.path", Field::Path),
        ("http.path.segments.0", Field::Segments(0, 0)),
        ("http.path.segments.10_12", Field::Segments(10, 12)),
        (
            "http.headers.x_Tenant_id",
            Field::Header(SentName::parse("x-tenant-id").unwrap()),
        ),
        ("http.queries.Id", Field::Argument("Id".into())),
    ] {
        let found = predicate(&format!("{name} == \"a\""));
        assert_eq!(found.field, field, "{name}");
        assert_eq!(found.test, text(TextOperator::Equal, "a"), "{name}");
    }
    for (name, field) in [
        ("net.src.port", Field::SourcePort),
        ("net.dst.port", Field::DestinationPort),
        ("net.port", Field::DestinationPort),
        ("http.path.segments.len", Field::SegmentCount),
    ] {
        assert_eq!(predicate(&format!("{name} == 8")).field, field, "{name}");
    }
    for (name, field) in [
        ("net.src.ip", Field::SourceIp),
        ("net.dst.ip", Field::DestinationIp),
    ] {
        assert_eq!(predicate(&format!("{name} == ::1")).field, field, "{name}");
    }
}

#[test]
fn every_operator_has_its_sign() {
    for (sign, operator) in [
        ("==", TextOperator::Equal),
        ("!=", TextOperator::NotEqual),
        ("^=", TextOperator::Prefix),
        ("=^", TextOperator::Suffix),
        ("contains", TextOperator::Contains),
    ] {
        let found = predicate(&format!("http.path {sign}\"/a\""));
        assert_eq!(found.test, text(operator, "/a"), "{sign}");
    }
    assert_eq!(
        predicate(r#"http.path ~ "^/\\d""#).test,
        Test::Regex("^/\\d".into())
    );
    for (sign, operator) in [
        ("==", NumberOperator::Equal),
        ("!=", NumberOperator::NotEqual),
        (">", NumberOperator::Greater),
        (">=", NumberOperator::GreaterOrEqual),
        ("<", NumberOperator::Less),
        ("<=", NumberOperator::LessOrEqual),
    ] {
        let found = predicate(&format!("net.src.port{sign}8"));
        assert_eq!(found.test, Test::Number(operator, 8), "{sign}");
    }
    let network = "10.0.0.0/8".parse().unwrap();
    for (sign, test) in [
        (
            "== 1.2.3.4",
            Test::Address(true, "1.2.3.4".parse().unwrap()),
        ),
        (
            "!= fd00::1",
            Test::Address(false, "fd00::1".parse().unwrap()),
        ),
        ("in 10.0.0.0/8", Test::Network(true, network)),
        ("not  in 10.0.0.0/8", Test::Network(false, network)),
        (
            "in fd00::/64",
            Test::Network(true, "fd00::/64".parse().unwrap()),
        ),
    ] {
        assert_eq!(
            predicate(&format!("net.src.ip {sign}")).test,
            test,
            "{sign}"
        );
    }
}

#[test]
fn texts_have_escapes_and_raw_texts_have_none() {
    let value = |literal: &str| match predicate(&format!("http.path == {literal}")).test {
        Test::Text(_, value) => value.into_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(value(r#""a\"\\\n\r\tb""#), "a\"\\\n\r\tb");
    assert_eq!(value(r##"r#"\d "quoted" \"#"##), r#"\d "quoted" \"#);
    assert_eq!(value("\"é\u{1f600}\""), "é\u{1f600}");
    assert_eq!(value("\"\""), "");
    assert!(parse(r#"http.path == "\d""#).is_err());
    assert!(parse(r#"http.path == "a"#).is_err());
    assert!(parse(r##"http.path == r#"a""##).is_err());
}

#[test]
fn numbers_are_decimal_hexadecimal_or_octal() {
    for (written, number) in [
        ("0", 0),
        ("-1", -1),
        ("0x1F", 31),
        ("-0x10", -16),
        ("017", 15),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ] {
        let found = predicate(&format!("net.src.port == {written}"));
        assert_eq!(
            found.test,
            Test::Number(NumberOperator::Equal, number),
            "{written}"
        );
    }
    for wrong in ["08", "1a", "0x", "-", "--1", "9223372036854775808"] {
        assert!(
            parse(&format!("net.src.port == {wrong}")).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn hosts_and_server_names_are_compared_in_lower_case() {
    assert_eq!(
        predicate("http.host == \"A.Test\"").test,
        text(TextOperator::Equal, "a.test")
    );
    assert_eq!(
        predicate("tls.sni =^ \".Test\"").test,
        text(TextOperator::Suffix, ".test")
    );
    assert_eq!(
        predicate("http.path == \"/A\"").test,
        text(TextOperator::Equal, "/A")
    );
}

#[test]
fn or_binds_more_closely_than_and() {
    let of = |name: &str| Expression::Predicate(predicate(&format!("http.method == \"{name}\"")));
    let method = |name: &str| format!("http.method == \"{name}\"");
    let (a, b, c) = (method("A"), method("B"), method("C"));
    let both = Expression::All(vec![of("A"), Expression::Any(vec![of("B"), of("C")])]);
    assert_eq!(parse(&format!("{a} && {b} || {c}")).unwrap(), both);
    assert_eq!(parse(&format!("{a}&&({b}||{c})")).unwrap(), both);
    let grouped = Expression::Any(vec![Expression::All(vec![of("A"), of("B")]), of("C")]);
    assert_eq!(parse(&format!("({a} && {b}) || {c}")).unwrap(), grouped);
    let not = Expression::All(vec![of("A"), Expression::Not(Box::new(of("B")))]);
    assert_eq!(parse(&format!("{a}\n&& !({b})")).unwrap(), not);
    assert_eq!(
        parse(&format!("{a} && {b} && {c}")).unwrap(),
        Expression::All(vec![of("A"), of("B"), of("C")])
    );
}

#[test]
fn transformations_may_be_nested() {
    let found = predicate("lower( any(http.headers.a) ) == \"x\"");
    assert!(found.lower && found.any);
    let found = predicate("any(http.queries.a) == \"x\"");
    assert!(!found.lower && found.any);
}

/// Each message shows the place, and begins with Kong's sentence if Kong has one.
#[test]
fn a_mistake_is_shown_at_its_place() {
    for (wrong, shown) in [
        (
            "http.foo == \"a\"",
            "Unknown LHS field\n --> 1:1\n  |\n1 | http.foo == \"a\"\n  | ^------^\n  |\n  = there \
             is no field http.foo",
        ),
        (
            "http.path == \"/a\" &&\n  net.dst.port == \"x\"",
            "Type mismatch between the LHS and RHS values of predicate\n --> 2:19\n  |\n2 |   \
             net.dst.port == \"x\"\n  |                   ^-^\n  |\n  = expected a number",
        ),
        (
            "http.path == ",
            " --> 1:14\n  |\n1 | http.path == \n  |              ^---\n  |\n  = expected a value: a \
             text in quotes, a number, an IP address or a CIDR",
        ),
        (
            "http.path ~ \"a(\"",
            " --> 1:13\n  |\n1 | http.path ~ \"a(\"\n  |             ^--^\n  |\n  = unclosed group",
        ),
    ] {
        assert_eq!(parse(wrong).unwrap_err(), shown);
    }
    for (wrong, sentence) in [
        ("", "expected (, !( or a field"),
        ("http.path", "expected an operator"),
        ("http.path == \"a\" http", "expected && or ||"),
        ("(http.path == \"a\"", "expected &&, || or )"),
        ("!http.path == \"a\"", "expected ( after !"),
        (
            "upper(http.path) == \"a\"",
            "unknown transformation function: upper",
        ),
        (
            "lower(net.src.port) == 1",
            "lower-case transformation function only supported",
        ),
        (
            "http.path ~ 1",
            "regex operator can only be used with String operands",
        ),
        (
            "net.src.port ~ \"1\"",
            "Regex operators only supports string operands",
        ),
        (
            "net.src.port ^= 1",
            "Regex/Prefix/Postfix operators only supports string operands",
        ),
        (
            "net.src.port contains 1",
            "Contains operator only supports string operands",
        ),
        (
            "http.path > \"a\"",
            "Greater/GreaterOrEqual/Lesser/LesserOrEqual operators only",
        ),
        (
            "net.src.ip >= 1.1.1.1",
            "Greater/GreaterOrEqual/Lesser/LesserOrEqual operators only",
        ),
        (
            "http.path in \"a\"",
            "In/NotIn operators only supports IP in CIDR",
        ),
        (
            "net.src.ip in 1.1.1.1",
            "In/NotIn operators only supports IP in CIDR",
        ),
        (
            "net.src.ip == 10.0.0.0/8",
            "Type mismatch between the LHS and RHS",
        ),
        (
            "net.src.ip in 10.0.0.1/8",
            "host part of the address 10.0.0.1 is not zero",
        ),
        ("net.src.ip == 1.2.3", "expected an IP address, not 1.2.3"),
        (
            "http.path.segments.1_1 == \"a\"",
            "illformed http.path.segments.* field",
        ),
        (
            "http.path.segments.01 == \"a\"",
            "illformed http.path.segments.* field",
        ),
        ("http.headers. == \"a\"", "Unknown LHS field"),
    ] {
        let error = parse(wrong).unwrap_err();
        assert!(error.contains(sentence), "{wrong}: {error}");
    }
}

#[test]
fn connections_have_no_fields_of_requests() {
    assert!(parse_as("tls.sni == \"a\" && net.src.ip in ::/0", Family::Stream).is_ok());
    let error = parse_as("http.host == \"a\"", Family::Stream).unwrap_err();
    assert!(error.starts_with("Unknown LHS field\n"), "{error}");
}

#[test]
fn brackets_are_nested_to_a_limited_depth() {
    let nested = |depth: usize| {
        let (open, close) = ("!(".repeat(depth), ")".repeat(depth));
        parse(&format!("{open}http.path == \"a\"{close}"))
    };
    nested(100).unwrap();
    let error = nested(101).unwrap_err();
    assert!(error.contains("more than 100 deep"), "{error}");
    assert!(parse(&"(".repeat(1 << 20)).is_err());
    assert!(parse(&"lower(".repeat(1 << 16)).is_err());
}

fn any_expression() -> impl Strategy<Value = String> {
    let predicate = prop_oneof![
        "http\\.(path|method|host|queries\\.a) (==|!=|\\^=|=\\^|contains|~) \"[a-z]{0,3}\"",
        "(lower|any)\\(http\\.headers\\.[a-z_]{1,4}\\) == r#\"[a-z\"]{0,3}\"#",
        "net\\.(src|dst)\\.port (==|!=|>|>=|<|<=) [1-9][0-9]{0,3}",
        "net\\.(src|dst)\\.ip (in|not in) 10\\.0\\.0\\.0/8",
    ];
    predicate.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| parts.join(" && ")),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| parts.join("||")),
            inner.clone().prop_map(|inner| format!("( {inner} )")),
            inner.prop_map(|inner| format!("!({inner})")),
        ]
    })
}

proptest! {
    #[test]
    fn what_the_grammar_makes_is_read(expression in any_expression()) {
        prop_assert!(parse(&expression).is_ok(), "{:?}", parse(&expression));
    }

    /// Any text is read or refused, and never panics; a mistake has a place within the text.
    #[test]
    fn a_text_is_read_or_refused(
        text in "[a-z.()!&|=~^<>\"#r0-9/: \n\u{e9}]{0,40}", family in prop::bool::ANY,
    ) {
        let family = if family { Family::Http } else { Family::Stream };
        let _ = parse_as(&text, family);
    }

    #[test]
    fn a_part_of_an_expression_is_read_or_refused(
        expression in any_expression(), cut in 0_usize..200,
    ) {
        let cut: String = expression.chars().take(cut).collect();
        let _ = parse(&cut);
    }
}
