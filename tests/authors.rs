//! `pointsman plugin`: the commands for authors of balancers, run as an author runs them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Backend, Gateway, guest};

fn pointsman(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(arguments)
        .current_dir(folder)
        // One target folder for all projects, so that their dependencies are built once. Outside of
        // these tests each project has its own.
        .env("CARGO_TARGET_DIR", target())
        .env_remove("POINTSMAN_ADMIN")
        // A setting of the gateway, which these commands have to ignore.
        .env("POINTSMAN_PROXY_LISTEN", "127.0.0.1:1")
        .output()
        .unwrap()
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("authors")
}

/// Runs a command that has to succeed, and returns its standard output.
#[track_caller]
fn stdout_of(folder: &Path, arguments: &[&str]) -> String {
    let output = pointsman(folder, arguments);
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    out
}

/// Runs a command that has to fail, and returns all that it prints.
#[track_caller]
fn output_of_failure(folder: &Path, arguments: &[&str]) -> String {
    let output = pointsman(folder, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    text(output.stdout) + &text(output.stderr)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Runs cargo, which has to succeed, and returns what it says of its work.
fn cargo<A: AsRef<OsStr>>(folder: &Path, arguments: &[A]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target())
        .output()
        .unwrap();
    let said = text(output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

/// Checks what cargo says of the project, which it has compiled. Other warnings of cargo, such as
/// of its network, are not of the project.
#[track_caller]
fn assert_no_warning(said: &str) {
    assert!(said.contains(" my-balancer v"), "not compiled: {said}");
    assert!(!said.contains("warning: `my-balancer`"), "{said}");
}

#[test]
fn a_new_project_builds_passes_its_check_and_serves() {
    let gateway = Gateway::start();
    let backends = ["a", "b"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));

    let top = tempfile::tempdir().unwrap();
    let next = stdout_of(top.path(), &["plugin", "new", "my-balancer"]);
    assert!(next.contains("pointsman plugin build"), "{next}");
    let folder = top.path().join("my-balancer");
    cargo(&folder, &["fmt", "--check"]);
    // The project's own tests pass natively. It is compiled anew, natively and as a component, and
    // an author's first look at it has no warning.
    assert_no_warning(&cargo(&folder, &["test"]));
    assert_no_warning(&cargo(
        &folder,
        &["clippy", "--all-targets", "--", "-D", "warnings"],
    ));

    let output = pointsman(&folder, &["plugin", "build"]);
    assert!(output.status.success(), "{}", text(output.stderr));
    assert_no_warning(&text(output.stderr));
    let built = text(output.stdout);
    let (component, size) = built.trim_end().rsplit_once(": ").unwrap();
    assert!(component.ends_with("/my_balancer.wasm"), "{built}");
    assert_eq!(
        size,
        format!("{} bytes", std::fs::metadata(component).unwrap().len())
    );

    let config = r#"{"limit": 200}"#;
    let arguments = [
        "plugin", "check", component, "--config", config, "--format", "json",
    ];
    let report: Value = serde_json::from_str(&stdout_of(&folder, &arguments)).unwrap();
    assert_eq!(report["name"], "my-balancer");
    let checks = report["checks"].as_array().unwrap();
    let odd: Vec<_> = checks
        .iter()
        // How long a pick takes also depends on the machine.
        .filter(|check| check["verdict"] != "pass" && check["id"] != "cost")
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert_eq!(report["cost"]["picks"][3]["endpoints"], 10_000);

    let admin = format!("http://{}", gateway.admin);
    let pushed = stdout_of(&folder, &["plugin", "push", component, "--admin", &admin]);
    let digest = report["digest"].as_str().unwrap();
    assert_eq!(
        pushed,
        format!("my-balancer is new, and active: sha256 {digest}\n")
    );
    let change = [
        ("algorithm", "my-balancer"),
        ("pointsman.balancer_config.limit", "200"),
    ];
    gateway.admin("PATCH", "/upstreams/u", &change).expect(200);
    let picks: Vec<String> = (0..4).map(|_| gateway.backend_of("/")).collect();
    assert!(picks.windows(2).all(|pair| pair[0] != pair[1]), "{picks:?}");

    let listed = stdout_of(&folder, &["plugin", "list", "--admin", &admin]);
    let line = listed.lines().find(|line| line.starts_with("my-balancer "));
    let line = line.unwrap();
    assert!(line.contains("uploaded") && line.ends_with(" u"), "{line}");
    assert!(line.contains(&digest[..12]), "{line}");
    let shown = gateway.admin("GET", "/balancers/my-balancer", &[]).json();
    assert_eq!(shown["usage"]["u"]["picks"], 4);
    assert_eq!(shown["usage"]["u"]["host_choices"], 0);
}

#[test]
fn versions_are_pushed_promoted_and_rolled_back() {
    let gateway = Gateway::start();
    let admin = format!("http://{}", gateway.admin);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("first.wasm"), guest("first")).unwrap();
    std::fs::write(folder.join("other.wasm"), guest("least-in-flight")).unwrap();
    let run = |arguments: &[&str]| {
        let gateway = ["--admin", &admin];
        stdout_of(folder, &[&["plugin"], arguments, &gateway].concat())
    };
    let active = || -> String {
        let list = run(&["list"]);
        let line = list.lines().find(|line| line.starts_with("first "));
        line.unwrap_or_else(|| panic!("{list}")).to_owned()
    };

    run(&["push", "first.wasm"]);
    let before = active();
    let new = run(&["push", "other.wasm", "--name", "first"]);
    assert!(new.contains("has a new version: "), "{new}");
    assert!(
        new.contains("; not active; run push again with --promote"),
        "{new}"
    );
    assert_eq!(active(), before);

    let known = run(&["push", "other.wasm", "--name", "first", "--promote"]);
    assert!(known.contains("has this version already: "), "{known}");
    let (_, digest) = known.trim_end().split_once("now active: sha256 ").unwrap();
    let after = active();
    assert_ne!(after, before);
    assert!(after.contains(&digest[..12]), "{after}");
    let again = run(&["push", "other.wasm", "--name", "first"]);
    assert!(again.contains("and it is active"), "{again}");

    let back = run(&["rollback", "first"]);
    assert!(back.starts_with("first rolled back to sha256 "), "{back}");
    assert_eq!(active(), before);
}

#[test]
fn a_failed_check_exits_with_code_1() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("panics.wasm"), guest("panics")).unwrap();
    let said = output_of_failure(folder.path(), &["plugin", "check", "panics.wasm"]);
    assert!(said.contains("FAIL  one"), "{said}");
    assert!(said.contains("this balancer always panics"), "{said}");
    let said = output_of_failure(folder.path(), &["plugin", "check", "none.wasm"]);
    assert!(said.contains("cannot read none.wasm"), "{said}");
}

