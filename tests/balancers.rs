//! Uploaded balancers: upload, use, replacement and deletion, and that a faulty one does no harm.

use std::path::Path;

use serde_json::json;

use crate::harness::{Backend, Gateway, Load, Setup, guest};

/// A gateway with three backends behind `/`.
fn with_backends(setup: Setup) -> (Gateway, [Backend; 3]) {
    let gateway = setup.start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    (gateway, backends)
}

/// A component of `tests/components`.
fn component(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/components");
    std::fs::read(folder.join(name)).unwrap()
}

fn use_balancer(gateway: &Gateway, name: &str) {
    gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", name)])
        .expect(200);
}

#[test]
fn a_balancer_is_uploaded_shown_used_and_deleted() {
    let (gateway, _backends) = with_backends(Setup::new());
    let made = gateway.upload("mine", guest("first")).expect(201).json();
    assert_eq!(made["name"], "mine");
    assert_eq!(made["source"], "uploaded");
    assert_eq!(made["digest"].as_str().unwrap().len(), 64);
    assert_eq!(made["exports"][0], "pointsman:balancer/policy@1.4.0");
    let imports = |name: &str| {
        let shown = gateway.admin("GET", &format!("/balancers/{name}"), &[]);
        shown.expect(200).json()["imports"].to_string()
    };
    assert!(imports("prefix-affinity").contains("pointsman:balancer/body-facts@"));
    assert!(imports("round-robin").starts_with('['));
    assert!(!imports("round-robin").contains("body-facts"));
    assert!(made["imports"].is_array(), "{made}");
    assert!(made["description"]["config_schema"].is_object());

    use_balancer(&gateway, "mine");
    let picks: Vec<String> = (0..5).map(|_| gateway.backend_of("/")).collect();
    assert!(picks.windows(2).all(|pair| pair[0] == pair[1]), "{picks:?}");
    let shown = gateway
        .admin("GET", "/balancers/mine", &[])
        .expect(200)
        .json();
    assert_eq!(shown["usage"]["u"]["picks"], 5);
    assert_eq!(shown["usage"]["u"]["host_choices"], 0);

    let refused = gateway
        .admin("DELETE", "/balancers/mine", &[])
        .expect(400)
        .json();
    assert_eq!(refused["code"], 4);
    assert_eq!(
        refused["message"],
        "an existing 'upstreams' entity references this 'balancers' entity"
    );
    use_balancer(&gateway, "round-robin");
    gateway.admin("DELETE", "/balancers/mine", &[]).expect(204);
    gateway.admin("GET", "/balancers/mine", &[]).expect(404);
    let unknown = gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", "mine")])
        .expect(400);
    assert!(
        unknown
            .text()
            .contains("expected one of: consistent-hashing"),
        "{}",
        unknown.text()
    );
    gateway
        .admin("DELETE", "/balancers/round-robin", &[])
        .expect(400);
}

