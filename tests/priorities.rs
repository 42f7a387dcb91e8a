//! Probes and records of requests come after requests where there are too few cores.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::harness::{Gateway, until};

/// The name of a thread and its niceness, from its folder in /proc; `None` if it has ended.
fn thread(folder: &Path) -> Option<(String, i32)> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (start, fields) = stat.rsplit_once(") ")?;
    let name = start.split_once('(')?.1.to_owned();
    // The seventeenth field after the name. Source: proc_pid_stat(5).
    Some((name, fields.split(' ').nth(16)?.parse().ok()?))
}

/// The niceness of the threads of a process, by their name, as the difference to that of its main
/// thread.
fn niceness(process: u32) -> BTreeMap<String, BTreeSet<i32>> {
    let folder = format!("/proc/{process}");
    let (_, main) = thread(folder.as_ref()).unwrap();
    let mut all = BTreeMap::<_, BTreeSet<i32>>::new();
    for entry in fs::read_dir(format!("{folder}/task")).unwrap() {
        if let Some((name, niceness)) = thread(&entry.unwrap().path()) {
            all.entry(name).or_default().insert(niceness - main);
        }
    }
    all
}

#[test]
fn probes_and_records_give_way_to_requests() {
    let gateway = Gateway::start();
    let expected = [("worker-0", 0), ("probes", 5), ("logs", 5)];
    // A thread has its name before it has lowered its priority.
    until("each thread has its priority", || {
        let threads = niceness(gateway.pid());
        let has = |(name, of): &(&str, i32)| threads.get(*name) == Some(&BTreeSet::from([*of]));
        expected.iter().all(has)
    });
}
