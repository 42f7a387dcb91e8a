#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use clap::builder::Resettable;
use clap::{Args, Command, FromArgMatches};

use super::declaration::{DefaultValue, Kind, Setting};
use super::settings::{FILE, SECTIONS};
use super::*;

/// Settings from flags, parsed as in the program, without the environment of the tests.
fn flags(arguments: &[&str]) -> Written {
    let command = Written::augment_args(Command::new("pointsman").no_binary_name(true));
    let command = command.mut_args(|argument| argument.env(Resettable::Reset));
    Written::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
}

/// Settings from a file with this text. The file is deleted with the folder.
fn in_file(text: &str) -> (tempfile::TempDir, Written) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    std::fs::write(&path, text).unwrap();
    let written = flags(&["--config", path.to_str().unwrap()]);
    (folder, written)
}

/// The error for settings that are refused.
fn refusal(written: Written) -> String {
    Config::load(written).unwrap_err().to_string()
}

#[test]
fn the_defaults_are_kongs_ports() {
    let config = Config::load(Written::default()).unwrap();
    let written = |listens: &[Listen]| {
        let listens = listens.iter().map(ToString::to_string);
        listens.collect::<Vec<_>>()
    };
    assert_eq!(
        written(&config.proxy_listen),
        [
            "0.0.0.0:8000 reuseport backlog=16384",
            "0.0.0.0:8443 ssl http2 reuseport backlog=16384"
        ]
    );
    assert_eq!(
        written(&config.admin_listen),
        [
            "127.0.0.1:8001 reuseport backlog=16384",
            "127.0.0.1:8444 ssl http2 reuseport backlog=16384"
        ]
    );
    assert_eq!(
        written(&config.status_listen),
        ["127.0.0.1:8007 reuseport backlog=16384"]
    );
    assert_eq!(config.proxy.keepalive_pool_size, 512);
}

