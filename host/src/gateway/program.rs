//! Starts this program again, as another process that takes over.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The setting that has a process take over, as a variable of the environment.
const TAKE_OVER: (&str, &str) = ("POINTSMAN_TAKE_OVER", "on");

/// This program, and whether it has been started again.
pub(super) struct Program {
    /// Where it was started from; none if that is not known.
    path: Option<PathBuf>,
    /// Whether the process that was started still runs.
    is_starting: Arc<AtomicBool>,
    /// Whether this process was replaced.
    is_replaced: Arc<AtomicBool>,
}

impl Program {
    /// Notes where this program was started from. An upgrade may replace the file later.
    pub(super) fn running() -> Self {
        Self {
            path: started_from(),
            is_starting: Arc::default(),
            is_replaced: Arc::default(),
        }
    }

    /// Notes that another process has taken over.
    pub(super) fn note_replaced(&self) {
        self.is_replaced.store(true, Ordering::Relaxed);
    }

    /// Starts the program again, with the same arguments and `take_over`, unless the process that
    /// was started the last time still tries to take over.
    pub(super) fn start_successor(&self) {
        if std::process::id() == 1 {
            return tracing::error!(
                "SIGUSR2: the first process of a container cannot be replaced, because the \
                 container ends with it; start another container"
            );
        }
        let Some(program) = &self.path else {
            return tracing::error!("SIGUSR2: the path of the program is not known");
        };
        if self.is_starting.swap(true, Ordering::Relaxed) {
            return tracing::warn!(
                "SIGUSR2: ignored, because the process of the last one is still starting"
            );
        }
        let child = Command::new(program)
            .args(env::args_os().skip(1))
            .env(TAKE_OVER.0, TAKE_OVER.1)
            .stdin(Stdio::null())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                self.is_starting.store(false, Ordering::Relaxed);
                return tracing::error!(
                    "SIGUSR2: {} cannot be started: {error}",
                    program.display()
                );
            }
        };
        let pid = child.id();
        tracing::info!("SIGUSR2: started process {pid} to take over");
        let (is_starting, is_replaced) =
            (Arc::clone(&self.is_starting), Arc::clone(&self.is_replaced));
        // Without this, a process that fails would stay as a zombie.
        let waiting = std::thread::Builder::new().name("successor".into());
        let waiting = waiting.spawn(move || {
            let ended = child.wait();
            is_starting.store(false, Ordering::Relaxed);
            match ended {
                // It has taken over before, and its end is no concern of this process.
                _ if is_replaced.load(Ordering::Relaxed) => {}
                Ok(status) => tracing::error!(
                    "process {pid}, which was to take over, has ended: {status}; its lines in this \
                     log say why"
                ),
                Err(error) => tracing::warn!("process {pid} cannot be waited for: {error}"),
            }
        });
        if let Err(error) = waiting {
            tracing::warn!("process {pid} cannot be waited for: {error}");
        }
    }
}

/// Where this program was started from, as the first argument says. As with nginx, this may be a
/// symbolic link, which an upgrade has led to another version; the kernel tells only the file that
/// it led to.
fn started_from() -> Option<PathBuf> {
    let running = env::current_exe().ok();
    let named = env::args_os().next().map(PathBuf::from);
    let candidates = match &named {
        None => Vec::new(),
        Some(name) if is_path(name) => vec![name.clone()],
        // A shell has searched for it.
        Some(name) => {
            let folders = env::var_os("PATH").unwrap_or_default();
            let folders = env::split_paths(&folders);
            folders.map(|folder| folder.join(name)).collect()
        }
    };
    let own = identity(Path::new("/proc/self/exe"));
    let mut candidates = candidates.into_iter();
    // The first argument may say anything.
    candidates
        .find(|candidate| own.is_some() && identity(candidate) == own)
        .and_then(|found| std::path::absolute(found).ok())
        .or(running)
}

/// Whether a name is not searched for in the folders of `PATH`.
fn is_path(name: &Path) -> bool {
    name.as_os_str().as_encoded_bytes().contains(&b'/')
}

/// The device and the inode of a file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}
