//! Settings by flag, environment and file: precedence, and mistakes in them.

use std::fs;
use std::path::Path;

use crate::command_line::error_of;
use crate::harness::{Gateway, Setup, help};

#[test]
fn all_mistakes_of_flags_environment_and_file_are_reported_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    let text = "log = info\nwokers = 3\nbalancer_memory = \"64\"\n[proxy]\nlisten = 1\n";
    fs::write(&file, text).unwrap();
    let (status, said) = Setup::new()
        .arg("--config", file.display())
        .arg("--max-header-size", "large")
        .env("POINTSMAN_CLIENT_BODY_TIMEOUT", -1)
        .arg("--balancer-pik-cost", 7)
        .env("POINTSMAN_WORKERS", "many")
        .env("POINTSMAN_DNS_MIN_TTL", "")
        .env("POINTSMAN_LOGG", "info")
        .fail();
    assert!(!status.success());
    let file = file.display();
    let expected = [
        format!("log = info: text needs quotes, as in log = \"info\" (set in {file}, line 1)"),
        format!("{file}, line 2 is invalid: unknown field `wokers`; did you mean `workers`?"),
        format!("without quotes (set in {file}, line 3)"),
        format!("{file}, line 4 is invalid: unknown field `proxy`"),
        "max_header_size = \"large\": expected a number from 8192 to 1048576 (set by --max-header-size)".into(),
        "client_body_timeout = -1: expected a number from 1 to 3600".into(),
        "'--balancer-pik-cost' found; did you mean --balancer-pick-cost?".into(),
        "workers = \"many\": expected a number from 1 to 1024 (set by POINTSMAN_WORKERS)".into(),
        "dns_min_ttl = \"\": expected a number from 10 to 3600000 (set by POINTSMAN_DNS_MIN_TTL)".into(),
        "no setting has the variable POINTSMAN_LOGG; did you mean POINTSMAN_LOG?".into(),
    ];
    for mistake in &expected {
        assert!(said.contains(mistake.as_str()), "{mistake}\nin\n{said}");
    }
    assert_eq!(said.lines().count(), expected.len(), "{said}");
    assert!(said.lines().all(|line| line.starts_with("pointsman: ")));
}

#[test]
fn an_unreadable_config_file_hides_no_other_mistake() {
    let (_, said) = Setup::new()
        .arg("--config", "/none/settings.toml")
        .arg("--workers", 0)
        .fail();
    assert!(
        said.contains("cannot read the config file /none/settings.toml"),
        "{said}"
    );
    assert!(said.contains("workers = 0: expected"), "{said}");
    // A variable that is set by Kubernetes for a service named `pointsman` is not a setting.
    let gateway = Setup::new()
        .env("POINTSMAN_PORT", "tcp://10.0.0.1:80")
        .start();
    gateway.admin("GET", "/status", &[]).expect(200);
}

#[test]
fn a_flag_without_a_value_is_reported_with_the_others() {
    let said = error_of(&["--workers", "0", "--log", "loud", "--data-dir"]);
    for mistake in ["workers = 0", "log = \"loud\"", "--data-dir <DIR>"] {
        assert!(said.contains(mistake), "{mistake} in {said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");
}

#[test]
fn invalid_settings_are_reported_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "workers = 0\nmax_header_size = 1\n").unwrap();
    let (status, said) = Setup::new()
        .arg("--config", file.display())
        .arg("--workers", 5000)
        .fail();
    assert!(!status.success());
    assert!(
        said.contains("workers = 5000: expected a number from 1 to 1024"),
        "{said}"
    );
    assert!(
        said.contains("max_header_size = 1: expected a number from 8192"),
        "{said}"
    );

    std::fs::write(&file, "wokers = 1\n").unwrap();
    let (_, said) = Setup::new().arg("--config", file.display()).fail();
    assert!(
        said.contains(", line 1 is invalid: unknown field `wokers`; did you mean `workers`?"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    let missing = folder.path().join("missing.toml");
    let (status, said) = Setup::new().arg("--config", missing.display()).fail();
    assert!(!status.success());
    assert!(said.contains("cannot read the config file"), "{said}");
}

#[test]
fn settings_come_from_flag_environment_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "workers = 3\nlog = \"error\"\n").unwrap();
    let with_file = || Setup::new().env("POINTSMAN_CONFIG", file.display());
    let workers = |gateway: &Gateway| {
        let root = gateway.admin("GET", "/", &[]).expect(200).json();
        root["configuration"]["nginx_worker_processes"].clone()
    };
    // Where a test sets no number of workers, the harness sets one by a flag, which wins over the
    // file.
    let gateway = with_file().start();
    assert_eq!(workers(&gateway), "2");
    let root = gateway.admin("GET", "/", &[]).expect(200).json();
    assert!(root["version"].as_str().unwrap().starts_with("3.9."));
    assert_eq!(root["pointsman"]["version"], env!("CARGO_PKG_VERSION"));
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert_eq!(log, "", "the file sets the level to error");

    let by_environment = with_file()
        .env("POINTSMAN_WORKERS", 4)
        .env("POINTSMAN_LOG", "info")
        .start();
    assert_eq!(workers(&by_environment), "4");
    let by_flag = with_file()
        .env("POINTSMAN_WORKERS", 4)
        .arg("--workers", 5)
        .start();
    assert_eq!(workers(&by_flag), "5");
    by_environment.terminate();
    let (_, log) = by_environment.wait();
    assert!(log.contains("all requests drained"), "{log}");
}

