//! The store on a disk that fails, is full or is missing.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Backend, Gateway, Reply, Setup, until};

pub(crate) fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin("GET", path, &[]).expect(200).json()
}

/// The names of all services.
pub(crate) fn services(gateway: &Gateway) -> Vec<String> {
    let listed = get(gateway, "/services?size=1000");
    let rows = listed["data"].as_array().unwrap().iter();
    let mut names: Vec<_> = rows
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn create(gateway: &Gateway, name: &str) -> Reply {
    gateway.admin("POST", "/services", &[("name", name), ("host", "h")])
}

/// Creates a service that is too large for sled's log, and so is stored in a file of its own.
fn create_large(gateway: &Gateway, name: &str) -> Reply {
    let tag = |number: u32| format!("{name}-{number}-{}", "x".repeat(4000));
    let tags: Vec<_> = (0..50).map(tag).collect();
    let service = json!({"name": name, "host": "h", "tags": tags});
    gateway.admin_json("POST", "/services", &service)
}

/// Checks that changes are refused with this reason, that the state of the gateway shows the
/// reason, and that the stored rows stay in effect.
fn refuses_changes(gateway: &Gateway, name: &str, reason: &str) {
    for _ in 0..3 {
        let refused = create(gateway, name).expect(503).json();
        let message = refused["message"].as_str().unwrap();
        assert!(
            message.starts_with("the store cannot be written: ") && message.contains(reason),
            "{message}"
        );
    }
    shows_reason(gateway, reason);
    gateway.get("/").expect(200);
    assert!(!services(gateway).iter().any(|known| known == name));
    let path = format!("/services/{name}");
    gateway.admin("GET", &path, &[]).expect(404);
}

fn shows_reason(gateway: &Gateway, reason: &str) {
    let status = get(gateway, "/status");
    assert_eq!(status["database"]["reachable"], false);
    let store = &status["pointsman"]["store"];
    assert_eq!(store["writable"], false);
    assert!(
        store["reason"].as_str().unwrap().contains(reason),
        "{store}"
    );
    assert!(store["since"].is_u64(), "{store}");
    let ready = gateway
        .admin("GET", "/status/ready", &[])
        .expect(503)
        .json();
    assert!(
        ready["message"].as_str().unwrap().contains(reason),
        "{ready}"
    );
    let metrics = gateway.admin("GET", "/metrics", &[]).expect(200).text();
    assert!(
        metrics.contains("\nkong_datastore_reachable 0\n"),
        "{metrics}"
    );
    assert!(metrics.contains("\npointsman_store_writable 0\n"));
    assert!(!metrics.contains("\npointsman_store_failures_total 0\n"));
}

/// Checks that changes are accepted again, after a while.
fn accepts_changes_again(gateway: &Gateway, name: &str) {
    until("a change is accepted", || {
        create(gateway, name).status == 201
    });
    let status = get(gateway, "/status");
    assert_eq!(status["database"]["reachable"], true);
    assert_eq!(status["pointsman"]["store"]["writable"], true);
    assert_eq!(status["pointsman"]["store"]["reason"], Value::Null);
    gateway.admin("GET", "/status/ready", &[]).expect(200);
    let metrics = gateway.admin("GET", "/metrics", &[]).expect(200).text();
    assert!(metrics.contains("\npointsman_store_writable 1\n"));
}

/// Checks that a gateway on the same folder has the acknowledged rows, and no others.
pub(crate) fn holds_after_a_restart(gateway: Gateway, setup: impl Fn(&Path) -> Setup) {
    let (known, folder) = (services(&gateway), gateway.data_dir.clone());
    gateway.kill_9();
    assert!(!gateway.wait().0.success());
    let gateway = setup(&folder).start();
    assert_eq!(services(&gateway), known);
    assert_eq!(
        get(&gateway, "/status")["pointsman"]["store"]["set_aside"],
        json!([])
    );
}

/// A temporary folder, and a gateway with a backend whose data folder is in it.
pub(crate) fn start_gateway(setup: impl Fn(&Path) -> Setup) -> (TempDir, Gateway, Backend) {
    let folder = tempfile::tempdir().unwrap();
    let gateway = setup(&folder.path().join("data")).start();
    let backend = Backend::start("one");
    gateway.balanced(&[(backend.address, 100)]);
    (folder, gateway, backend)
}

fn limit(gateway: &Gateway, resource: Resource, most: Option<u64>) {
    let pid = Pid::from_raw(gateway.pid() as i32).unwrap();
    let old = rustix::process::getrlimit(resource);
    let new = Rlimit {
        current: most.or(old.current),
        maximum: old.maximum,
    };
    prlimit(Some(pid), resource, new).unwrap();
}

#[test]
fn changes_are_refused_while_the_store_file_cannot_grow() {
    let (_folder, gateway, _backend) = start_gateway(Setup::with_data);
    let log = gateway.data_dir.join("entities").join("db");
    let length = fs::metadata(log).unwrap().len();
    limit(&gateway, Resource::Fsize, Some(length));
    // A few changes still fit, because the file ends with a whole block.
    let mut names = (0..).map(|n| format!("grows-{n}"));
    let refused = names.find(|name| create(&gateway, name).status != 201);
    refuses_changes(&gateway, &refused.unwrap(), "File too large");
    limit(&gateway, Resource::Fsize, None);
    accepts_changes_again(&gateway, "again");
    holds_after_a_restart(gateway, Setup::with_data);
}

#[test]
fn changes_are_refused_while_there_are_no_descriptors() {
    let (_folder, gateway, _backend) = start_gateway(Setup::with_data);
    // The connections that these requests open are kept.
    get(&gateway, "/status");
    gateway.get("/").expect(200);
    let numbers = || {
        let open = fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap();
        let numbers = open.map(|entry| entry.unwrap().file_name());
        let numbers = numbers.map(|name| name.to_str().unwrap().parse::<u64>().unwrap());
        numbers.collect::<Vec<_>>()
    };
    // Some are open for a moment only, such as that of a file that is read.
    let mut open = numbers();
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let still = numbers();
        open.retain(|number| still.contains(number));
    }
    let lowest = (0..).find(|number| !open.contains(number)).unwrap();
    limit(&gateway, Resource::Nofile, Some(lowest));
    refuses_changes(&gateway, "small", "Too many open files");
    let refused = create_large(&gateway, "large").expect(503);
    assert!(refused.text().contains("Too many open files"));
    limit(&gateway, Resource::Nofile, None);
    accepts_changes_again(&gateway, "again");
    create_large(&gateway, "large").expect(201);
    holds_after_a_restart(gateway, Setup::with_data);
}

