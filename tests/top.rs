//! `pointsman top`: the overview as a table, and in a terminal.

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Backend, Gateway, PseudoTerminal, Setup, patch_upstream, send_signal, until};

/// How long a text is waited for.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

fn top(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    let admin = gateway.admin.to_string();
    command.args(["top", "--admin", &admin]).args(arguments);
    command.env_remove("NO_COLOR");
    command
}

fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = top(gateway, arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

/// Runs something while requests go through the gateway, so that each second has some.
fn under_load<T>(gateway: &Gateway, run: impl FnOnce() -> T) -> T {
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                gateway.get("/");
            }
        });
        let result = run();
        ends.store(true, Ordering::Relaxed);
        result
    })
}

/// Two upstreams, one of which has a backend that works and one that does not.
fn with_two_upstreams() -> (Gateway, [Backend; 2]) {
    let gateway = Gateway::start();
    let backends = ["one", "two"].map(Backend::start);
    gateway.balanced(&[(backends[0].address, 100), (backends[1].address, 100)]);
    gateway.balanced_as("quiet", "/quiet", &[(backends[1].address, 100)]);
    let routes = gateway.admin("GET", "/routes", &[]).json();
    let mut routes = routes["data"].as_array().unwrap().iter();
    let route = routes.find(|route| route["paths"][0] == "/").unwrap();
    let path = format!("/routes/{}", route["id"].as_str().unwrap());
    gateway
        .admin("PATCH", &path, &[("name", "the-route")])
        .expect(200);
    (gateway, backends)
}

#[test]
fn once_is_a_table_of_routes_upstreams_and_targets() {
    let (gateway, backends) = with_two_upstreams();
    let checks = json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 1}}}});
    patch_upstream(&gateway, &checks);
    let two = backends[1].address;
    let unhealthy = format!("/upstreams/u/targets/{two}/unhealthy");
    gateway.admin("PUT", &unhealthy, &[]).expect(204);
    let output = under_load(&gateway, || run(&gateway, &["--once"]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    let line = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no {start} in\n{text}"));
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let rate: f64 = line("the-route ")[1].parse().unwrap();
    assert!(rate > 0.0, "{text}");
    assert!(text.contains("1 of 2"), "{text}");
    assert_eq!(line("quiet ")[1], "0");
    assert!(text.contains("TARGET of u "), "{text}");
    assert_eq!(
        line(&backends[0].address.to_string()).last().unwrap(),
        "healthy"
    );
    assert!(
        line(&two.to_string()).contains(&"unhealthy".to_owned()) || {
            let line = line(&two.to_string()).join(" ");
            line.contains("unhealthy:")
        }
    );

    let other = run(&gateway, &["--once", "--upstream", "quiet"]);
    let text = String::from_utf8(other.stdout).unwrap();
    assert!(text.contains("TARGET of quiet "), "{text}");
    let missing = run(&gateway, &["--upstream", "nowhere"]);
    assert!(!missing.status.success());
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("there is no upstream \"nowhere\""), "{said}");
}

#[test]
fn a_gateway_that_is_not_there_or_wants_a_token_is_reported() {
    let made = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["admin-token", "graphs", "--read-only"])
        .output();
    let made = String::from_utf8(made.unwrap().stdout).unwrap();
    let value = |name: &str| {
        let mut lines = made.lines();
        lines.find_map(|line| line.strip_prefix(name)).unwrap()
    };
    let entry = value("admin_tokens entry: ");
    let gateway = Setup::new().arg("--admin-tokens", entry).start();
    let refused = run(&gateway, &["--once"]);
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("401"), "{said}");
    let admitted = top(&gateway, &["--once"])
        .env("POINTSMAN_ADMIN_TOKEN", value("token: "))
        .output()
        .unwrap();
    let text = String::from_utf8(admitted.stdout).unwrap();
    assert!(text.contains("requests/s"), "{text}");
    let address = gateway.admin.to_string();
    drop(gateway);
    let gone = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["top", "--once", "--admin", &address])
        .output()
        .unwrap();
    assert!(!gone.status.success());
    let said = String::from_utf8(gone.stderr).unwrap();
    assert!(said.contains(&address), "{said}");
}

