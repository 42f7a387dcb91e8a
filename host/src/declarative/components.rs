//! Components that a document names by their paths: `component` of a balancer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::syntax::Text;
use crate::component::digest;
use crate::entity::Kind;

/// Components by the paths under which a document names them.
#[derive(Debug)]
pub(crate) struct Components(BTreeMap<String, Result<Component, String>>);

/// A component with what belongs to it.
#[derive(Debug)]
pub(crate) struct Component {
    pub(crate) bytes: Bytes,
    /// SHA-256 of it, in lower-case hex.
    pub(crate) digest: String,
    /// The content of its `.minisig` file.
    pub(crate) signature: Option<String>,
}

impl Default for Components {
    fn default() -> Self {
        Self::NONE
    }
}

impl Components {
    /// No components.
    pub(crate) const NONE: Self = Self(BTreeMap::new());

    /// The components that a document names, from the folder of its file. `most` is the size of the
    /// largest one that is taken, in bytes.
    pub(crate) fn beside(text: &Text, folder: &Path, most: usize) -> Self {
        let mut components = Self::default();
        for path in paths(text) {
            let file = folder.join(&path);
            let mut signature = file.clone().into_os_string();
            signature.push(".minisig");
            match bytes_of(&file, most) {
                Ok(bytes) => {
                    let signature = std::fs::read_to_string(signature).ok();
                    components.add(path, bytes.into(), signature);
                }
                Err(why) => drop(components.0.insert(path, Err(why))),
            }
        }
        components
    }

    /// Adds a component.
    pub(crate) fn add(&mut self, path: String, bytes: Bytes, signature: Option<String>) {
        let component = Component {
            digest: digest(&bytes),
            bytes,
            signature,
        };
        self.0.insert(path, Ok(component));
    }

    /// The component that a document names by this path.
    ///
    /// # Errors
    /// Why it is not there.
    pub(crate) fn get(&self, path: &str) -> Result<&Component, String> {
        match self.0.get(path) {
            Some(Ok(component)) => Ok(component),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!(
                "the component {path} did not come with the document: `pointsman config import` sends \
                 it; or name the digest of a version that is there"
            )),
        }
    }

    /// Those that could be read.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Component)> {
        let all = self.0.iter();
        all.filter_map(|(path, read)| Some((path, read.as_ref().ok()?)))
    }
}

/// The paths of the components that a document names.
fn paths(text: &Text) -> BTreeSet<String> {
    let balancers = text.value.get(Kind::Balancer.name());
    let balancers = balancers.and_then(Value::as_array).into_iter().flatten();
    let paths = balancers.filter_map(|balancer| balancer.get("component")?.as_str());
    paths.map(str::to_owned).collect()
}

fn bytes_of(file: &Path, most: usize) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(told)?;
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let read = opened.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    if read.map_err(told)? > most {
        return Err(format!(
            "{} is larger than {most} bytes (setting balancer_upload)",
            file.display()
        ));
    }
    Ok(bytes)
}
