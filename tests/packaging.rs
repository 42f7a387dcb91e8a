//! What the package installs, and that the documentation fits it.

use std::path::Path;

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// The lines of a shell in a page.
fn shell(page: &str) -> Vec<&str> {
    let mut in_block = false;
    let inside = |line: &&str| {
        if line.starts_with("```") {
            in_block = !in_block && *line != "```text";
            return false;
        }
        in_block
    };
    page.lines().filter(inside).collect()
}

#[test]
fn files_of_the_examples_can_be_written_under_the_unit() {
    let unit = file("packaging/pointsman.service");
    // With ProtectSystem=strict, only these folders can be written.
    for (setting, folder) in [
        ("StateDirectory", "/var/lib/pointsman"),
        ("LogsDirectory", "/var/log/pointsman"),
        ("RuntimeDirectory", "/run/pointsman"),
    ] {
        let line = format!("{setting}=pointsman");
        assert!(unit.lines().any(|own| own == line), "{line}");
        let parent = format!("{}/", Path::new(folder).parent().unwrap().display());
        for name in ["logging", "listeners", "operating", "streams", "policies"] {
            let page = file(&format!("docs/{name}.md"));
            for line in shell(&page) {
                let paths = line.match_indices(&*parent);
                let ours = |line: &str| ["pointsman ", "curl "].iter().any(|c| line.starts_with(c));
                for (start, _) in paths.filter(|_| ours(line)) {
                    // A path is not a part of another one.
                    let is_whole = !line[..start].ends_with(|c: char| c.is_ascii_alphanumeric());
                    let fits = line[start..].starts_with(&format!("{folder}/"));
                    assert!(!is_whole || fits, "docs/{name}.md: {line}");
                }
            }
        }
    }
}

#[test]
fn the_package_rotates_the_logs() {
    let rotation = file("packaging/pointsman.logrotate");
    assert!(rotation.contains("/var/log/pointsman/*.log {"));
    assert!(rotation.contains("--signal=USR1"));
    let manifest = file("host/Cargo.toml");
    assert!(
        manifest.contains("[\"../packaging/pointsman.logrotate\", \"etc/logrotate.d/pointsman\"")
    );
    assert!(manifest.contains("\"/etc/logrotate.d/pointsman\""));
    assert!(file("packaging/debian/postrm").contains("/var/log/pointsman"));
}