#[test]
fn a_multipart_upload_and_a_restart_keep_the_component() {
    let (gateway, _backends) = with_backends(Setup::new());
    let component = guest("first");
    let mut body = Vec::new();
    for (disposition, content) in [
        ("name=\"name\"", &b"mine"[..]),
        ("name=\"component\"; filename=\"first.wasm\"", &*component),
    ] {
        let head = format!("--X\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
        body.extend(head.bytes());
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(b"--X--\r\n");
    let body = Some(("multipart/form-data; boundary=X", body));
    gateway
        .send(gateway.admin, "POST", "/balancers", &[], body)
        .expect(201);
    use_balancer(&gateway, "mine");
    let first = gateway.backend_of("/");
    let data_dir = gateway.data_dir.clone();
    let _folder = gateway.kill();

    let gateway = Setup::with_data(&data_dir).start();
    for _ in 0..4 {
        assert_eq!(gateway.backend_of("/"), first);
    }
    let path = "/balancers/mine/component";
    assert_eq!(gateway.admin("GET", path, &[]).expect(200).body, component);
}

#[test]
fn an_invalid_component_is_refused_with_the_reason() {
    let gateway = Setup::new().arg("--balancer-upload", 200).start();
    for (component, part) in [
        (b"#!/bin/sh".to_vec(), "not WebAssembly"),
        (
            b"\0asm\x01\0\0\0".to_vec(),
            "core module and not a component",
        ),
        (b"\0asm\x0d\0\x01\0rubbish".to_vec(), "not valid"),
        (
            guest("no-policy"),
            "lacks the interface pointsman:balancer/policy@1.0.0",
        ),
        (guest("opens-socket"), "wasi:sockets/"),
        // The compiler panics on it.
        (component("two-memories.wasm"), "multiple memories"),
        (
            guest("wants-unknown-import"),
            "does not provide to balancers",
        ),
        (guest("unknown-column"), "load column"),
        (guest("bad-schema"), "config-schema"),
        (vec![0; 201 << 10], "larger than the 204800 bytes"),
        (Vec::new(), "is empty"),
    ] {
        let refused = gateway.upload("x", component).expect(400);
        assert!(refused.text().contains(part), "{part}: {}", refused.text());
        assert_eq!(refused.json()["code"], 2);
    }
    let all = gateway.admin("GET", "/balancers", &[]).expect(200).json();
    let mut rows = all["data"].as_array().unwrap().iter();
    assert!(rows.all(|row| row["source"] == "shipped"), "{all}");
}

/// Each faulty balancer serves an upstream under load, while another upstream is used beside it.
#[test]
fn no_faulty_balancer_costs_a_request() {
    let (gateway, backends) = with_backends(Setup::new().arg("--balancer-pick-timeout", 20));
    gateway.balanced_as("beside", "/beside", &[(backends[0].address, 1)]);
    for (name, kind) in [
        ("traps", "trap"),
        ("panics", "trap"),
        ("panics-sometimes", "trap"),
        ("sleeps", "trap"),
        ("overflows-stack", "trap"),
        ("loops", "deadline"),
        ("loops-in-configure", "deadline"),
        ("eats-memory", "memory"),
        ("out-of-range", "out_of_range"),
        ("prints", ""),
        ("floods", ""),
        ("says-too-much", ""),
    ] {
        gateway.upload(name, guest(name)).expect(201);
        let load = Load::start(gateway.proxy, "/", 3);
        let beside = Load::start(gateway.proxy, "/beside/", 1);
        use_balancer(&gateway, name);
        load.wait_for(200);
        beside.wait_for(20);
        let shown = gateway
            .admin("GET", &format!("/balancers/{name}"), &[])
            .expect(200);
        assert_eq!(load.stop().failures, [""; 0], "{name}");
        assert_eq!(beside.stop().failures, [""; 0], "{name}");
        let usage = &shown.json()["usage"]["u"];
        assert!(usage["picks"].as_u64().unwrap() > 0, "{name}: {usage}");
        if !kind.is_empty() {
            assert!(
                usage["faults"][kind].as_u64().unwrap() > 0,
                "{name}: {usage}"
            );
            assert!(usage["last_fault"].is_string(), "{name}: {usage}");
        }
    }
}

/// A balancer that keeps to the deadline of each pick may still take CPU time from other upstreams.
#[test]
fn a_balancer_over_its_pick_cost_is_quarantined() {
    let (gateway, _backends) = with_backends(Setup::new().arg("--balancer-pick-cost", 100));
    gateway.upload("costly", guest("says-too-much")).expect(201);
    let load = Load::start(gateway.proxy, "/", 3);
    use_balancer(&gateway, "costly");
    load.wait_for(200);
    let shown = gateway.admin("GET", "/balancers/costly", &[]).expect(200);
    assert_eq!(load.stop().failures, [""; 0]);
    let usage = &shown.json()["usage"]["u"];
    assert_eq!(usage["faults"]["cost"], 1, "{usage}");
    assert!(usage["quarantine"].as_f64() > Some(0.0), "{usage}");
    let by_kind = &usage["host_choices_by_kind"]["quarantine"];
    assert!(by_kind.as_u64() > Some(0), "{usage}");
}

#[test]
fn balancers_are_switched_under_load() {
    let (gateway, _backends) = with_backends(Setup::new());
    gateway.upload("first", guest("first")).expect(201);
    gateway
        .upload("least", guest("least-in-flight"))
        .expect(201);
    let load = Load::start(gateway.proxy, "/", 4);
    for round in 0..30 {
        use_balancer(&gateway, ["first", "least", "round-robin"][round % 3]);
        load.wait_for(20);
    }
    // A new component under the same name takes over as well.
    use_balancer(&gateway, "first");
    let body = Some(("application/wasm", guest("least-in-flight")));
    gateway
        .send(gateway.admin, "PUT", "/balancers/first", &[], body)
        .expect(200);
    load.wait_for(20);
    assert_eq!(load.stop().failures, [""; 0]);
    let shown = gateway.admin("GET", "/balancers/first", &[]).json();
    assert_eq!(shown["description"]["columns"][0], "in-flight");
    assert!(shown["usage"]["u"]["picks"].as_u64().unwrap() > 0);
}

#[test]
fn a_balancer_may_refuse_a_request() {
    let (gateway, _backends) = with_backends(Setup::new());
    gateway.upload("refuses", guest("refuses")).expect(201);
    use_balancer(&gateway, "refuses");
    let refused = gateway.get("/").expect(503);
    assert_eq!(
        refused.json()["message"],
        "failure to get a peer from the ring-balancer"
    );
}

#[test]
fn a_shipped_balancer_cannot_be_replaced_or_deleted() {
    let (gateway, _backends) = with_backends(Setup::new());
    for name in ["round-robin", "least-connections"] {
        let path = format!("/balancers/{name}");
        gateway.upload(name, guest("first")).expect(409);
        use_balancer(&gateway, name);
        gateway.backend_of("/");
        // As in Kong, the reference to it is the first reason that is given.
        let used = gateway.admin("DELETE", &path, &[]).expect(400).json();
        assert_eq!(used["code"], 4);
        use_balancer(&gateway, "random");
        let refused = gateway.admin("DELETE", &path, &[]).expect(400);
        assert!(refused.text().contains("ships with the gateway"));
    }
}

#[test]
fn a_component_that_rejects_the_settings_in_use_is_refused() {
    let (gateway, _backends) = with_backends(Setup::new());
    let ring = gateway
        .admin("GET", "/balancers/consistent-hashing/component", &[])
        .expect(200)
        .body;
    gateway.upload("mine", ring).expect(201);
    let settings = json!({
        "algorithm": "mine", "pointsman": {"balancer_config": {"slots": 100}}
    });
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    let put = || {
        let body = Some(("application/wasm", guest("first")));
        gateway.send(gateway.admin, "PUT", "/balancers/mine", &[], body)
    };
    let refused = put().expect(400).json();
    // The error names the upstream and the field of its settings.
    let wrong = &refused["fields"]["upstreams"]["u"]["pointsman"]["balancer_config"]["slots"];
    assert_eq!(wrong, "unknown field", "{refused}");
    let without = json!({"pointsman": {"balancer_config": null}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &without)
        .expect(200);
    put().expect(200);
    gateway.backend_of("/");
}

#[test]
fn a_component_under_two_names_is_counted_under_the_one_in_use() {
    let (gateway, _backends) = with_backends(Setup::new());
    for name in ["one", "other"] {
        gateway.upload(name, guest("first")).expect(201);
    }
    use_balancer(&gateway, "one");
    gateway.backend_of("/");
    let usage = |name: &str| {
        let shown = gateway.admin("GET", &format!("/balancers/{name}"), &[]);
        shown.expect(200).json()["usage"].clone()
    };
    assert_eq!(usage("one")["u"]["picks"], 1);
    assert_eq!(usage("other"), json!({}));
}

#[test]
fn an_instance_may_use_the_memory_of_the_setting() {
    for (kibibytes, is_enough) in [(8192, false), (65_536, true)] {
        let (gateway, _backends) = with_backends(Setup::new().arg("--balancer-memory", kibibytes));
        let component = guest("eats-memory");
        gateway.upload("eats-memory", component).expect(201);
        use_balancer(&gateway, "eats-memory");
        for _ in 0..20 {
            gateway.backend_of("/");
        }
        let shown = gateway.admin("GET", "/balancers/eats-memory", &[]);
        let usage = &shown.expect(200).json()["usage"]["u"];
        let faults = usage["faults"]["memory"].as_u64().unwrap_or(0);
        assert_eq!(faults == 0, is_enough, "{kibibytes}: {usage}");
    }
}

/// An instance reserves all addresses that it could use, and fewer where the address space is
/// small.
#[test]
fn balancers_run_in_a_small_address_space() {
    let (gateway, backends) = with_backends(Setup::new());
    gateway.upload("first", guest("first")).expect(201);
    use_balancer(&gateway, "first");
    gateway.backend_of("/");
    let data_dir = gateway.data_dir.clone();
    let _folder = gateway.kill();
    // Components have to be compiled again, because the code depends on how addresses are reserved.
    let gateway = Setup::with_data(&data_dir).address_space(8 << 20).start();
    for algorithm in ["first", "round-robin"] {
        use_balancer(&gateway, algorithm);
        for _ in 0..backends.len() {
            gateway.backend_of("/");
        }
        let shown = gateway.admin("GET", &format!("/balancers/{algorithm}"), &[]);
        let usage = &shown.expect(200).json()["usage"]["u"];
        assert_eq!(usage["host_choices"], 0, "{algorithm}: {usage}");
        assert_eq!(usage["picks"], backends.len(), "{algorithm}: {usage}");
    }
    gateway.upload("heavy", guest("heavy")).expect(201);
}

#[test]
fn a_component_of_another_media_type_is_told_how_to_be_sent() {
    let gateway = Gateway::start();
    for media_type in [
        "application/x-www-form-urlencoded",
        "application/octet-stream",
    ] {
        let body = (media_type, guest("first"));
        let refused = gateway.send(gateway.admin, "POST", "/balancers?name=x", &[], Some(body));
        let said = refused.expect(415).text();
        assert!(said.contains("application/wasm"), "{said}");
    }
}

#[test]
fn balancers_of_one_component_have_their_own_names_and_log_lines() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let (gateway, _backends) = with_backends(Setup::new().arg("--debug-token", TOKEN));
    for name in ["one", "two"] {
        gateway.upload(name, guest("prints")).expect(201);
    }
    let lines = |name: &str| {
        let logs = gateway.admin("GET", &format!("/balancers/{name}/logs"), &[]);
        let logs = logs.expect(200).json();
        logs["data"].as_array().unwrap().len()
    };
    let asked = || {
        let token = [("pointsman-debug", TOKEN)];
        let answer = gateway.get_with("/", &token).expect(200);
        let told = answer.header("pointsman-debug-try").to_owned();
        let (_, name) = told.split_once("balancer=\"").unwrap();
        name.split('"').next().unwrap().to_owned()
    };
    use_balancer(&gateway, "two");
    assert_eq!(asked(), "two");
    assert_eq!((lines("one"), lines("two")), (0, 2));
    // A balancer gets another name when it is uploaded under that name and the old one is deleted.
    use_balancer(&gateway, "one");
    assert_eq!(asked(), "one");
    gateway.admin("DELETE", "/balancers/two", &[]).expect(204);
    assert_eq!(asked(), "one");
    assert_eq!(lines("one"), 4);
    let usage = gateway.admin("GET", "/balancers/one", &[]).expect(200);
    // The instance is the same, since the component and the settings are.
    assert_eq!(usage.json()["usage"]["u"]["picks"], 3);
}

#[test]
fn compilation_is_bounded_in_time_and_memory() {
    // A component with more code than can be compiled in a second.
    let gateway = Setup::new()
        .arg("--balancer-compile-timeout", 1)
        .arg("--balancer-upload", 16_384)
        .start();
    let refused = gateway.upload("x", long_component()).expect(400);
    let said = refused.text();
    assert!(said.contains("did not compile within 1 s"), "{said}");
    gateway.admin("GET", "/status", &[]).expect(200);
    // An input that is larger than the memory that the compiler may use.
    let compiler = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["compile-worker", "600", "little"])
        .stdin(std::fs::File::open("/dev/zero").unwrap())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!compiler.success());
}

