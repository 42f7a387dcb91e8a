//! Signals to processes.

use rustix::process::{Pid, Signal, kill_process};

use super::until;

/// Sends a signal to a process, by its name. After a `STOP` the process runs no longer: the system
/// stops each of its threads only where that thread looks, which may be some milliseconds later.
pub(crate) fn send_signal(process: u32, signal: &str) {
    let number = match signal {
        "CONT" => Signal::CONT,
        "HUP" => Signal::HUP,
        "KILL" => Signal::KILL,
        "QUIT" => Signal::QUIT,
        "STOP" => Signal::STOP,
        "TERM" => Signal::TERM,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "WINCH" => Signal::WINCH,
        _ => panic!("no signal {signal} is known"),
    };
    kill_process(Pid::from_raw(process as i32).unwrap(), number).unwrap();
    if signal == "STOP" {
        until("all threads have stopped", || all_have_stopped(process));
    }
}

fn all_have_stopped(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("stat"));
        // A thread that has ended meanwhile runs no longer. The state follows the name, in
        // parentheses.
        status.is_ok_and(|status| {
            let state = status.rsplit(") ").next().unwrap_or_default();
            state.starts_with(['T', 'Z', 'X'])
        })
    })
}
