use proptest::prelude::*;

use super::*;
use crate::authority::Authority;

#[test]
fn a_range_has_a_plain_number_of_bits() {
    for right in ["10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "::/0", "::1/128"] {
        assert!(ip_or_cidr(right).is_ok(), "{right}");
    }
    for wrong in [
        "",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.0/008",
        "010.0.0.0/8",
        "10.0.0.0/8/8",
        "::/129",
        "a.example",
    ] {
        assert!(ip_or_cidr(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn targets_are_stored_in_one_form() {
    for (written, stored) in [
        ("a.example", "a.example:8000"),
        ("A.example:80", "A.example:80"),
        ("127.000.000.001:9", "127.0.0.1:9"),
        ("::1", "[0000:0000:0000:0000:0000:0000:0000:0001]:8000"),
        ("[::1]:81", "[0000:0000:0000:0000:0000:0000:0000:0001]:81"),
        ("unix:/run/A.sock", "unix:/run/A.sock"),
        ("unix:80", "unix:80"),
    ] {
        assert_eq!(normalize_target(written).as_deref(), Some(stored));
    }
    for wrong in [
        "",
        "a b",
        "1.2.3.4.5",
        "a:99999",
        "-:1",
        "a..b",
        "300.1.1.1",
        "123",
        "123:80",
        "a:+80",
        "unix:run/a.sock",
    ] {
        assert_eq!(normalize_target(wrong), None, "{wrong}");
    }
    assert_eq!(same_target("unix:/run/A").as_deref(), Some("unix:/run/A"));
}

#[test]
fn hosts_are_addresses_or_names_without_port() {
    for right in ["a.example", "127.0.0.1", "::1", "a_b", "a.example."] {
        assert_eq!(host(right), Ok(()), "{right}");
    }
    for wrong in [
        "123",
        "1.2.3",
        "123.",
        "300.1.1.1",
        "123:80",
        "a:b",
        "a:",
        "[::1",
    ] {
        assert_eq!(host(wrong), Err(format!("invalid value: {wrong}")));
    }
    assert_eq!(host("a:80"), Err("must not have a port".into()));
    assert_eq!(host("a b"), Err("invalid value: a b".into()));
}

#[test]
fn what_is_wrong_with_a_host_and_its_port_is_told_as_kong_does() {
    for right in [
        "a.example",
        "a.example:8000",
        "127.0.0.1:80",
        "::1",
        "[::1]:80",
    ] {
        assert_eq!(host_with_optional_port(right), Ok(()), "{right}");
    }
    for (form, wrong) in [
        ("hostname", "/a"),
        ("hostname", "http://a.example"),
        ("hostname", "a:b"),
        ("hostname", "a:"),
        ("ipv4 address", "300.1.1.1"),
        ("ipv4 address", "1.2.3:80"),
        ("ipv6 address", "::g"),
    ] {
        let told = format!("invalid {form}: {wrong}");
        assert_eq!(host_with_optional_port(wrong), Err(told));
    }
    for wrong in ["a:65536", "127.0.0.1:1000000", "*.a:1000000"] {
        assert_eq!(route_host(wrong), Err("invalid port number".into()));
    }
    assert_eq!(
        route_host("*.a b"),
        Err("invalid hostname: *.a b".to_owned())
    );
}

#[test]
fn addresses_are_no_server_names_with_or_without_a_port() {
    for address in ["10.0.0.1", "10.0.0.1:8001", "::1", "[::1]:443"] {
        assert_eq!(sni(address), Err("must not be an IP".into()), "{address}");
    }
    assert_eq!(sni("a.example:443"), Err("must not have a port".into()));
    for wrong in ["a.example:", "a:b", "/a"] {
        assert_eq!(sni(wrong), Err(format!("invalid value: {wrong}")));
    }
}

#[test]
fn wildcards_are_whole_labels_at_an_end() {
    assert_eq!(route_host("*.example.com"), Ok(()));
    assert_eq!(route_host("example.*:8000"), Ok(()));
    assert!(
        route_host("a.*.c")
            .unwrap_err()
            .contains("leftmost or rightmost label")
    );
    assert!(
        route_host("*.a.*")
            .unwrap_err()
            .contains("at most one wildcard")
    );
    assert!(route_host("*a.example").is_err());
}

#[test]
fn paths_of_routes_are_normal_or_regular_expressions() {
    for right in ["/a%20b", "/a b", "/{a}|b[c]^", "/\u{e4}", "/a%FF", "/%2F"] {
        assert_eq!(route_path(right), Ok(()), "{right}");
    }
    assert_eq!(
        route_path("/%7bx"),
        Err("non-normalized path, consider use '/{x' instead".into())
    );
    assert_eq!(
        route_path("/a b%\u{e4}"),
        Err("invalid url-encoded value: '%\u{e4}'".into())
    );
    assert_eq!(
        route_path("/a/../%62"),
        Err("non-normalized path, consider use '/b' instead".into())
    );
    assert_eq!(route_path("~/a/\\d+$"), Ok(()));
    assert!(
        route_path("~/a(")
            .unwrap_err()
            .starts_with("invalid regex: '/a('")
    );
    assert!(
        route_path("a")
            .unwrap_err()
            .starts_with("should start with: / (fixed")
    );
    assert_eq!(path("/a%2"), Err("invalid url-encoded value: '%2'".into()));
}

proptest! {
    #[test]
    fn a_stored_target_is_its_own_form(text in "[a-z0-9.:\\[\\]-]{0,20}") {
        if let Some(stored) = normalize_target(&text) {
            prop_assert_eq!(normalize_target(&stored), Some(stored.clone()));
            let read = Authority::of_setting(&stored);
            prop_assert!(read.is_some_and(|read| read.port.is_some()));
            prop_assert_eq!(same_target(&text), same_target(&stored));
        }
    }
}
