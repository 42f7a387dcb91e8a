//! `pointsman plugin push`, `list` and `rollback`: the balancers of a running gateway.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::client::{Admin, Gateway};
use crate::standard_output::print;

/// Pause between two requests for the state of a version that is being checked.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time that a check may take: ten times a gateway's default limit for a compilation.
const CHECKED: Duration = Duration::from_secs(300);

/// What is to be uploaded, and where to.
#[derive(Debug, Args)]
pub struct Push {
    /// The component (.wasm)
    file: PathBuf,

    /// Name of the balancer [default: that of the file, with - for _]
    #[arg(long)]
    name: Option<String>,

    /// Promotes a new version: makes it the active one at once
    #[arg(long)]
    promote: bool,

    #[command(flatten)]
    gateway: Gateway,
}

/// Whose balancers are to be listed.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    gateway: Gateway,
}

/// Which balancer is to be taken back.
#[derive(Debug, Args)]
pub struct Rollback {
    /// Name of the balancer
    name: String,

    #[command(flatten)]
    gateway: Gateway,
}

pub(super) fn push(arguments: &Push) -> anyhow::Result<()> {
    let shown = arguments.file.display();
    let component =
        std::fs::read(&arguments.file).with_context(|| format!("cannot read {shown}"))?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => name_of(&arguments.file)?,
    };
    let admin = arguments.gateway.admin()?;
    print(&upload(&admin, &name, &component, arguments.promote)?)
}

/// The name of a balancer from that of a file: cargo writes `_` where a crate's name has `-`.
fn name_of(file: &Path) -> anyhow::Result<String> {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let stem = stem.ok_or_else(|| anyhow!("give the balancer a name with --name"))?;
    Ok(stem.replace('_', "-"))
}

/// Uploads the component, and returns the message about it.
fn upload(admin: &Admin, name: &str, component: &[u8], promote: bool) -> anyhow::Result<String> {
    let digest: String = Sha256::digest(component)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let path = path_of(name);
    if admin.find(&path)?.is_none() {
        let query = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let made = admin.upload(&format!("/balancers?name={query}"), component)?;
        verify(&made.body, &digest)?;
        return Ok(format!("{name} is new, and active: sha256 {digest}\n"));
    }
    let answer = admin.upload(&format!("{path}/versions"), component)?;
    let known = answer.status == 200;
    let mut version = answer.body;
    let start = Instant::now();
    while text(&version, "state") == "checking" {
        let from = match &answer.location {
            Some(location) => location.clone(),
            None => format!("{path}/versions/{}", text(&version, "id")),
        };
        if start.elapsed() > CHECKED {
            bail!("the gateway is still checking the component; see {from} of its Admin API");
        }
        std::thread::sleep(POLL_INTERVAL);
        let gone = || anyhow!("the gateway has lost the version that it was checking");
        version = admin.find(&from)?.ok_or_else(gone)?;
    }
    verify(&version, &digest)?;
    let id = text(&version, "id").to_owned();
    let said = match (text(&version, "state"), known) {
        ("failed", _) => bail!(
            "the gateway refuses the component: {}",
            text(&version, "reason")
        ),
        ("active", _) => {
            return Ok(format!(
                "{name} has this version already, and it is active: {id}\n"
            ));
        }
        (_, true) => format!("{name} has this version already: {id}"),
        (_, false) => format!("{name} has a new version: {id}"),
    };
    if !promote {
        return Ok(format!(
            "{said}; not active; run push again with --promote\n"
        ));
    }
    admin.post(&format!("{path}/versions/{id}/promote"))?;
    Ok(format!("{said}, now active: sha256 {digest}\n"))
}

pub(super) fn list(arguments: &List) -> anyhow::Result<()> {
    print(&listed(&arguments.gateway.admin()?)?)
}

/// One line for each balancer.
fn listed(admin: &Admin) -> anyhow::Result<String> {
    let header = ["name", "source", "version", "active", "sha256", "upstreams"];
    let mut rows = vec![header.map(String::from)];
    let none = || anyhow!("this is not the Admin API of Pointsman: it has no balancers");
    // The Admin API lists by id.
    let mut balancers = all(admin, "/balancers")?.ok_or_else(none)?;
    balancers.sort_by(|a, b| text(a, "name").cmp(text(b, "name")));
    for balancer in balancers {
        rows.push(line(admin, &balancer)?);
    }
    Ok(columns(&rows))
}

/// The rows of all pages of a list; none if the list does not exist.
fn all(admin: &Admin, path: &str) -> anyhow::Result<Option<Vec<Value>>> {
    let mut rows = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let Some(mut page) = admin.find(&path)? else {
            return Ok(None);
        };
        match page.get_mut("data").map(Value::take) {
            Some(Value::Array(data)) => rows.extend(data),
            _ => return Err(admin.foreign(&path)),
        }
        next = page.get("next").and_then(Value::as_str).map(str::to_owned);
    }
    Ok(Some(rows))
}

fn line(admin: &Admin, balancer: &Value) -> anyhow::Result<[String; 6]> {
    let name = text(balancer, "name");
    let path = path_of(name);
    let shown = admin.find(&path)?;
    let usage = shown
        .as_ref()
        .and_then(|shown| shown.get("usage")?.as_object());
    let upstreams = usage.into_iter().flat_map(|usage| usage.keys());
    let upstreams: Vec<&str> = upstreams.map(String::as_str).collect();
    let versions = all(admin, &format!("{path}/versions"))?.unwrap_or_default();
    let mut versions = versions.iter();
    let active = versions.find(|version| text(version, "state") == "active");
    let description = balancer.get("description");
    let digest = text(active.unwrap_or(balancer), "digest");
    let or_dash = |text: &str| match text {
        "" => "-".to_owned(),
        some => some.to_owned(),
    };
    Ok([
        name.to_owned(),
        text(balancer, "source").to_owned(),
        or_dash(description.map_or("", |description| text(description, "version"))),
        or_dash(active.map_or("", |version| text(version, "id"))),
        digest.chars().take(12).collect(),
        or_dash(&upstreams.join(", ")),
    ])
}

pub(super) fn rollback(arguments: &Rollback) -> anyhow::Result<()> {
    let admin = arguments.gateway.admin()?;
    print(&rolled_back(&admin, &arguments.name)?)
}

fn rolled_back(admin: &Admin, name: &str) -> anyhow::Result<String> {
    let answer = admin.post(&format!("{}/rollback", path_of(name)))?;
    let digest = text(&answer.body, "digest");
    Ok(format!("{name} rolled back to sha256 {digest}\n"))
}

/// Checks that the gateway has received the component that was sent.
fn verify(said: &Value, digest: &str) -> anyhow::Result<()> {
    let got = text(said, "digest");
    if got != digest {
        bail!("the gateway received something else: sha256 {got:?}, and the file has {digest}");
    }
    Ok(())
}

pub(super) fn path_of(name: &str) -> String {
    format!("/balancers/{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

/// A text field; empty if there is none.
pub(super) fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn columns(rows: &[[String; 6]]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut said = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line: Vec<String> = cells.collect();
        said.push_str(line.join("  ").trim_end());
        said.push('\n');
    }
    said
}

#[cfg(test)]
mod tests;
