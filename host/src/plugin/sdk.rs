//! The guest SDK of this repository, which is written into each project.

use anyhow::{Context, anyhow};

/// The manifest with the versions of all dependencies.
const WORKSPACE: &str = include_str!("../../../Cargo.toml");

/// The WIT contract, with its path in a project's folder `vendor`.
pub(super) const WIT: (&str, &str) = (
    "wit/balancer.wit",
    include_str!("../../../wit/balancer.wit"),
);

macro_rules! sources {
    ($($name:literal),+ $(,)?) => {
        &[$((
            concat!("guest-sdk/src/", $name),
            include_str!(concat!("../../../guest-sdk/src/", $name)),
        )),+]
    };
}

/// The files of the SDK, with their paths in a project's folder `vendor`.
pub(super) const SOURCES: &[(&str, &str)] = sources![
    "lib.rs",
    "draw.rs",
    "endpoints.rs",
    "facts.rs",
    "json.rs",
    "log.rs",
    "outcome.rs",
    "part.rs",
    "prefix.rs",
    "prefix_index.rs",
    "prefix_saved.rs",
    "prefix_text.rs",
    "refusal.rs",
    "settings.rs",
    "settings_tests.rs",
    "tests.rs",
    "tries.rs",
    "weighted.rs",
    "zones.rs"
];

/// The fields of the workspace's manifest that a project's manifest needs as well.
pub(super) struct Versions(toml::Table);

impl Versions {
    /// Reads the workspace's manifest.
    ///
    /// # Errors
    /// Only if this program was built incorrectly.
    pub(super) fn read() -> anyhow::Result<Self> {
        let manifest: toml::Table =
            toml::from_str(WORKSPACE).context("the workspace's manifest")?;
        Ok(Self(manifest))
    }

    /// A field of the workspace's package.
    pub(super) fn of_package(&self, field: &str) -> anyhow::Result<&str> {
        let package = self.0.get("workspace").and_then(|all| all.get("package"));
        package
            .and_then(|package| package.get(field)?.as_str())
            .ok_or_else(|| anyhow!("the workspace has no {field}"))
    }

    /// The version of a dependency.
    pub(super) fn of(&self, dependency: &str) -> anyhow::Result<&str> {
        let all = self
            .0
            .get("workspace")
            .and_then(|all| all.get("dependencies"));
        all.and_then(|all| all.get(dependency)?.get("version")?.as_str())
            .ok_or_else(|| anyhow!("the workspace has no dependency {dependency}"))
    }

    /// A dependency, exactly as in the workspace's manifest.
    pub(super) fn line(dependency: &str) -> anyhow::Result<&'static str> {
        let lines = WORKSPACE.lines().filter_map(|line| line.split_once(" = "));
        let mut named = lines.filter(|(name, _)| *name == dependency);
        let (_, value) = named
            .next()
            .ok_or_else(|| anyhow!("the workspace has no dependency {dependency}"))?;
        Ok(value)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_source_is_embedded() {
        let names = |folder: &str| -> BTreeSet<String> {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("..")
                .join(folder);
            let entries = std::fs::read_dir(path).unwrap();
            entries
                .map(|entry| format!("{folder}/{}", entry.unwrap().file_name().display()))
                .collect()
        };
        let embedded: BTreeSet<String> = SOURCES.iter().map(|(path, _)| (*path).into()).collect();
        assert_eq!(names("guest-sdk/src"), embedded);
        let wit = names("wit")
            .into_iter()
            .filter(|name| name.ends_with(".wit"));
        assert_eq!(wit.collect::<Vec<_>>(), [WIT.0]);
    }

    /// With another dependency, the SDK in a project would not compile.
    #[test]
    fn the_sdk_has_no_other_dependency() {
        let manifest = include_str!("../../../guest-sdk/Cargo.toml");
        let manifest: toml::Table = toml::from_str(manifest).unwrap();
        let names = |section: &str| -> Vec<String> {
            let section = manifest[section].as_table().unwrap();
            section.keys().cloned().collect()
        };
        assert_eq!(names("dependencies"), ["wit-bindgen"]);
        let for_tests = ["proptest", "serde", "serde_json"];
        assert_eq!(names("dev-dependencies"), for_tests);
    }
}