#[test]
fn every_setting_of_help_is_in_the_readme() {
    let readme = include_str!("../README.md");
    for setting in ["proxy_listen", "admin_listen", "data_dir", "workers", "log"] {
        assert!(readme.contains(setting), "{setting}");
    }
    let help = help();
    let mut settings = 0;
    for line in help
        .lines()
        .filter(|line| line.trim_start().starts_with("--"))
    {
        let flag = line.split_whitespace().next().unwrap();
        let name = flag.trim_start_matches("--").replace('-', "_");
        let variable = format!("POINTSMAN_{}", name.to_uppercase());
        assert!(help.contains(&variable), "{variable} is not in the help");
        assert!(
            readme.contains(&format!("`{name}`")) || name == "config",
            "{name} is not in the README"
        );
        settings += 1;
    }
    assert!(settings >= 15, "{help}");
}

#[test]
fn settings_are_checked_without_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let checked = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["--check", "--data-dir"])
            .arg(&data)
            .args(arguments)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    assert_eq!(checked(&[]), (Some(0), "the settings are valid\n".into()));
    let document = file("kong.yml", "_format_version: '3.0'\nroutes:\n- name: r\n");
    let settings = file("p.toml", "workers = 0\nproxy_lisen = \"127.0.0.1:0\"\n");
    let shared = ["--store", "etcd", "--etcd-endpoints", "https://127.0.0.1:1"];
    assert_eq!(checked(&shared).0, Some(0));
    let log = folder.path().join("a.log").display().to_string();
    assert_eq!(checked(&["--proxy-access-log", &log]).0, Some(0));
    assert!(!Path::new(&log).exists());
    for (arguments, told) in [
        (
            &["--config", &*settings][..],
            &["workers", "proxy_lisen"][..],
        ),
        (
            &["--ssl-cert", "/none.crt", "--ssl-cert-key", "/none.key"],
            &["ssl_cert: failed loading certificate from /none.crt"],
        ),
        (
            &[
                "--client-ssl",
                "on",
                "--client-ssl-cert",
                "/none.pem",
                "--client-ssl-cert-key",
                "/none.pem",
            ],
            &["client_ssl_cert: failed loading certificate from /none.pem"],
        ),
        (
            &["--database", "off", "--declarative-config", &document],
            &["kong.yml: line 3: routes[0] (r): must set one of"],
        ),
        (
            &["--database", "off", "--declarative-config", "/none.yml"],
            &["cannot read /none.yml"],
        ),
        (&["--store", "etcd"], &["store = etcd needs etcd_endpoints"]),
        (&["--channel", "canary"], &["but store is sled"]),
        (
            &[
                &shared[..],
                &["--keyring-file", &document, "--etcd-ca", "/none.pem"],
            ]
            .concat(),
            &[
                "keyring_file: line 1 of",
                "is no key of 64",
                "etcd_ca: failed loading /none.pem",
            ],
        ),
        (
            &["--hash-keys", "on", "--hash-keys-file", "/none/hash.key"],
            &["cannot write /none/hash.key: No such file"],
        ),
        (
            &["--hash-keys-file", &document],
            &["kong.yml does not hold a key of 64 hexadecimal digits"],
        ),
        (
            &["--proxy-access-log", "/none/dir/a.log"],
            &["proxy_access_log: cannot open the access log /none/dir/a.log: No such file"],
        ),
        (
            &["--proxy-access-log", &format!("{document}/a.log")],
            &["kong.yml/a.log: Not a directory"],
        ),
        (
            &[
                "--proxy-stream-access-log",
                &folder.path().display().to_string(),
            ],
            &[
                "proxy_stream_access_log: cannot open the access log",
                "is a directory",
            ],
        ),
    ] {
        let (code, said) = checked(arguments);
        assert_eq!(code, Some(1), "{said}");
        for told in told {
            assert!(said.contains(told), "{told}: {said}");
        }
    }
    assert!(!data.exists());
}

#[test]
fn the_page_for_operators_of_kong_has_every_setting() {
    let page = include_str!("../docs/from-kong.md");
    let help = help();
    let flags = help.lines().filter_map(|line| {
        let flag = line.trim_start().strip_prefix("--")?;
        Some(flag.split_whitespace().next()?.replace('-', "_"))
    });
    let settings: Vec<String> = flags.filter(|name| name != "config").collect();
    for name in &settings {
        assert!(
            page.contains(&format!("`{name}`")),
            "{name} is not on the page"
        );
    }
    // What is the same has the name of a setting, and so has what a key of Kong becomes.
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let named = match cells[2] {
            "none" => continue,
            "the same" => cells[1],
            other => other,
        };
        for name in named.split('`').skip(1).step_by(2) {
            assert!(settings.iter().any(|known| known == name), "{name}: {row}");
        }
    }
}
