use super::*;

#[test]
fn the_format_follows_accept_with_its_weights() {
    assert_eq!(Format::best(b"*/*"), Some(Format::Json));
    assert_eq!(
        Format::best(b"text/html;q=0.8, application/xml"),
        Some(Format::Xml)
    );
    assert_eq!(
        Format::best(b"image/png, text/*;q=0.1"),
        Some(Format::Plain)
    );
    assert_eq!(
        Format::best(b"application/json;q=0, text/html"),
        Some(Format::Html)
    );
    assert_eq!(Format::best(b"image/png"), None);
}

#[test]
fn every_format_has_the_reason_why_no_peer_was_chosen() {
    for format in [Format::Json, Format::Html, Format::Xml, Format::Plain] {
        let body = format.body("no", Some("no_targets"), "7");
        assert!(body.contains("no_targets"), "{body}");
        assert!(!format.body("no", None, "7").contains("reason"));
    }
    assert_eq!(
        Format::Plain.body("no", Some("overflow"), "7"),
        "no\nrequest_id: 7\nreason: overflow\n"
    );
}

#[test]
fn json_errors_have_kongs_layout() {
    assert_eq!(
        Format::Json.body("no", None, "7"),
        "{\n  \"message\":\"no\",\n  \"request_id\":\"7\"\n}"
    );
}
