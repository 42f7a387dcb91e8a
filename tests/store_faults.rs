//! The store on a faulty disk, and rows that cannot be read.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use sled::Tree;
use tempfile::TempDir;

use crate::harness::{Backend, Gateway, Reply, Setup, guest, until};

fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin("GET", path, &[]).expect(200).json()
}

/// The names of all services.
fn services(gateway: &Gateway) -> Vec<String> {
    let listed = get(gateway, "/services?size=1000");
    let rows = listed["data"].as_array().unwrap().iter();
    let mut names: Vec<_> = rows
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn create(gateway: &Gateway, name: &str) -> Reply {
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
fn holds_after_a_restart(gateway: Gateway, setup: impl Fn(&Path) -> Setup) {
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
fn start_gateway(setup: impl Fn(&Path) -> Setup) -> (TempDir, Gateway, Backend) {
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
    let open = numbers();
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

#[test]
fn changes_are_refused_while_the_folder_is_not_writable() {
    if rustix::process::geteuid().is_root() {
        // Root may write everywhere; the test before this one covers it by `NoRights`.
        return;
    }
    let (_folder, gateway, _backend) = start_gateway(Setup::with_data);
    let files = gateway.data_dir.join("entities").join("blobs");
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&files, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o500);
    refuses_changes(&gateway, "small", "Permission denied");
    mode(0o700);
    accepts_changes_again(&gateway, "again");
    holds_after_a_restart(gateway, Setup::with_data);
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

/// Changes stored rows while no gateway runs.
fn tamper(folder: &Path, change: impl Fn(&Tree)) {
    let config = sled::Config::new().path(folder.join("entities"));
    let db = config.flush_every_ms(None).open().unwrap();
    change(&db.open_tree("rows").unwrap());
    db.flush().unwrap();
}

/// Stops a gateway, changes its rows, and starts another one.
fn tampered(gateway: Gateway, change: impl Fn(&Tree)) -> Gateway {
    let folder = gateway.data_dir.clone();
    gateway.kill_9();
    gateway.wait();
    tamper(&folder, change);
    Setup::with_data(&folder).start()
}

/// The key of a row in the store.
fn key(collection: &str, id: &str) -> Vec<u8> {
    let id: uuid::Uuid = id.parse().unwrap();
    [b"r", collection.as_bytes(), b"\0", id.as_bytes()].concat()
}

#[test]
fn an_unreadable_row_is_set_aside_alone() {
    let (_folder, mut gateway, _backend) = start_gateway(Setup::with_data);
    create(&gateway, "good").expect(201);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    for bad in [&*deep, "{"] {
        let id = create(&gateway, "bad").expect(201).json()["id"].clone();
        let id = id.as_str().unwrap();
        let value = [&1_u64.to_be_bytes(), bad.as_bytes()].concat();
        gateway = tampered(gateway, |rows| {
            rows.insert(key("services", id), &*value).unwrap();
        });
        assert_eq!(services(&gateway), ["good", "u-service"]);
        gateway.get("/").expect(200);
        let set_aside = &get(&gateway, "/status")["pointsman"]["store"]["set_aside"];
        assert_eq!(set_aside[0]["entity"], "services", "{set_aside}");
        assert_eq!(set_aside[0]["id"], id);
        let metrics = gateway.admin("GET", "/metrics", &[]).expect(200).text();
        assert!(
            metrics.contains("\npointsman_store_set_aside_rows 1\n"),
            "{metrics}"
        );
        for path in [format!("/services/{id}"), "/services/bad".into()] {
            let message = gateway.admin("GET", &path, &[]).expect(500).text();
            assert!(
                message.contains(id) && message.contains("DELETE removes it"),
                "{message}"
            );
        }
        // Its unique name is free again once it is deleted.
        create(&gateway, "bad").expect(409);
        create(&gateway, "other").expect(201);
        gateway.admin("DELETE", "/services/other", &[]).expect(204);
        let path = format!("/services/{id}");
        gateway.admin("DELETE", &path, &[]).expect(204);
        gateway.admin("GET", &path, &[]).expect(404);
        create(&gateway, "bad").expect(201);
        gateway.admin("DELETE", "/services/bad", &[]).expect(204);
    }
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert!(log.contains("a stored row is set aside"), "{log}");
}

#[test]
fn a_row_of_any_kind_can_be_set_aside() {
    let (_folder, gateway, backend) = start_gateway(Setup::with_data);
    gateway.upload("mine", guest("first")).expect(201);
    let rows = |gateway: &Gateway, path: &str| {
        let listed = get(gateway, path);
        let rows = listed["data"].as_array().unwrap();
        rows.iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let route = rows(&gateway, "/routes").remove(0);
    let target = rows(&gateway, "/upstreams/u/targets").remove(0);
    let version = rows(&gateway, "/balancers/mine/versions").remove(0);
    let spoilt = [
        ("routes", &*route),
        ("targets", &target),
        ("balancer_versions", &version),
    ];
    let gateway = tampered(gateway, |tree| {
        for (collection, id) in spoilt {
            tree.insert(key(collection, id), "spoilt").unwrap();
        }
    });
    for path in [
        "/routes",
        "/upstreams/u/targets",
        "/balancers/mine/versions",
    ] {
        assert_eq!(rows(&gateway, path), [""; 0], "{path}");
    }
    gateway.get("/").expect(404);
    get(&gateway, "/balancers/mine");
    // The active version is deleted only with its balancer.
    let active = format!("/balancers/mine/versions/{version}");
    gateway.admin("DELETE", &active, &[]).expect(400);
    for path in [
        format!("/routes/{route}"),
        format!("/upstreams/u/targets/{target}"),
    ] {
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
    gateway.admin("DELETE", "/balancers/mine", &[]).expect(204);
    gateway.add_target("u", backend.address, 100);
    let routes = "/services/u-service/routes";
    gateway
        .admin("POST", routes, &[("paths[]", "/")])
        .expect(201);
    gateway.get("/").expect(200);
    gateway.upload("mine", guest("first")).expect(201);

    // An unreadable balancer is deleted with all that belongs to it.
    let mine = get(&gateway, "/balancers/mine")["id"].clone();
    let gateway = tampered(gateway, |tree| {
        tree.insert(key("balancers", mine.as_str().unwrap()), "spoilt")
            .unwrap();
    });
    gateway.get("/").expect(200);
    gateway.admin("GET", "/balancers/mine", &[]).expect(500);
    gateway.admin("DELETE", "/balancers/mine", &[]).expect(204);
    assert_eq!(
        get(&gateway, "/status")["pointsman"]["store"]["set_aside"],
        json!([])
    );
    gateway.upload("mine", guest("first")).expect(201);
}

#[test]
fn a_schema_nested_too_deeply_to_be_stored_is_refused() {
    let (_folder, gateway, _backend) = start_gateway(Setup::with_data);
    gateway.upload("deep", guest("deep-schema")).expect(400);
    gateway.upload("mine", guest("first")).expect(201);
    let versions = "/balancers/mine/versions";
    for wait in ["wait=60", "respond-async"] {
        let body = Some(("application/wasm", guest("deep-schema")));
        let headers = [("prefer", wait)];
        let answer = gateway.send(gateway.admin, "POST", versions, &headers, body);
        if answer.status == 202 {
            // The check runs after the answer.
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            let path = format!("{versions}/{id}");
            until("the check has failed", || {
                get(&gateway, &path)["state"] == "failed"
            });
        } else {
            answer.expect(400);
        }
    }
    get(&gateway, "/balancers");
    get(&gateway, versions);
    holds_after_a_restart(gateway, Setup::with_data);
}

#[test]
fn every_change_is_logged_in_one_line() {
    let plain = |folder: &Path| Setup::with_data(folder).env("NO_COLOR", 1);
    let (_folder, gateway, backend) = start_gateway(plain);
    let id = create(&gateway, "s").expect(201).json()["id"].clone();
    let id = id.as_str().unwrap();
    gateway
        .admin("PATCH", "/services/s", &[("host", "i")])
        .expect(200);
    gateway
        .admin("PUT", "/services/s", &[("host", "j")])
        .expect(200);
    gateway
        .admin("PUT", "/services/t", &[("host", "j")])
        .expect(200);
    gateway.admin("DELETE", "/services/s", &[]).expect(204);
    let target = backend.address.to_string();
    let path = format!("/upstreams/u/targets/{target}");
    gateway
        .admin("PATCH", &path, &[("weight", "5")])
        .expect(200);
    gateway.upload("mine", guest("first")).expect(201);
    let algorithm = [("algorithm", "mine")];
    gateway
        .admin("PATCH", "/upstreams/u", &algorithm)
        .expect(200);
    let add = |component: &str| {
        let body = Some(("application/wasm", guest(component)));
        let added = gateway.send(gateway.admin, "POST", "/balancers/mine/versions", &[], body);
        added.expect(201).json()["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = get(&gateway, "/balancers/mine")["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let second = add("lightest");
    let versions = "/balancers/mine/versions";
    let canary = format!("{versions}/{second}/canary");
    let all = json!({"share_percent": 50});
    gateway.admin_json("POST", &canary, &all).expect(201);
    gateway.admin("DELETE", &canary, &[]).expect(204);
    gateway.admin_json("POST", &canary, &all).expect(201);
    let promote = format!("{versions}/{second}/promote");
    gateway.admin("POST", &promote, &[]).expect(200);
    gateway
        .admin("POST", "/balancers/mine/rollback", &[])
        .expect(200);
    let version = format!("{versions}/{second}");
    gateway.admin("DELETE", &version, &[]).expect(204);
    gateway.terminate();
    let (_, log) = gateway.wait();
    let lines = |wanted: &[&str]| {
        let has = |line: &&str| line.contains(" INFO ") && wanted.iter().all(|w| line.contains(w));
        log.lines().filter(has).count()
    };
    let s = format!("service \"s\" ({id})");
    let t = format!("target {target:?} (");
    let expected: [&[&str]; 14] = [
        &[&s, "created"],
        &[&s, "updated"],
        &[&s, "replaced"],
        &["service \"t\" (", "created"],
        &[&s, "deleted"],
        &[": upstream \"u\" (", "created"],
        &[&t, "of upstream \"u\" (", "created"],
        &[&t, "updated"],
        &[": balancer \"mine\" (", "created", &first],
        &[": upstream \"u\" (", "updated"],
        &["version", &second, "of balancer \"mine\"", "uploaded"],
        &[
            ": balancer \"mine\" (",
            "canary ended: the version",
            &second,
        ],
        &[
            "balancer \"mine\" (",
            "promoted: the version",
            &second,
            "canary ended: promoted",
        ],
        &[": balancer \"mine\" (", "rolled back: the version", &first],
    ];
    for wanted in expected {
        assert_eq!(lines(wanted), 1, "{wanted:?}: {log}");
    }
    assert_eq!(
        lines(&[": balancer \"mine\" (", "canary begun", &second, "50"]),
        2,
        "{log}"
    );
    assert_eq!(lines(&["version", &second, "deleted"]), 1, "{log}");
}

#[test]
fn the_figures_of_an_ended_canary_can_be_read() {
    let (folder, gateway, backend) = start_gateway(Setup::with_data);
    gateway.upload("mine", guest("lightest")).expect(201);
    let algorithm = [("algorithm", "mine")];
    gateway
        .admin("PATCH", "/upstreams/u", &algorithm)
        .expect(200);
    let body = Some(("application/wasm", guest("heaviest")));
    let versions = "/balancers/mine/versions";
    let added = gateway
        .send(gateway.admin, "POST", versions, &[], body)
        .expect(201)
        .json();
    let path = format!("{versions}/{}", added["digest"].as_str().unwrap());
    let canary = format!("{path}/canary");
    let begin = |bounds: &Value| {
        gateway.admin_json("POST", &canary, bounds).expect(201);
        for _ in 0..10 {
            gateway.get("/");
        }
        until("the requests are counted", || {
            get(&gateway, &canary)["figures"]["canary"]["requests"] == 10
        });
    };
    let kept = |gateway: &Gateway, state: &str| {
        let shown = get(gateway, &canary);
        assert_eq!(shown["state"], state, "{shown}");
        assert_eq!(shown["figures"]["canary"]["picks"], 10, "{shown}");
        assert_eq!(shown["figures"]["canary"]["requests"], 10, "{shown}");
        assert_eq!(get(gateway, "/balancers/mine")["canary"], shown);
        assert!(shown["ended_at"].is_u64(), "{shown}");
    };
    let all = json!({"share_percent": 100});

    // A canary ended by an operator; a second DELETE deletes it.
    begin(&all);
    gateway.admin("DELETE", &canary, &[]).expect(204);
    kept(&gateway, "ended");
    gateway.admin("DELETE", &canary, &[]).expect(204);
    gateway.admin("GET", &canary, &[]).expect(404);

    // A canary ended by a bound.
    backend.respond_with(500, 0);
    begin(&json!({"share_percent": 100, "max_error_percent": 50, "min_requests": 10}));
    until("the canary has returned", || {
        let mine = gateway.admin("GET", "/balancers?size=1000", &[]).text();
        mine.contains("\"state\":\"returned\"")
    });
    kept(&gateway, "returned");
    backend.respond_normally();

    // A canary ended by its promotion, also after a restart.
    begin(&all);
    gateway
        .admin("POST", &format!("{path}/promote"), &[])
        .expect(200);
    kept(&gateway, "promoted");
    gateway.terminate();
    gateway.wait();
    kept(
        &Setup::with_data(&folder.path().join("data")).start(),
        "promoted",
    );
}