#[test]
fn sizes_and_times_are_in_their_units() {
    let config = Config::load(Written::default()).unwrap();
    assert_eq!(config.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(config.dns.min_ttl, Duration::from_secs(1));
    assert_eq!(config.balancer.pick_timeout, Duration::from_millis(10));
    assert_eq!(config.balancer.pick_cost, Duration::from_micros(100));
    assert_eq!(config.proxy.max_header_size, 32 << 10);
    assert_eq!(config.balancer.memory, 16 << 20);
    assert_eq!(config.proxy.route_regex_memory, 512 << 20);
    assert_eq!(
        config.proxy.route_regex_memory,
        crate::pattern::PATTERN_MEMORY
    );
}

#[test]
fn zero_sets_no_limit() {
    let config = Config::load(flags(&[
        "--upstream-keepalive-max-requests=0",
        "--upstream-keepalive-idle-timeout=0",
    ]))
    .unwrap();
    assert_eq!(config.proxy.keepalive_max_requests, None);
    assert_eq!(config.proxy.keepalive_idle_timeout, None);
}

#[test]
fn every_mistake_is_reported_at_once() {
    let error = refusal(flags(&[
        "--proxy-listen=nowhere",
        "--workers=0",
        "--dns-min-ttl=soon",
        "--log=loud",
    ]));
    assert_eq!(error.lines().count(), 4, "{error}");
    for told in [
        "proxy_listen = \"nowhere\": \"nowhere\" does not end in a port; must be of form: [off]",
        "workers = 0: expected a number from 1 to 1024 (set by --workers)",
        "dns_min_ttl = \"soon\": expected a number from 10 to 3600000 (set by --dns-min-ttl)",
    ] {
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_flag_wins_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    std::fs::write(&path, "workers = 7\nproxy_listen = \"[::1]:0\"").unwrap();
    let config = Config::load(flags(&[
        "--config",
        path.to_str().unwrap(),
        "--workers",
        "3",
    ]))
    .unwrap();
    assert_eq!(config.workers, 3);
    assert_eq!(config.proxy_listen[0].to_string(), "[::1]:0");
}

#[test]
fn a_switch_may_be_a_boolean_and_its_words_need_quotes() {
    for (written, on) in [("true", true), ("\"on\"", true), ("false", false)] {
        let (_folder, written) = in_file(&format!("take_over = {written}\n"));
        assert_eq!(Config::load(written).unwrap().take_over, on);
    }
    let (_folder, written) = in_file("take_over = on\nclient_ssl = Off\nhash_keys = 1\n");
    let error = refusal(written);
    for told in [
        "take_over = on: text needs quotes, as in take_over = \"on\"",
        "client_ssl = Off: text needs quotes, as in client_ssl = \"off\"",
        "hash_keys = 1: expected on or off",
    ] {
        assert!(error.contains(told), "{told} in {error}");
    }
}

#[test]
fn a_number_with_a_fraction_or_without_its_unit_needs_no_quotes() {
    let written =
        "tracing_sampling_rate = 0.5\nssl_session_cache_size = 0\nssl_session_timeout = 90\n";
    let (_folder, written) = in_file(written);
    let checked = |written| {
        let mut config = Config::load(written).unwrap();
        config.written.clear();
        config.file = None;
        format!("{config:?}")
    };
    let as_flags = flags(&[
        "--tracing-sampling-rate=0.5",
        "--ssl-session-cache-size=0",
        "--ssl-session-timeout=90",
    ]);
    assert_eq!(checked(written), checked(as_flags));
    let (_folder, written) = in_file("tracing_sampling_rate = 2\nlog = 1\n");
    let error = refusal(written);
    for told in [
        "tracing_sampling_rate = 2: expected a number from 0 to 1",
        "log = 1: text needs quotes",
    ] {
        assert!(error.contains(told), "{told} in {error}");
    }
}

#[test]
fn text_in_the_file_needs_quotes_and_numbers_need_none() {
    let (folder, written) = in_file(
        "proxy_listen = 0.0.0.0:80\nlog = info\nworkers = \"4\"\ndata_dir = [1]\n\
         max_header_size = many\nsyslog_socket = [\"[::1]:0\"]\n",
    );
    let error = refusal(written);
    let shown = folder.path().join("x.toml");
    let shown = shown.display();
    for told in [
        "proxy_listen = 0.0.0.0:80: text needs quotes, as in proxy_listen = \"0.0.0.0:80\""
            .to_owned(),
        format!("log = info: text needs quotes, as in log = \"info\" (set in {shown}, line 2)"),
        "workers = \"4\": expected a number from 1 to 1024, without quotes".to_owned(),
        "data_dir = a list: expected text in quotes".to_owned(),
        "syslog_socket = a list: expected text in quotes".to_owned(),
        "max_header_size = many: expected a number from 8192".to_owned(),
    ] {
        assert!(error.contains(&told), "{told} in {error}");
    }
    assert_eq!(error.lines().count(), 6, "{error}");
}

#[test]
fn a_list_is_an_array_or_has_commas() {
    for text in [
        "dns_resolver = \"192.0.2.1, [::1]:5353\"",
        "dns_resolver = [\"192.0.2.1\", \"[::1]:5353\"]",
    ] {
        let (_folder, written) = in_file(text);
        let config = Config::load(written).unwrap();
        let servers = config.dns.resolvers.iter().map(ToString::to_string);
        let servers: Vec<String> = servers.collect();
        assert_eq!(servers, ["192.0.2.1:53", "[::1]:5353"], "{text}");
    }
}

#[test]
fn every_wrong_entry_of_a_list_is_reported() {
    let error = refusal(flags(&["--dns-resolver", "one,192.0.2.1,two"]));
    assert_eq!(error.lines().count(), 2, "{error}");
    for told in [
        "dns_resolver = \"one\": expected addresses, such as 192.0.2.53",
        "dns_resolver = \"two\": expected addresses, such as 192.0.2.53",
    ] {
        assert!(error.contains(told), "{told} in {error}");
    }
    let (_folder, written) = in_file("dns_resolver = [5]");
    let error = refusal(written);
    assert!(error.contains("dns_resolver = a list: expected"), "{error}");
    // Each of these is a valid type, but none leads to an address by itself.
    let error = refusal(flags(&["--dns-order", "LAST, CNAME"]));
    assert!(
        error.contains("dns_order = \"LAST,CNAME\": expected SRV"),
        "{error}"
    );
}

#[test]
fn a_variable_with_a_typo_is_reported_and_others_are_ignored() {
    let names = [
        "POINTSMAN_WOKERS",
        "POINTSMAN_PORT",
        "POINTSMAN_ADMIN",
        "POINTSMAN_ADMIN_CA",
        "POINTSMAN_ADMIN_TOKEN",
        "PATH",
    ];
    let told = misspelt_variables(names.into_iter().map(Into::into));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("POINTSMAN_WOKERS; did you mean POINTSMAN_WORKERS?"));
}

#[test]
fn a_wrong_token_is_reported_without_what_may_be_secret() {
    let token = AdminToken::new("ci", true, b"secret");
    let entries = format!("{token},ci:read-only:abc,secret,{token}");
    let error = refusal(flags(&["--admin-tokens", &entries]));
    assert_eq!(error.lines().count(), 3, "{error}");
    assert!(
        error.contains("admin_tokens = \"ci…\": expected tokens"),
        "{error}"
    );
    assert!(
        !error.contains("secret") && !error.contains("abc"),
        "{error}"
    );
}

#[test]
fn a_list_that_keeps_others_out_is_not_empty() {
    for flag in ["--admin-tokens", "--balancer-public-keys"] {
        for empty in ["", " , "] {
            let error = refusal(flags(&[flag, empty]));
            assert!(
                error.contains("= \"\": expected"),
                "{flag} {empty:?}: {error}"
            );
        }
    }
    let (_folder, written) = in_file("admin_tokens = []\n");
    assert!(refusal(written).contains("leave it out for none"));
}

#[test]
fn settings_of_custom_have_no_effect_with_another_suite() {
    let without_effect =
        |arguments: &[&str]| Config::load(flags(arguments)).unwrap().without_effect();
    let protocols = ["--ssl-protocols", "TLSv1.3"];
    assert_eq!(without_effect(&protocols), ["ssl_protocols"]);
    let custom = [&protocols[..], &["--ssl-cipher-suite", "custom"]].concat();
    assert!(without_effect(&custom).is_empty());
    assert!(without_effect(&[]).is_empty());
}

/// Each entry of the table fills a field of its own: its value appears in the checked settings.
#[test]
fn every_setting_has_its_effect() {
    let checked = |written: Written| {
        let mut config = Config::load(written).unwrap();
        config.written.clear();
        format!("{config:?}")
    };
    let usual = checked(Written::default());
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let token = &AdminToken::new("a", true, b"secret").to_string();
    let mut effects = std::collections::BTreeSet::new();
    for setting in settings::all() {
        let other = match &setting.kind {
            Kind::Number(_, range, _) | Kind::Size(_, range, _) | Kind::Time(_, range, _) => {
                &range.end().to_string()
            }
            _ => match setting.name {
                "stream_listen" => "127.0.0.1:1 udp",
                "database" => "off",
                "store" => "etcd",
                "etcd_endpoints" => "http://192.0.2.1:2379",
                "etcd_prefix" => "/other/",
                "etcd_user" | "etcd_password" => "a",
                "etcd_ca" | "etcd_cert" | "etcd_cert_key" => "etcd.pem",
                "declarative_config_string" => "{}",
                "headers" => "Via",
                "headers_upstream" => "off",
                "debug_token" => "0123456789abcdef",
                "proxy_access_log_format" | "proxy_stream_access_log_format" => "json",
                "proxy_access_log" | "proxy_stream_access_log" => "access.log",
                "data_dir" | "declarative_config" | "dns_hostsfile" | "syslog_socket"
                | "hash_keys_file" | "keyring_file" => "elsewhere",
                "hash_keys" | "real_ip_recursive" | "allow_debug_header" => "on",
                "trusted_ips" => "192.0.2.0/24",
                "real_ip_header" => "proxy_protocol",
                "tracing_instrumentations" => "router",
                "tracing_sampling_rate" => "0.5",
                "log" => "warn",
                "take_over" => "on",
                "channel" => "canary",
                "proxy_listen" | "admin_listen" | "admin_gui_listen" | "status_listen" => {
                    "192.0.2.1:7"
                }
                "admin_gui_path" => "/manager",
                "ssl_verify_client" => "on",
                "ssl_client_certificate" => "a.pem",
                "ssl_cipher_suite" => "modern",
                "ssl_protocols" => "TLSv1.3",
                "ssl_ciphers" => "ECDHE-RSA-AES128-GCM-SHA256",
                "ssl_prefer_server_ciphers" | "ssl_session_tickets" => "off",
                "ssl_session_cache_size" => "1m",
                "ssl_session_timeout" => "12h",
                "ssl_cert"
                | "ssl_cert_key"
                | "admin_ssl_cert"
                | "admin_ssl_cert_key"
                | "admin_gui_ssl_cert"
                | "admin_gui_ssl_cert_key"
                | "status_ssl_cert"
                | "status_ssl_cert_key" => "a.pem",
                "admin_gui_url" => "http://a.example",
                "admin_hosts" => "a.example",
                "admin_tokens" => token,
                "dns_resolver" => "192.0.2.1",
                "dns_order" => "AAAA",
                "balancer_public_keys" => key,
                "router_flavor" => "expressions",
                "client_ssl" => "on",
                "client_ssl_cert" | "client_ssl_cert_key" => "client.pem",
                name => panic!("this test needs a value of {name}, other than its default"),
            },
        };
        let written = flags(&[&format!("--{}", setting.flag()), other]);
        let config = checked(written);
        assert_ne!(config, usual, "{}", setting.name);
        assert!(effects.insert(config), "{}: same field", setting.name);
    }
}

/// A setting's row in README: name, default, what is accepted, what it is for.
fn row(setting: &Setting) -> Vec<String> {
    let words = setting.default.words();
    let default = match setting.default {
        DefaultValue::Written(_) => format!("`{words}`"),
        DefaultValue::Computed(..) | DefaultValue::Unset(_) => words.to_owned(),
    };
    vec![
        format!("`{}`", setting.name),
        default,
        setting.kind.accepted().unwrap_or_default(),
        setting.about.to_owned(),
    ]
}

/// README's tables of settings, generated from the declarations.
fn tables() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        text.push_str(&format!("### {}\n\n", section.title));
        text.push_str("| setting | default | accepted | |\n|---|---|---|---|\n");
        for setting in section.settings {
            text.push_str(&format!("| {} |\n", row(setting).join(" | ")));
        }
        text.push('\n');
    }
    text
}

