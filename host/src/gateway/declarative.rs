//! The declarative configuration of a gateway without a database: loaded at the start, and again
//! when its file has changed and on SIGHUP.

use std::borrow::Cow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::bail;

use crate::admin::{DocumentFile as Document, Importer, Loaded, load_text};
use crate::config::Config;
use crate::declarative::Syntax;

/// What the settings name.
enum Named<'a> {
    Text(&'a str),
    File(&'a Path),
}

/// A text with its syntax, and what the error about it begins with.
struct Source<'a> {
    text: Cow<'a, str>,
    syntax: Syntax,
    wrong: String,
    /// Where the components are that it names.
    folder: PathBuf,
}

impl<'a> Named<'a> {
    /// The configuration of the settings, if they have one. A text is used rather than a file.
    fn by(config: &'a Config) -> Option<Self> {
        let text = config.declarative_config_string.as_deref();
        let file = config.declarative_config.as_deref();
        text.map(Self::Text).or(file.map(Self::File))
    }

    /// # Errors
    /// The file cannot be read.
    fn read(&self) -> Result<Source<'a>, String> {
        let path = match self {
            Self::Text(text) => {
                return Ok(Source {
                    text: Cow::Borrowed(text),
                    syntax: Syntax::Either,
                    wrong: "error parsing declarative string".into(),
                    folder: PathBuf::from("."),
                });
            }
            Self::File(path) => path,
        };
        let wrong = format!("error parsing declarative config file {}:", path.display());
        let syntax = Syntax::of_file(&path.to_string_lossy());
        let syntax = syntax.map_err(|why| format!("{wrong}\n{why}"))?;
        let text = std::fs::read_to_string(path).map_err(|error| format!("{wrong}\n{error}"))?;
        Ok(Source {
            text: text.into(),
            syntax,
            wrong,
            folder: path.parent().map(Path::to_owned).unwrap_or_default(),
        })
    }
}

/// What a gateway without a database loads, if its settings name something.
fn loaded_by(config: &Config) -> Option<Named<'_>> {
    Named::by(config).filter(|_| !config.database)
}

/// The configuration that the settings name, as it was loaded last.
pub(super) struct Watched {
    config: Arc<Config>,
    importer: Importer,
    loaded: Arc<Loaded>,
    /// The file before it was read.
    seen: Option<Seen>,
}

impl Watched {
    /// Loads the configuration of the settings.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) async fn load(
        config: Arc<Config>,
        importer: Importer,
        loaded: Arc<Loaded>,
    ) -> anyhow::Result<Self> {
        if config.database && Named::by(&config).is_some() {
            tracing::warn!(
                "declarative_config is not loaded: it is for a gateway with database = off; \
                 `pointsman config import` loads it into this one"
            );
        }
        let mut watched = Self {
            config,
            importer,
            loaded,
            seen: None,
        };
        match watched.load_named(true).await {
            Ok(Some(changed)) => {
                tracing::info!("declarative configuration loaded: {changed} entities changed");
            }
            Ok(None) => {}
            Err(why) => bail!(why),
        }
        Ok(watched)
    }

    /// Waits until the file is no longer as it was when it was read, and two looks have found it
    /// alike: it may be written in place, or be away because it is about to be replaced.
    pub(super) async fn changed(&self) {
        let Some(Named::File(path)) = self.named() else {
            return std::future::pending().await;
        };
        let mut last = self.seen;
        let mut is_told = false;
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let now = Seen::now(path);
            if now.is_some() {
                if now != self.seen && now == last {
                    return;
                }
                is_told = false;
            } else if last.is_none() && self.seen.is_some() && !is_told {
                is_told = true;
                let path = path.display();
                tracing::warn!("{path} is gone: what was loaded from it stays in effect");
            }
            last = now;
        }
    }

    /// What is loaded, if there is something to load.
    fn named(&self) -> Option<Named<'_>> {
        loaded_by(&self.config)
    }

    /// Loads the file again, if there is one. A file that is wrong changes nothing.
    pub(super) async fn reload(&mut self) {
        let Some(Named::File(path)) = self.named() else {
            return;
        };
        if self.seen.is_some_and(|seen| seen.is_pipe) && Seen::now(path) == self.seen {
            let path = path.display();
            tracing::info!(
                "the configuration stays as it is: {path} is a pipe or a device, which is read at the \
                 start only"
            );
            return;
        }
        let wrong = match self.load_named(false).await {
            Ok(changed) => {
                let changed = changed.unwrap_or_default();
                tracing::info!(
                    "declarative configuration loaded again: {changed} entities changed"
                );
                None
            }
            Err(why) => {
                tracing::error!("the configuration stays as it is: {why}");
                Some(why)
            }
        };
        self.loaded.set_wrong(wrong);
    }

    /// Imports what the settings name, if they name something. Returns how many entities changed.
    /// Only a start may wait for who writes to a pipe.
    async fn load_named(&mut self, is_start: bool) -> Result<Option<usize>, String> {
        let config = Arc::clone(&self.config);
        let Some(named) = loaded_by(&config) else {
            return Ok(None);
        };
        if let Named::File(path) = named {
            // Before it is read: it may change meanwhile.
            self.seen = Seen::now(path);
            if !is_start && self.seen.is_some_and(|seen| seen.is_pipe) {
                let path = path.display();
                return Err(format!(
                    "error parsing declarative config file {path}:\nit is a pipe or a device, which is \
                     read at the start only"
                ));
            }
        }
        let source = named.read()?;
        let file = Document {
            text: &source.text,
            syntax: source.syntax,
            folder: &source.folder,
        };
        let changed = load_text(&self.importer, &self.loaded, file).await;
        let changed = changed.map_err(|why| {
            let why: Vec<String> = why.lines().map(|line| format!("  {line}")).collect();
            format!("{}\n{}", source.wrong, why.join("\n"))
        })?;
        Ok(Some(changed))
    }
}

/// Pause between two looks at whether the file has changed.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What tells one state of a file from another, as far as that is known without reading it. A file
/// that is replaced by another has another number; Kubernetes replaces a link that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    modified: Option<SystemTime>,
    size: u64,
    number: u64,
    /// Whether reading it may take until another process writes.
    is_pipe: bool,
}

impl Seen {
    /// The present state; none while there is no file.
    fn now(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        let is_pipe = !file.is_file() && !file.is_dir();
        Some(Self {
            // Whatever is written to a pipe changes this time, also what was read at the start.
            modified: file.modified().ok().filter(|_| !is_pipe),
            size: file.len(),
            number: file.ino(),
            is_pipe,
        })
    }
}