/// Makes it impossible to create files in the store's folder, for root as well.
struct NoRights(PathBuf);

impl NoRights {
    fn take(folder: &Path) -> Self {
        let files = folder.join("entities").join("blobs");
        fs::rename(&files, files.with_extension("away")).unwrap();
        fs::write(&files, "").unwrap();
        Self(files)
    }

    fn give_back(self) {
        fs::remove_file(&self.0).unwrap();
        fs::rename(self.0.with_extension("away"), &self.0).unwrap();
    }
}

#[test]
fn a_write_that_fails_halfway_is_undone() {
    let (_folder, gateway, _backend) = start_gateway(Setup::with_data);
    create_large(&gateway, "first").expect(201);
    let rights = NoRights::take(&gateway.data_dir);
    create_large(&gateway, "large").expect(503);
    refuses_changes(&gateway, "small", "");
    rights.give_back();
    accepts_changes_again(&gateway, "again");
    create_large(&gateway, "large").expect(201);
    holds_after_a_restart(gateway, Setup::with_data);
}

/// What starts a program for which rights hold, even if it is root that starts it.
const BOUND_BY_RIGHTS: [&str; 6] = [
    "setpriv",
    "--bounding-set",
    "-dac_override,-dac_read_search",
    "--inh-caps",
    "-dac_override,-dac_read_search",
    "--",
];

/// A gateway that rights hold for, even if it runs as root.
fn bound_by_rights(data_dir: &Path) -> Setup {
    let setup = Setup::with_data(data_dir);
    match rustix::process::geteuid().is_root() {
        true => setup.launcher(BOUND_BY_RIGHTS.map(str::to_owned).to_vec()),
        false => setup,
    }
}

/// Whether root can be bound by rights: some containers leave no way to.
fn can_be_bound() -> bool {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let [program, arguments @ ..] = BOUND_BY_RIGHTS;
    let created = std::process::Command::new(program)
        .args(arguments)
        .args(["sh", "-c", ": > \"$0/x\""])
        .arg(folder.path())
        .status();
    !rustix::process::geteuid().is_root() || created.is_ok_and(|status| !status.success())
}

