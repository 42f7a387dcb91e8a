//! `pointsman plugin pull` and `publish`: components in OCI registries, in the layout that Wasm
//! tools (wkg, wasmtime and others) have agreed on: a config that names imports and exports, and
//! the component as the only layer. Source: CNCF TAG Runtime, Wasm OCI Artifact Layout.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde_json::{Value, json};
use wasmtime::component::Component;

use crate::component::digest;
use crate::standard_output::print;

/// Media types of the layout.
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";

/// Creation time of an artifact. Always the same, so that the same component is the same artifact
/// with the same digest.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// The environment variable with the password; other users could read a flag.
const PASSWORD: &str = "POINTSMAN_REGISTRY_PASSWORD";

/// What is to be fetched.
#[derive(Debug, Args)]
pub struct Pull {
    /// Where it is: REGISTRY/REPOSITORY:TAG, or @DIGEST in place of the tag; plain HTTP for
    /// localhost
    reference: String,

    /// File to write the component to
    #[arg(short, long = "out", alias = "output", value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    account: Account,
}

/// What is to be published.
#[derive(Debug, Args)]
pub struct Publish {
    /// The component (.wasm)
    file: PathBuf,

    /// Where it goes: REGISTRY/REPOSITORY:TAG; plain HTTP for localhost
    reference: String,

    #[command(flatten)]
    account: Account,
}

/// Who asks the registry.
#[derive(Debug, Args)]
struct Account {
    /// Name of the account at the registry; its password or token is read from
    /// POINTSMAN_REGISTRY_PASSWORD
    #[arg(long, env = "POINTSMAN_REGISTRY_USERNAME", value_name = "NAME")]
    username: Option<String>,
}

impl Account {
    fn credentials(&self) -> anyhow::Result<RegistryAuth> {
        let Some(name) = &self.username else {
            return Ok(RegistryAuth::Anonymous);
        };
        let password = std::env::var(PASSWORD);
        let password =
            password.with_context(|| format!("{PASSWORD} has no password for {name}"))?;
        Ok(RegistryAuth::Basic(name.clone(), password))
    }
}

pub(super) fn pull(arguments: &Pull) -> anyhow::Result<()> {
    let reference = parse(&arguments.reference)?;
    let account = arguments.account.credentials()?;
    let component = block_on(fetch(&reference, &account))??;
    let file = arguments.output.display();
    std::fs::write(&arguments.output, &component)
        .with_context(|| format!("cannot write {file}"))?;
    print(&format!("{file}: sha256 {}\n", digest(&component)))
}

pub(super) fn publish(arguments: &Publish) -> anyhow::Result<()> {
    let reference = parse(&arguments.reference)?;
    let account = arguments.account.credentials()?;
    let component = read(&arguments.file)?;
    let config = config(&component).with_context(|| {
        let file = arguments.file.display();
        format!("{file} is not a component: build it for the target wasm32-wasip2")
    })?;
    let artifact = block_on(send(&reference, &account, component, &config))??;
    print(&format!("{}@{artifact}\n", arguments.reference))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn parse(text: &str) -> anyhow::Result<Reference> {
    text.parse().map_err(|error| {
        anyhow!("{text:?} is not a reference such as ghcr.io/me/my-balancer:1.0.0: {error}")
    })
}

/// Runs the asynchronous client for registries to its end.
fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build();
    Ok(runtime.context("cannot start a runtime")?.block_on(future))
}

fn client(reference: &Reference) -> anyhow::Result<Client> {
    let registry = reference.resolve_registry();
    let is_local = is_local(registry);
    let protocol = if is_local {
        ClientProtocol::Http
    } else {
        ClientProtocol::Https
    };
    let config = ClientConfig {
        protocol,
        ..ClientConfig::default()
    };
    Client::try_from(config).context("cannot make a client for registries")
}

/// Whether a registry is on this machine, where no other host can read the traffic.
fn is_local(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => registry.split(':').next(),
    };
    let host = host.unwrap_or_default();
    let address: Result<std::net::IpAddr, _> = host.parse();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

async fn fetch(reference: &Reference, account: &RegistryAuth) -> anyhow::Result<Vec<u8>> {
    let client = client(reference)?;
    let (manifest, _) = client
        .pull_manifest(reference, account)
        .await
        .with_context(|| format!("cannot fetch {reference}"))?;
    let layer = match &manifest {
        OciManifest::Image(image) => layer(image),
        OciManifest::ImageIndex(_) => Err(anyhow!("it is an index of several images")),
    };
    let manifest_layer = layer.with_context(|| format!("{reference} is not a Wasm component"))?;
    let mut component = Vec::new();
    client
        .pull_blob(reference, manifest_layer, &mut component)
        .await
        .with_context(|| format!("cannot fetch the component of {reference}"))?;
    Ok(component)
}

/// The component in an artifact, if the artifact has the layout.
fn layer(manifest: &OciImageManifest) -> anyhow::Result<&OciDescriptor> {
    match manifest.layers.as_slice() {
        [layer] if layer.media_type == LAYER && manifest.config.media_type == CONFIG => Ok(layer),
        layers => {
            let types: Vec<&str> = layers.iter().map(|layer| &*layer.media_type).collect();
            bail!(
                "its config is of type {} and its layers of [{}], and those of a component are {CONFIG} and [{LAYER}]",
                manifest.config.media_type,
                types.join(", "),
            )
        }
    }
}

async fn send(
    reference: &Reference,
    account: &RegistryAuth,
    component: Vec<u8>,
    config: &Value,
) -> anyhow::Result<String> {
    let client = client(reference)?;
    let layers = [ImageLayer::new(component, LAYER.into(), None)];
    let config = Config::new(config.to_string(), CONFIG.into(), None);
    let mut manifest = OciImageManifest::build(&layers, &config, None);
    manifest.media_type = Some(OCI_IMAGE_MEDIA_TYPE.into());
    client
        .push(reference, &layers, config, account, Some(manifest))
        .await
        .with_context(|| format!("cannot publish {reference}"))?;
    let artifact = client.fetch_manifest_digest(reference, account).await;
    artifact.with_context(|| format!("cannot find {reference} where it was published"))
}

/// The config of an artifact: what the component imports and exports.
fn config(component: &[u8]) -> anyhow::Result<Value> {
    let engine = wasmtime::Engine::default();
    // Only the binary format: text would be accepted as well.
    let parsed =
        Component::from_binary(&engine, component).map_err(|error| anyhow!("{error:#}"))?;
    let ty = parsed.component_type();
    let imports: Vec<&str> = ty.imports(&engine).map(|(name, _)| name).collect();
    let exports: Vec<&str> = ty.exports(&engine).map(|(name, _)| name).collect();
    Ok(json!({
        "created": CREATED,
        "author": null,
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [format!("sha256:{}", digest(component))],
        "component": { "exports": exports, "imports": imports, "target": null },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for local in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
        ] {
            assert!(is_local(local), "{local}");
        }
        for remote in ["ghcr.io", "localhost.example:80", "10.0.0.1:5000", "[::2]"] {
            assert!(!is_local(remote), "{remote}");
        }
    }
}
