//! Threads that serve requests come before all others where there are too few cores.

use std::collections::BTreeMap;
use std::fs;

use crate::harness::Gateway;

/// The niceness of each thread of a process, by its name, as the difference to that of the process.
/// The threads of a runtime have one name and one niceness.
fn niceness(process: u32) -> BTreeMap<String, i32> {
    let of = |folder: &std::path::Path| {
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        let (start, fields) = stat.rsplit_once(") ")?;
        let name = start.split_once('(')?.1.to_owned();
        // The seventeenth field after the name. Source: proc_pid_stat(5).
        Some((name, fields.split(' ').nth(16)?.parse::<i32>().ok()?))
    };
    let folder = format!("/proc/{process}");
    let (_, own) = of(folder.as_ref()).unwrap();
    let threads = fs::read_dir(format!("{folder}/task")).unwrap();
    let threads = threads.filter_map(|thread| of(&thread.unwrap().path()));
    let threads: Vec<_> = threads.collect();
    let named = |name: &str, niceness: i32| {
        let all = threads.iter().filter(|thread| thread.0 == name);
        assert!(
            all.clone().all(|thread| thread.1 == niceness),
            "{threads:?}"
        );
    };
    for (name, niceness) in &threads {
        named(name, *niceness);
    }
    let threads = threads.into_iter();
    threads
        .map(|(name, niceness)| (name, niceness - own))
        .collect()
}

#[test]
fn all_but_workers_give_way_to_requests() {
    let gateway = Gateway::start();
    let threads = niceness(gateway.pid());
    let of = |name: &str| threads.get(name).copied();
    assert_eq!(of("worker-0"), Some(0), "{threads:?}");
    for name in ["control", "store", "store-journal"] {
        assert_eq!(of(name), Some(10), "{name}: {threads:?}");
    }
    for name in ["probes", "logs"] {
        assert_eq!(of(name), Some(5), "{name}: {threads:?}");
    }
}