/// The headings and the rows of tables, cell by cell.
fn cells(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines();
    let lines = lines.filter(|line| line.starts_with('|') || line.starts_with("###"));
    let cells = lines.map(|line| line.trim_matches('|').split('|').map(str::trim));
    cells.map(Iterator::collect).collect()
}

#[test]
fn the_readme_has_every_setting_as_it_is_declared() {
    let readme = include_str!("../../../README.md");
    let chapter = &readme[readme.find("\n## Configuration\n").unwrap() + 1..];
    let chapter = &chapter[..chapter.find("\n## ").unwrap()];
    let tables = tables();
    let (stands, declared) = (cells(chapter), cells(&tables));
    let mut rows = stands.iter().zip(&declared);
    let differs = rows.find(|(stands, declared)| stands != declared);
    assert!(
        stands == declared,
        "the chapter Configuration of README needs these tables:\n\n{tables}\n\
         First difference: {differs:#?}"
    );
}

#[test]
fn every_flag_is_in_the_help_with_its_default() {
    let mut command = Written::augment_args(Command::new("pointsman").term_width(0));
    let help = command.render_help().to_string();
    for setting in settings::all().chain([&FILE]) {
        let flag = format!("--{} <{}>", setting.flag(), setting.value_name());
        let line = help.lines().find(|line| line.contains(&flag)).unwrap();
        let variable = format!("[env: {}=", setting.variable());
        for part in [setting.help(), variable] {
            assert!(line.contains(&part), "{part} is not in {line}");
        }
    }
}
