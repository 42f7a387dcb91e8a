//! The command line: suggestions and signals.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use crate::harness::{Gateway, Setup};

/// Runs the program without settings in its environment.
pub(crate) fn pointsman(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POINTSMAN_")) {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

/// Runs a command that has to fail, and returns its standard error.
#[track_caller]
pub(crate) fn error_of(arguments: &[&str]) -> String {
    let output = pointsman(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_mistyped_command_gets_a_suggestion() {
    for (mistyped, meant) in [
        (&["simulat"][..], "'simulate'"),
        (&["plugin", "chek"], "'check'"),
        (&["simulate", "uneven", "--sed", "3"], "'--seed'"),
        (&["--worker", "simulate"], "--workers"),
    ] {
        let said = error_of(mistyped);
        assert!(said.contains(meant), "{mistyped:?}: {said}");
    }
}

#[test]
fn a_command_ends_quietly_if_the_reader_of_its_output_has_left() {
    let gateway = Gateway::start();
    let admin = format!("http://{}", gateway.admin);
    for arguments in [
        &["plugin", "list", "--admin", &admin][..],
        &["simulate", "--list"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        let output = command.args(arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && said.is_empty(),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn signals_to_reload_leave_the_gateway_running() {
    let mut child = Setup::new()
        .command()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut wait_for = |words: &str| {
        let line = log.find_map(|line| line.ok().filter(|line| line.contains(words)));
        line.unwrap_or_else(|| panic!("the log ends without {words:?}"))
    };
    wait_for("Admin API listens");
    let id = child.id().to_string();
    let signal = |name: &str| {
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    };
    for (name, words) in [
        ("HUP", "settings read again"),
        ("USR1", "SIGUSR1: nothing to reopen"),
        ("HUP", "settings read again"),
    ] {
        signal(name);
        wait_for(words);
    }
    // The signal for a graceful end, as of Kong and nginx.
    signal("QUIT");
    wait_for("SIGQUIT: no new connections");
    assert!(child.wait().unwrap().success());
}
