//! What is logged, which can change while the gateway runs.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::reload;

/// The filter of the log. The subscriber has its other half, which `new` returns with it.
#[derive(Debug)]
pub struct LogLevel {
    layer: reload::Handle<Targets, Registry>,
    /// What the setting `log` says.
    configured: Mutex<Targets>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    /// The level or the directives in effect, by the name that was asked for.
    shown: String,
    /// How often the level was changed.
    changes: u64,
    /// The task that reverts the latest change.
    revert: Option<AbortHandle>,
}

/// Identifies a change of the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LevelChange(u64);

impl LogLevel {
    /// The filter that a setting describes, with the layer for the subscriber.
    pub fn new(configured: Targets) -> (Self, reload::Layer<Targets, Registry>) {
        let (filter, layer) = reload::Layer::new(effective(&configured));
        let level = Self {
            layer,
            current: Mutex::new(Current {
                shown: configured.to_string(),
                changes: 0,
                revert: None,
            }),
            configured: Mutex::new(configured),
        };
        (level, filter)
    }

    /// The level in effect, or directives such as `pointsman=debug,info`.
    pub(crate) fn shown(&self) -> String {
        self.current.lock().shown.clone()
    }

    /// Logs at this level, under the name that [`filter_of`] knows, until the next change; none if
    /// that is the level in effect.
    pub(crate) fn set(&self, name: &str, filter: LevelFilter) -> Option<LevelChange> {
        let mut current = self.current.lock();
        if current.shown == name {
            return None;
        }
        if let Some(task) = current.revert.take() {
            task.abort();
        }
        let filter = Targets::new().with_default(filter);
        Some(self.apply(&mut current, name.to_owned(), &filter))
    }

    /// Logs what the setting now says, which ends any change before.
    pub(crate) fn configure(&self, configured: Targets) {
        let mut current = self.current.lock();
        if let Some(task) = current.revert.take() {
            task.abort();
        }
        self.apply(&mut current, configured.to_string(), &configured);
        *self.configured.lock() = configured;
    }

    /// Returns to the setting after a time, unless the level is changed again after `change`.
    pub(crate) fn revert_after(self: &Arc<Self>, time: Duration, change: LevelChange) {
        let mut current = self.current.lock();
        if current.changes != change.0 {
            return;
        }
        let level = Arc::clone(self);
        let task = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if level.revert(change) {
                tracing::info!("log level changed back to {}", level.shown());
            }
        });
        current.revert = Some(task.abort_handle());
    }

    /// Returns to the setting, unless the level was changed again after `change`.
    fn revert(&self, change: LevelChange) -> bool {
        let mut current = self.current.lock();
        let is_current = current.changes == change.0;
        if is_current {
            current.revert = None;
            let configured = self.configured.lock().clone();
            self.apply(&mut current, configured.to_string(), &configured);
        }
        is_current
    }

    fn apply(&self, current: &mut Current, shown: String, filter: &Targets) -> LevelChange {
        // Fails only once the subscriber is gone, and then nothing is logged at all.
        if self.layer.reload(effective(filter)).is_ok() {
            current.shown = shown;
        }
        current.changes += 1;
        LevelChange(current.changes)
    }
}

/// The filter for what an operator asks for. The library for HTTP/2 warns of each client that
/// exceeds a limit, so clients could fill the disk: its warnings are logged only where it is named,
/// or where everything is logged.
fn effective(asked: &Targets) -> Targets {
    const LIBRARY: &str = "h2";
    let is_named = asked.iter().any(|(target, _)| target.starts_with(LIBRARY));
    match asked.default_level() {
        Some(LevelFilter::WARN | LevelFilter::INFO) if !is_named => {
            asked.clone().with_target(LIBRARY, LevelFilter::ERROR)
        }
        _ => asked.clone(),
    }
}

/// The filter for a level by its name: Kong's, or one of the setting `log`. No line of the log is
/// more severe than an error, and none is between information and warnings.
pub(crate) fn filter_of(name: &str) -> Option<LevelFilter> {
    Some(match name {
        "off" => LevelFilter::OFF,
        "emerg" | "alert" | "crit" | "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "notice" | "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return None,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_library_for_http2_warns_only_where_an_operator_asks_for_it() {
        for (asked, warns) in [
            ("warn", false),
            ("info", false),
            ("pointsman=debug,info", false),
            ("debug", true),
            ("info,h2=warn", true),
            ("h2=info,error", true),
        ] {
            let filter = effective(&asked.parse().unwrap());
            let target = "h2::proto::streams";
            assert_eq!(filter.would_enable(target, &Level::WARN), warns, "{asked}");
            assert!(filter.would_enable(target, &Level::ERROR), "{asked}");
        }
    }

    #[test]
    fn only_the_latest_change_is_reverted() {
        let configured = Targets::new().with_default(LevelFilter::WARN);
        let (level, _filter) = LogLevel::new(configured);
        let shown = level.shown();
        let first = level.set("debug", LevelFilter::DEBUG).unwrap();
        let second = level.set("notice", LevelFilter::INFO).unwrap();
        assert_eq!(level.set("notice", LevelFilter::INFO), None);
        assert!(!level.revert(first));
        assert_eq!(level.shown(), "notice");
        assert!(level.revert(second));
        assert_eq!(level.shown(), shown);
        assert!(!level.revert(second));
    }

    #[tokio::test]
    async fn a_change_aborts_the_task_that_reverts_the_one_before() {
        let configured = Targets::new().with_default(LevelFilter::WARN);
        let (level, _filter) = LogLevel::new(configured);
        let level = Arc::new(level);
        let task = || level.current.lock().revert.clone();
        let hour = Duration::from_secs(3600);
        let first = level.set("debug", LevelFilter::DEBUG).unwrap();
        level.revert_after(hour, first);
        let reverts_first = task().unwrap();
        let second = level.set("notice", LevelFilter::INFO).unwrap();
        assert!(task().is_none());
        level.revert_after(hour, first);
        assert!(task().is_none());
        level.revert_after(hour, second);
        assert!(task().is_some());
        while !reverts_first.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_plain_level_is_shown_as_it_is_written() {
        for name in ["off", "error", "warn", "info", "debug", "trace"] {
            let filter = filter_of(name).map(|filter| Targets::new().with_default(filter));
            let shown = LogLevel::new(filter.unwrap_or_default()).0.shown();
            assert_eq!(shown, name);
        }
    }
}
