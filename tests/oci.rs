//! Components in an OCI registry, with Debian's `docker-registry`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::harness::guest;

/// An empty registry. Killed when dropped.
struct Registry {
    child: Child,
    address: String,
    _folder: TempDir,
}

impl Registry {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
            folder.path().join("data")
        );
        std::fs::write(&settings, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("docker-registry, which scripts/test installs: {error}")
            });
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = log.find_map(|line| {
            let line = line.unwrap();
            let rest = line.split_once("listening on ")?.1.to_owned();
            Some(rest)
        });
        let line = line.unwrap_or_else(|| panic!("the registry did not start"));
        let end = line.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
        let address = line[..end.unwrap_or(line.len())].to_owned();
        // The registry would block on a full pipe if its log were not read.
        std::thread::spawn(move || log.for_each(drop));
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    fn get(&self, path: &str, accept: &str) -> Vec<u8> {
        let url = format!("http://{}/v2/{path}", self.address);
        let answer = ureq::get(url).header("accept", accept).call();
        answer.unwrap().body_mut().read_to_vec().unwrap()
    }

    /// Stores a blob, and returns its descriptor for a manifest.
    fn put_blob(&self, repository: &str, media_type: &str, bytes: &[u8]) -> Value {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let begun = ureq::post(url).send_empty().unwrap();
        let place = begun.headers()["location"].to_str().unwrap().to_owned();
        let digest = digest(bytes);
        let url = format!("{place}&digest={digest}");
        ureq::put(url)
            .content_type("application/octet-stream")
            .send(bytes)
            .unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn plugin(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("plugin").args(args).output().unwrap()
}

#[track_caller]
fn stdout_of(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn error_of(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn a_component_is_published_in_the_layout_of_wasm_tools_and_pulled() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("first.wasm");
    std::fs::write(&file, guest("first")).unwrap();
    let reference = format!("{}/team/first:1.0.0", registry.address);
    let published = stdout_of(&plugin(&["publish", text(&file), &reference]));
    // Publishing the same component again gives the same digest.
    let again = stdout_of(&plugin(&["publish", text(&file), &reference]));
    assert_eq!(published, again);

    let manifest = registry.get("team/first/manifests/1.0.0", MANIFEST);
    assert_eq!(
        published.trim_end(),
        format!("{reference}@{}", digest(&manifest))
    );
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(manifest["mediaType"], MANIFEST);
    assert_eq!(
        manifest["layers"],
        json!([{
            "mediaType": "application/wasm",
            "digest": digest(&guest("first")),
            "size": guest("first").len(),
        }])
    );
    let config = &manifest["config"];
    assert_eq!(config["mediaType"], "application/vnd.wasm.config.v0+json");
    let path = format!("team/first/blobs/{}", config["digest"].as_str().unwrap());
    let config: Value = serde_json::from_slice(&registry.get(&path, "*/*")).unwrap();
    assert_eq!(config["os"], "wasip2");
    assert_eq!(config["architecture"], "wasm");
    assert_eq!(config["layerDigests"][0], digest(&guest("first")));
    let component = &config["component"];
    assert_eq!(
        component["exports"],
        json!([
            "pointsman:balancer/state@1.4.0",
            "pointsman:balancer/policy@1.4.0"
        ])
    );
    let mut imports = component["imports"].as_array().unwrap().iter();
    assert!(
        imports.any(|import| import.as_str().unwrap().starts_with("wasi:cli/stdout@")),
        "{component}"
    );

    let pulled = folder.path().join("pulled.wasm");
    let by_digest = published.trim_end().to_owned();
    for reference in [&reference, &by_digest] {
        let said = stdout_of(&plugin(&["pull", reference, "-o", text(&pulled)]));
        assert!(
            said.contains(digest(&guest("first")).trim_start_matches("sha256:")),
            "{said}"
        );
        assert_eq!(std::fs::read(&pulled).unwrap(), guest("first"));
        std::fs::remove_file(&pulled).unwrap();
    }
}

#[test]
fn an_artifact_that_is_not_a_component_is_refused() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.wasm");
    let address = &registry.address;

    // An artifact with a core module, in the layout that was used before components.
    let config = registry.put_blob("old", "application/vnd.wasm.config.v1+json", b"{}");
    let layer = "application/vnd.wasm.content.layer.v1+wasm";
    let layer = registry.put_blob("old", layer, b"\0asm\x01\0\0\0");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
    });
    ureq::put(format!("http://{address}/v2/old/manifests/1"))
        .content_type(MANIFEST)
        .send(manifest.to_string())
        .unwrap();
    let said = error_of(&plugin(&[
        "pull",
        &format!("{address}/old:1"),
        "-o",
        text(&file),
    ]));
    assert!(said.contains("is not a Wasm component"), "{said}");
    assert!(
        said.contains("application/vnd.wasm.content.layer.v1+wasm"),
        "{said}"
    );
    assert!(!file.exists());

    let said = error_of(&plugin(&[
        "pull",
        &format!("{address}/none:1"),
        "-o",
        text(&file),
    ]));
    assert!(said.contains("cannot fetch"), "{said}");
    let said = error_of(&plugin(&["pull", "NOT A REFERENCE", "-o", text(&file)]));
    assert!(said.contains("is not a reference"), "{said}");

    std::fs::write(&file, b"\0asm\x01\0\0\0").unwrap();
    let said = error_of(&plugin(&[
        "publish",
        text(&file),
        &format!("{address}/x:1"),
    ]));
    assert!(said.contains("is not a component"), "{said}");
}
