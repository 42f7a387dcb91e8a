//! `pointsman plugin build`: cargo, with the target and the profile that a component needs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde::Deserialize;

use crate::standard_output::print;

/// The target that components are built for.
const TARGET: &str = "wasm32-wasip2";

/// What is to be built.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Manifest of the project [default: the one of this folder, or of the nearest above it]
    #[arg(long, value_name = "PATH")]
    manifest_path: Option<PathBuf>,
}

pub(super) fn build(arguments: &Arguments) -> anyhow::Result<()> {
    let components = run(OsStr::new("cargo"), OsStr::new("rustc"), arguments)?;
    let mut sizes = String::new();
    for path in components {
        let size = std::fs::metadata(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        sizes.push_str(&format!("{}: {size} bytes\n", path.display()));
    }
    print(&sizes)
}

/// Runs cargo, and returns the components. Cargo's own messages go to standard error as usual.
fn run(cargo: &OsStr, rustc: &OsStr, arguments: &Arguments) -> anyhow::Result<Vec<PathBuf>> {
    check_target(rustc, arguments)?;
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics");
    if let Some(path) = &arguments.manifest_path {
        command.arg("--manifest-path").arg(path);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| missing("cargo", error))?;
    let mut components = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            components.extend(components_of(&line.context("cannot read what cargo says")?));
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("cargo could not build the component; its messages are above");
    }
    if components.is_empty() {
        bail!("cargo built no component: the manifest needs crate-type = [\"cdylib\"] under [lib]");
    }
    Ok(components)
}

/// Checks that the toolchain of the project's folder has the target. Cargo would report that as
/// well, but once for each crate.
fn check_target(rustc: &OsStr, arguments: &Arguments) -> anyhow::Result<()> {
    let folder = arguments.manifest_path.as_deref().and_then(Path::parent);
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(folder.unwrap_or(Path::new(".")))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match (error.kind(), folder) {
            (ErrorKind::NotFound, Some(folder)) if !folder.is_dir() => {
                anyhow!("there is no folder {}", folder.display())
            }
            _ => missing("rustc", error),
        })?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end());
    let there = std::fs::read_dir(&libraries).is_ok_and(|mut entries| entries.next().is_some());
    if !output.status.success() || !there {
        bail!(
            "this Rust toolchain cannot build for {TARGET}: add it by `rustup target add {TARGET}`"
        );
    }
    Ok(())
}

fn missing(program: &str, error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => {
            anyhow!("{program} is not on this machine, or not on PATH: install Rust with rustup")
        }
        _ => anyhow!("cannot run {program}: {error}"),
    }
}

/// Cargo's message about an artifact; its other messages have other fields.
#[derive(Deserialize)]
struct Artifact {
    reason: String,
    target: Built,
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Built {
    kind: Vec<String>,
}

/// The components that a line of cargo's output names.
fn components_of(line: &str) -> Vec<PathBuf> {
    match serde_json::from_str::<Artifact>(line) {
        Ok(artifact)
            if artifact.reason == "compiler-artifact"
                && artifact.target.kind.iter().any(|kind| kind == "cdylib") =>
        {
            let files = artifact.filenames.into_iter();
            files
                .filter(|file| file.extension() == Some(OsStr::new("wasm")))
                .collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    const HERE: Arguments = Arguments {
        manifest_path: None,
    };

    fn said(cargo: &str, rustc: &str) -> String {
        run(OsStr::new(cargo), OsStr::new(rustc), &HERE)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_missing_tool_or_target_is_reported() {
        let none = "/there/is/no/such/program";
        assert!(said(none, none).contains("rustc is not on this machine"));
        // A toolchain that does not know the target, and one that has no folder for it.
        assert!(said(none, "false").contains("rustup target add wasm32-wasip2"));
        assert!(said(none, "true").contains("rustup target add wasm32-wasip2"));
        assert!(said(none, "rustc").contains("cargo is not on this machine"));
        assert!(said("false", "rustc").contains("its messages are above"));
        assert!(said("true", "rustc").contains("crate-type"));
    }

    #[test]
    fn only_a_cdylib_in_wasm_is_a_component() {
        let line = |kind: &str, file: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"x"}},"filenames":["/t/{file}"]}}"#
            )
        };
        assert_eq!(
            components_of(&line("cdylib", "x.wasm")),
            [PathBuf::from("/t/x.wasm")]
        );
        assert!(components_of(&line("lib", "x.wasm")).is_empty());
        assert!(components_of(&line("cdylib", "libx.so")).is_empty());
        assert!(components_of(r#"{"reason":"build-finished","success":true}"#).is_empty());
        assert!(components_of("rubbish").is_empty());
    }
}
