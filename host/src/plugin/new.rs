//! `pointsman plugin new`: a complete project, which includes the SDK.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::sdk::{self, Versions};

use crate::standard_output::print;

/// The files of a project, with their paths in the project.
const TEMPLATE: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("template/manifest.toml")),
    ("README.md", include_str!("template/readme.md")),
    (".gitignore", include_str!("template/gitignore")),
    ("src/lib.rs", include_str!("template/lib.rs")),
    ("src/tests.rs", include_str!("template/tests.rs")),
    (
        "vendor/guest-sdk/Cargo.toml",
        include_str!("template/guest-sdk.toml"),
    ),
];

/// Longest name of a crate that the registry accepts.
const LONGEST_NAME: usize = 64;

/// Names that a crate cannot have: Rust's keywords, its own crates, and the dependencies of a
/// project.
const TAKEN: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "guest-sdk",
    "guest_sdk",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "serde",
    "serde_json",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "wit-bindgen",
    "wit_bindgen",
    "yield",
];

/// What is to be made, and where.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of the crate, and of the balancer
    name: String,

    /// Folder of the project; made if it is missing [default: the name]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

pub(super) fn new(arguments: &Arguments) -> anyhow::Result<()> {
    let name = arguments.name.as_str();
    check_name(name)?;
    let folder = match &arguments.path {
        Some(path) => path.clone(),
        None => PathBuf::from(name),
    };
    check_folder(&folder)?;
    write(name, &folder)?;
    let file = name.replace('-', "_");
    print(&format!(
        "{name} is in {folder}. From there:\n\n    \
             cargo test\n    \
             pointsman plugin build\n    \
             pointsman plugin check target/wasm32-wasip2/release/{file}.wasm\n    \
             pointsman plugin push target/wasm32-wasip2/release/{file}.wasm\n",
        folder = folder.display(),
    ))
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic());
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !starts || !name.chars().all(fits) || name.len() > LONGEST_NAME {
        bail!(
            "{name:?} is not a name for a crate: a letter first, then letters, digits, - and _, \
             {LONGEST_NAME} at most"
        );
    }
    if TAKEN.contains(&name) {
        bail!("{name:?} is no name for a crate: Rust or the SDK has taken it");
    }
    Ok(())
}

fn check_folder(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    match std::fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => bail!("the folder {shown} is not empty: name another one with --path"),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot use {shown} as a folder")),
    }
}

fn write(name: &str, folder: &Path) -> anyhow::Result<()> {
    let versions = Versions::read()?;
    let file = name.replace('-', "_");
    let values = [
        ("name", name),
        ("file", &file),
        ("version", env!("CARGO_PKG_VERSION")),
        ("edition", versions.of_package("edition")?),
        ("rust-version", versions.of_package("rust-version")?),
        ("license", versions.of_package("license")?),
        ("serde", versions.of("serde")?),
        ("serde_json", versions.of("serde_json")?),
        ("wit-bindgen", Versions::line("wit-bindgen")?),
        ("proptest", Versions::line("proptest")?),
    ];
    for (path, template) in TEMPLATE {
        let mut content = (*template).to_owned();
        for (key, value) in values {
            content = content.replace(&format!("{{{{{key}}}}}"), value);
        }
        put(&folder.join(path), &content)?;
    }
    for (path, content) in sdk::SOURCES.iter().chain([&sdk::WIT]) {
        put(&folder.join("vendor").join(path), content)?;
    }
    Ok(())
}

fn put(path: &Path, content: &str) -> anyhow::Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, content)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn arguments(name: &str, path: &Path) -> Arguments {
        Arguments {
            name: name.into(),
            path: Some(path.into()),
        }
    }

    #[test]
    fn invalid_names_are_refused() {
        for name in [
            "",
            "1st",
            "-x",
            "a b",
            "a.b",
            "../x",
            "ä",
            "fn",
            "test",
            "guest-sdk",
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name(&"a".repeat(65)).is_err());
        for name in ["a", "my-balancer", "my_balancer2"] {
            check_name(name).unwrap();
        }
    }

    #[test]
    fn a_folder_with_files_is_refused_and_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine"), "").unwrap();
        let refused = new(&arguments("x", folder.path())).unwrap_err().to_string();
        assert!(refused.contains("is not empty"), "{refused}");
        let refused = new(&arguments("x", &folder.path().join("mine"))).unwrap_err();
        assert!(refused.to_string().contains("as a folder"), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_placeholder_of_the_template_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er");
        new(&arguments("my-balancer", &path)).unwrap();
        for (file, _) in TEMPLATE {
            let content = std::fs::read_to_string(path.join(file)).unwrap();
            assert!(!content.contains("{{"), "{file}: {content}");
        }
        for manifest in ["Cargo.toml", "vendor/guest-sdk/Cargo.toml"] {
            let content = std::fs::read_to_string(path.join(manifest)).unwrap();
            let manifest: toml::Table = toml::from_str(&content).unwrap();
            assert!(!content.contains("workspace = true"), "{manifest:?}");
        }
    }
}