#[test]
fn changes_are_refused_while_the_folder_is_not_writable() {
    if !can_be_bound() {
        println!("not tried: setpriv cannot take the rights of root here");
        return;
    }
    let (_folder, gateway, _backend) = start_gateway(bound_by_rights);
    let files = gateway.data_dir.join("entities").join("blobs");
    let mode = |mode| {
        fs::set_permissions(&files, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o500);
    refuses_changes(&gateway, "small", "Permission denied");
    mode(0o700);
    accepts_changes_again(&gateway, "again");
    holds_after_a_restart(gateway, bound_by_rights);
}

#[test]
fn a_missing_data_folder_is_noticed_without_a_change() {
    let (_folder, gateway, _backend) = start_gateway(Setup::with_data);
    let aside = gateway.data_dir.with_extension("aside");
    fs::rename(&gateway.data_dir, &aside).unwrap();
    let reason = "was deleted or replaced while the gateway was running";
    until("the missing folder is noticed", || {
        get(&gateway, "/status")["pointsman"]["store"]["writable"] == false
    });
    shows_reason(&gateway, reason);
    refuses_changes(&gateway, "lost", reason);
    assert!(
        !gateway.data_dir.exists(),
        "the folder is not created again"
    );
    fs::rename(&aside, &gateway.data_dir).unwrap();
    accepts_changes_again(&gateway, "again");

    fs::remove_dir_all(&gateway.data_dir).unwrap();
    refuses_changes(&gateway, "lost", reason);
    gateway.terminate();
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains(reason), "{log}");
}

/// A small file system, mounted for as long as the value lives.
struct SmallDisk {
    keeper: Child,
    folder: TempDir,
}

impl SmallDisk {
    /// `None` where the system does not allow mounts.
    fn of(mebibytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount =
            r#"mount -t tmpfs -o size="$0"m tmpfs "$1" && echo mounted && exec sleep infinity"#;
        let mut keeper = Command::new("unshare")
            .args(["-rm", "sh", "-c", mount, &mebibytes.to_string()])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = String::new();
        let mut stdout = std::io::BufReader::new(keeper.stdout.take()?);
        std::io::BufRead::read_line(&mut stdout, &mut said).ok()?;
        let disk = Self { keeper, folder };
        (said == "mounted\n").then_some(disk)
    }

    /// A gateway whose data folder is on the disk.
    fn setup(&self) -> Setup {
        let keeper = self.keeper.id().to_string();
        let within = [
            "nsenter",
            "-U",
            "-m",
            "--preserve-credentials",
            "-t",
            &keeper,
            "--",
        ];
        Setup::with_data(&self.folder.path().join("data"))
            .launcher(within.map(str::to_owned).to_vec())
    }

    /// A path on the disk, as this process sees it.
    fn path(&self, name: &str) -> PathBuf {
        let inside = self.folder.path().join(name);
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(inside.strip_prefix("/").unwrap())
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.path("filler")).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

#[test]
fn changes_are_refused_while_the_disk_is_full() {
    let Some(disk) = SmallDisk::of(256) else {
        eprintln!("no disk can be mounted here: left out");
        return;
    };
    let gateway = disk.setup().start();
    let backend = Backend::start("one");
    gateway.balanced(&[(backend.address, 100)]);
    disk.fill();
    refuses_changes(&gateway, "small", "is full");
    create_large(&gateway, "large").expect(503);
    disk.empty();
    accepts_changes_again(&gateway, "again");
    create_large(&gateway, "large").expect(201);

    // A start on a full disk does not report damage.
    let known = services(&gateway);
    disk.fill();
    gateway.kill_9();
    assert!(!gateway.wait().0.success());
    let (status, said) = disk.setup().fail();
    assert!(!status.success());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("cannot be used: the disk of"), "{said}");
    assert!(said.contains("is full"), "{said}");
    disk.empty();
    let gateway = disk.setup().start();
    assert_eq!(services(&gateway), known);

    // Nor does the first start in a folder.
    disk.fill();
    let other = disk.folder.path().join("other");
    let (_, said) = disk.setup().data_dir(&other).fail();
    assert!(!said.contains("damaged"), "{said}");
    assert!(
        said.contains("is full") || said.contains("No space left"),
        "{said}"
    );
}