#[test]
fn plugin_commands_say_in_a_sentence_why_they_fail() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("mine")).unwrap();
    std::fs::write(folder.join("mine/work"), "").unwrap();
    std::fs::write(folder.join("text.wasm"), "text").unwrap();
    let gateway = Gateway::start();
    let admin = format!("http://{}", gateway.admin);
    for (arguments, part) in [
        (&["new", "mine"][..], "the folder mine is not empty"),
        (&["new", "1st"], "is not a name for a crate"),
        (&["build"], "its messages are above"),
        (
            &["build", "--manifest-path", "none/Cargo.toml"],
            "there is no folder none",
        ),
        (
            &["push", "text.wasm", "--admin", &admin],
            "component: this is not WebAssembly",
        ),
        (
            &["rollback", "none", "--admin", &admin],
            "the Admin API answers 404: no balancer has the name or id \"none\"",
        ),
    ] {
        let said = output_of_failure(folder, &[&["plugin"], arguments].concat());
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    assert_eq!(std::fs::read_dir(folder.join("mine")).unwrap().count(), 1);
}

/// The contract is enough to write a balancer without the SDK: the example is C, built by its own
/// script.
#[test]
fn a_balancer_in_c_passes_its_check_and_serves() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/c-balancer");
    let output = Command::new(folder.join("build.sh")).output().unwrap();
    assert!(output.status.success(), "{}", text(output.stderr));
    let component = folder.join("target/c-balancer.wasm");
    let checked = stdout_of(&folder, &["plugin", "check", component.to_str().unwrap()]);
    assert!(checked.contains(" 0 failed"), "{checked}");

    let gateway = Gateway::start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    let component = std::fs::read(component).unwrap();
    gateway.upload("c", component).expect(201);
    gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", "c")])
        .expect(200);
    let mut picks: Vec<String> = (0..3).map(|_| gateway.backend_of("/")).collect();
    picks.sort();
    assert_eq!(picks, ["a", "b", "c"]);
    let shown = gateway.admin("GET", "/balancers/c", &[]).json();
    assert_eq!(shown["usage"]["u"]["host_choices"], 0, "{shown}");
}