/// A `top` in a terminal, and what it has drawn so far.
struct Watched {
    child: Child,
    terminal: PseudoTerminal,
    drawn: Vec<u8>,
}

impl Watched {
    fn start(gateway: &Gateway, columns: u16, rows: u16) -> Self {
        let terminal = PseudoTerminal::open(columns, rows);
        let mut command = top(gateway, &[]);
        command
            .stdin(terminal.end())
            .stdout(terminal.end())
            .stderr(Stdio::piped());
        Self {
            child: command.spawn().unwrap(),
            terminal,
            drawn: Vec::new(),
        }
    }

    /// Reads until this text was drawn.
    fn wait_for(&mut self, text: &str) {
        let mut piece = [0; 4096];
        let began = Instant::now();
        while !String::from_utf8_lossy(&self.drawn).contains(text) {
            let read = self.terminal.read(&mut piece).unwrap_or_else(|error| {
                panic!(
                    "{error} before {text}: {}",
                    String::from_utf8_lossy(&self.drawn)
                )
            });
            self.drawn.extend_from_slice(&piece[..read]);
            // It is drawn every second, so the reads never end.
            assert!(
                began.elapsed() < WAIT_TIMEOUT,
                "no {text} in {}",
                String::from_utf8_lossy(&self.drawn)
            );
        }
    }

    /// Presses a key, after which only what is drawn from then on counts.
    fn press(&mut self, key: &str) {
        self.drawn.clear();
        self.terminal.write_all(key.as_bytes()).unwrap();
    }

    /// Waits until the program has ended and has put the terminal back.
    fn wait_for_end(mut self) {
        self.wait_for("\u{1b}[?1049l");
        assert!(self.child.wait().unwrap().success());
        assert!(self.terminal.echoes());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_terminal_is_drawn_ordered_resized_and_put_back() {
    let (gateway, _backends) = with_two_upstreams();
    under_load(&gateway, || {
        let mut top = Watched::start(&gateway, 100, 30);
        top.wait_for("TARGET of u ");
        assert!(!top.terminal.echoes());
        top.wait_for("1 requests*");
        // The other upstream is below.
        top.press("\u{1b}[B");
        top.wait_for("TARGET of quiet ");
        top.press("5");
        top.wait_for("5 name*");
        // Too narrow for all columns, and too low for all parts.
        top.drawn.clear();
        top.terminal.resize(40, 8);
        top.wait_for("REQ/S");
        let drawn = String::from_utf8_lossy(&top.drawn).into_owned();
        let frame = drawn.rsplit("\u{1b}[H").next().unwrap();
        assert!(frame.matches("\r\n").count() < 8, "{frame}");
        top.press("\u{3}");
        top.wait_for_end();
    });
}

#[test]
fn a_stuck_gateway_is_shown_as_silent() {
    let (gateway, _backends) = with_two_upstreams();
    let mut top = Watched::start(&gateway, 100, 30);
    top.wait_for("UPSTREAM");
    gateway.signal("-STOP");
    top.wait_for("no newer figures: none have come for 5 s");
    gateway.signal("-CONT");
    top.press("q");
    top.wait_for_end();
}

#[test]
fn a_signal_puts_the_terminal_back_and_a_restart_is_survived() {
    let (gateway, _backends) = with_two_upstreams();
    let tops = ["TERM", "QUIT"].map(|signal| {
        let mut top = Watched::start(&gateway, 100, 30);
        top.wait_for("UPSTREAM");
        (signal, top)
    });
    gateway.terminate();
    for (signal, mut top) in tops {
        top.wait_for("no newer figures: ");
        send_signal(top.child.id(), signal);
        top.wait_for_end();
    }
    until("the gateway has ended", || {
        gateway.try_admin("GET", "/", &[]).is_none()
    });
}
