//! The balancers that ship with the gateway, embedded from the prebuilt files of the repository.

/// A balancer that ships with the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Shipped {
    /// The name that it is loaded under.
    pub name: &'static str,
    /// The component.
    pub component: &'static [u8],
}

macro_rules! shipped {
    ($name:literal) => {
        Shipped {
            name: $name,
            component: include_bytes!(concat!("../../../plugins/prebuilt/", $name, ".wasm")),
        }
    };
}

/// All of them, the default first.
pub const SHIPPED: &[Shipped] = &[
    shipped!("round-robin"),
    shipped!("consistent-hashing"),
    shipped!("latency"),
    shipped!("least-connections"),
    shipped!("maglev"),
    shipped!("p2c"),
    shipped!("prefix-affinity"),
    shipped!("prequal"),
    shipped!("random"),
    shipped!("sticky-sessions"),
    shipped!("token-load"),
];

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use sha2::{Digest, Sha256};

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    /// The digest that `scripts/build-plugins` makes of the sources of a plugin.
    fn digest_of_sources(top: &Path, name: &str) -> String {
        let mut sources = vec![
            top.join("wit/balancer.wit"),
            top.join("guest-sdk/Cargo.toml"),
            top.join(format!("plugins/{name}/Cargo.toml")),
        ];
        files(&top.join("guest-sdk/src"), &mut sources);
        files(&top.join(format!("plugins/{name}/src")), &mut sources);
        let mut names: Vec<String> = sources
            .iter()
            .map(|path| path.strip_prefix(top).unwrap().display().to_string())
            .collect();
        names.sort();
        let lines: String = names
            .iter()
            .map(|name| {
                let content = fs::read(top.join(name)).unwrap();
                format!("{}  {name}\n", hex(&Sha256::digest(content)))
            })
            .collect();
        hex(&Sha256::digest(lines))
    }

    #[test]
    fn prebuilt_components_match_their_sources() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let notes = fs::read_to_string(top.join("plugins/prebuilt/DIGESTS")).unwrap();
        assert_eq!(notes.lines().count(), SHIPPED.len());
        for shipped in SHIPPED {
            let expected = format!(
                "{} {} {}",
                shipped.name,
                digest_of_sources(&top, shipped.name),
                hex(&Sha256::digest(shipped.component)),
            );
            assert!(
                notes.lines().any(|line| line == expected),
                "{} is not built from its present sources: run scripts/build-plugins",
                shipped.name
            );
        }
    }
}