/// A component whose one module has many functions of many additions.
pub(crate) fn long_component() -> Vec<u8> {
    fn number(mut n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while n > 0x7f {
            bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        bytes.push(n as u8);
        bytes
    }
    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        [&[id], &*number(content.len()), content].concat()
    }
    const FUNCTIONS: usize = 2000;
    // No locals; 1, then each value doubled and added to: `i32.const 1`, `local.get 0`, `i32.mul`,
    // ...
    let mut body = vec![0, 0x41, 1];
    for _ in 0..1000 {
        // local.get 0, i32.mul, local.get 0, i32.xor
        body.extend([0x20, 0, 0x6c, 0x20, 0, 0x73]);
    }
    body.push(0x0b);
    let body = [&*number(body.len()), &*body].concat();
    let module = [
        &b"\0asm\x01\0\0\0"[..],
        // One type: i32 -> i32.
        &section(1, &[1, 0x60, 1, 0x7f, 1, 0x7f]),
        &section(3, &[&*number(FUNCTIONS), &[0; FUNCTIONS]].concat()),
        &section(
            10,
            &[&*number(FUNCTIONS), &*body.repeat(FUNCTIONS)].concat(),
        ),
    ]
    .concat();
    [&b"\0asm\x0d\0\x01\0"[..], &section(1, &module)].concat()
}
