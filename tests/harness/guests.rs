//! The components of `tests/guests`, built when the first test asks for one.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The component of the guest with this name.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<()> = OnceLock::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests");
    BUILT.get_or_init(|| {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--release", "--examples"])
            .args(["--target", "wasm32-wasip2"])
            .arg("--manifest-path")
            .arg(folder.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(folder.join("target"))
            .status()
            .unwrap();
        assert!(
            status.success(),
            "the guests do not build: scripts/wasm-target installs the wasm target, if it is missing"
        );
    });
    let file = name.replace('-', "_") + ".wasm";
    let folder = folder.join("target/wasm32-wasip2/release/examples");
    [folder.join(format!("{name}.wasm")), folder.join(file)]
        .iter()
        .find_map(|path| std::fs::read(path).ok())
        .unwrap_or_else(|| panic!("there is no guest {name}"))
}
