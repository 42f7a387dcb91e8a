//! The page for operators: its screens in a real browser.

use std::path::Path;

use serde_json::json;

use crate::harness::{Backend, Browser, Gateway, Load, Reply, Setup, patch_upstream, until};

/// The token `one`, as an entry of `admin_tokens`.
pub(crate) const TOKENS: &str =
    "ci:read-write:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";

pub(crate) fn setup() -> Setup {
    Setup::new().arg("--admin-gui-listen", "127.0.0.1:0")
}

pub(crate) fn ask(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    gateway.send(gateway.listener("gui", 0), method, path, headers, None)
}

pub(crate) fn url(gateway: &Gateway) -> String {
    format!("http://{}/", gateway.listener("gui", 0))
}

/// A gateway whose upstream `u` has three targets.
pub(crate) fn balanced(setup: Setup) -> (Gateway, [Backend; 3]) {
    let gateway = setup.start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|one| (one.address, 100)));
    patch_upstream(
        &gateway,
        &json!({ "healthchecks": { "passive": { "unhealthy": { "tcp_failures": 3 } } } }),
    );
    (gateway, backends)
}

fn open(gateway: &Gateway, hash: &str) -> Browser {
    let browser = Browser::start(1360, 900);
    browser.open(&url(gateway));
    browser.show(hash);
    browser
}

#[test]
fn a_read_only_token_explains_and_does_not_simulate() {
    let reader = TOKENS.replace("read-write", "read-only");
    let gateway = setup().arg("--admin-tokens", reader).start();
    let token = ("authorization", "Bearer one");
    let gui = gateway.listener("gui", 0);
    let send = |method: &str, path: &str| {
        let body = (method == "POST").then(|| ("application/json", b"{}".to_vec()));
        gateway.send(gui, method, path, &[token], body)
    };
    assert_eq!(
        send("POST", "/api/pointsman/explain").expect(200).json()["routes"],
        0
    );
    send("POST", "/api/upstreams/absent/explain").expect(404);
    send("POST", "/api/pointsman/simulate").expect(403);
    let shipped = send("GET", "/api/pointsman/simulate").expect(200).json();
    assert_eq!(shipped["admitted"], false);
    let browser = open(&gateway, "#/simulate");
    browser.fill("dialog input[type=password]", "one");
    browser.click_text("Use");
    browser.wait_for_text("main", "Your token is read-only");
}

#[test]
fn every_screen_has_its_content_and_no_error() {
    let (gateway, _backends) = balanced(setup());
    let load = Load::start(gateway.proxy, "/", 2);
    let browser = open(&gateway, "#/");
    browser.wait_for_text("h1", "Overview");
    browser.wait_for_text(".state", "Live");
    browser.wait_for_text("main", "u-service");
    for (hash, content) in [
        ("#/upstreams", "round-robin"),
        ("#/upstreams/u", "127.0.0.1"),
        ("#/balancers", "least-connections"),
        ("#/balancers/p2c", "Versions"),
        ("#/explain?method=GET&path=/x", "picks 127.0.0.1"),
        ("#/simulate", "least-connections"),
        ("#/entities", "u-service"),
        ("#/entities/upstreams/u", "healthchecks"),
        ("#/entities/plugins", "None"),
        ("#/upstreams/absent", "There is no upstream absent"),
        ("#/balancers/absent", "There is no balancer absent"),
        ("#/entities/services/absent", "There is no service absent"),
        ("#/%", "Overview"),
        ("#/balancers/..", "There is no balancer .."),
        ("#/entities/services/.", "There is no service ."),
    ] {
        browser.show(hash);
        browser.wait_for_text("main", content);
    }
    assert_eq!(browser.problems(), json!([]));
    load.stop();
}

#[test]
fn an_upstream_is_shown_live_and_a_target_is_set_by_hand() {
    let (gateway, backends) = balanced(setup());
    let load = Load::start(gateway.proxy, "/", 2);
    let browser = open(&gateway, "#/upstreams/u");
    let name = backends[0].address.to_string();
    let lane = format!(
        "const row = [...document.querySelectorAll('.lanes tbody tr')].find(r => r.innerText.includes({})); \
         return row ? row.innerText : '';",
        json!(name)
    );
    let lane = || browser.run(&lane).as_str().unwrap_or_default().to_owned();
    until("picks of the target", || {
        lane().contains("33 % / 33 %") || lane().contains("34 % / 33 %")
    });
    // Figures change in place: nothing is moved.
    browser.run(
        "window.shifts = 0; window.events = 0;\
         new PerformanceObserver(list => list.getEntries().forEach(one => { shifts += one.value; }))\
         .observe({ type: 'layout-shift' });\
         new MutationObserver(() => events++)\
         .observe(document.querySelector('.charts'), { subtree: true, attributes: true });",
    );
    until("events", || {
        browser.run("return events;").as_u64() >= Some(5)
    });
    assert!(browser.run("return shifts;").as_f64() < Some(0.001));
    let button = format!("button[aria-label^='{name}']");
    browser.click(&button);
    browser.wait_for_text("dialog", "Last probe");
    browser.click_text("Set unhealthy");
    browser.wait_for_text("dialog:last-of-type", "gets no further requests");
    browser.run("[...document.querySelectorAll('dialog:last-of-type button')].at(-1).click();");
    until("the target is out", || lane().contains("by an operator"));
    browser.run("document.querySelectorAll('dialog').forEach(one => one.close());");
    browser.undo("is set to unhealthy");
    until("the target is back", || !lane().contains("by an operator"));
    // The heat map, by keys.
    browser.click_text("Heat map");
    browser.click("canvas.heat");
    browser.run("document.querySelector('dialog[open]')?.close();");
    browser.press("canvas.heat", "\u{e014}");
    browser.wait_for_text(".detail", "of the picks");
    assert_eq!(browser.problems(), json!([]));
    load.stop();
}

#[test]
fn entities_are_created_changed_deleted_and_restored() {
    let gateway = setup().start();
    let browser = open(&gateway, "#/entities/services/+");
    browser.fill("input[name=name]", "shop");
    browser.click_text("Create");
    browser.wait_for_text(".field .error:not([hidden])", "required field missing");
    browser.fill("input[name=host]", "shop.example");
    browser.fill("input[name=port]", "70000");
    browser.click_text("Create");
    browser.wait_for_text(
        ".field .error:not([hidden])",
        "value should be between 0 and 65535",
    );
    browser.fill("input[name=port]", "8080");
    browser.click_text("Create");
    browser.wait_for_text("tbody", "shop.example");
    let stored = || gateway.admin("GET", "/services/shop", &[]);
    assert_eq!(stored().expect(200).json()["port"], 8080);

    browser.click_text("shop");
    browser.fill("input[name=host]", "other.example");
    browser.click_text("Save");
    until("the change", || stored().json()["host"] == "other.example");
    browser.undo("is changed");
    until("the change is taken back", || {
        stored().json()["host"] == "shop.example"
    });

    browser.show("#/entities/services");
    browser.fill("input[type=search]", "nothing like it");
    browser.wait_for_text("main", "None.");
    browser.fill("input[type=search]", "SHOP");
    browser.click("button[aria-label='Delete shop']");
    browser.click("dialog[open] button.danger");
    until("the deletion", || stored().status == 404);
    browser.undo("is deleted");
    until("the deletion is taken back", || stored().status == 200);
    assert_eq!(stored().json()["port"], 8080);

    // Another client's change is not undone.
    browser.show("#/entities/services/shop");
    browser.wait_for("input[name=host]");
    gateway
        .admin("PATCH", "/services/shop", &[("retries", "3")])
        .expect(200);
    browser.fill("input[name=host]", "late.example");
    browser.click_text("Save");
    browser.wait_for("main .problem:not([hidden])");
    assert_eq!(stored().json()["host"], "shop.example");

    // A plugin's fields are those of its name.
    browser.show("#/entities/plugins/+");
    browser.click_text("rate-limiting");
    browser.click(".record summary");
    browser.fill("input[name=minute]", "5");
    browser.click_text("Create");
    browser.wait_for_text("tbody", "rate-limiting");
    let plugins = gateway.admin("GET", "/plugins", &[]).json();
    assert_eq!(plugins["data"][0]["config"]["minute"], 5);
    assert_eq!(browser.problems(), json!([]));
}

#[test]
fn an_undo_keeps_passwords_and_changes_of_others() {
    let gateway = setup().start();
    gateway
        .admin("POST", "/consumers", &[("username", "ann")])
        .expect(201);
    let fields = [("username", "ann"), ("password", "secret")];
    let made = gateway.admin("POST", "/consumers/ann/basic-auth", &fields);
    let made = made.expect(201).json();
    let id = made["id"].as_str().unwrap();
    let stored = || gateway.admin("GET", &format!("/basic-auths/{id}"), &[]);
    let browser = open(&gateway, &format!("#/entities/basic-auths/{id}"));
    browser.fill("input[name=username]", "anna");
    browser.click_text("Save");
    until("the change", || stored().json()["username"] == "anna");
    browser.undo("anna is changed");
    until("the change is taken back", || {
        stored().json()["username"] == "ann"
    });
    assert_eq!(stored().json()["password"], made["password"]);
    browser.fill("input[name=password]", "other");
    browser.click_text("Save");
    browser.wait_for_text(".notices", "only a hash of the old password");
    browser.click_text("Delete");
    browser.wait_for_text("dialog[open]", "cannot be taken back");
    browser.click("dialog[open] button.danger");
    until("the deletion", || stored().status == 404);

    let fields = [("name", "shop"), ("host", "shop.example")];
    gateway.admin("POST", "/services", &fields).expect(201);
    let stored = || gateway.admin("GET", "/services/shop", &[]).json();
    browser.show("#/entities/services/shop");
    browser.fill("input[name=host]", "other.example");
    browser.click_text("Save");
    until("the change", || stored()["host"] == "other.example");
    gateway
        .admin("PATCH", "/services/shop", &[("host", "theirs.example")])
        .expect(200);
    browser.undo("shop is changed");
    browser.wait_for_text(".notices", "another client has changed the same");
    assert_eq!(stored()["host"], "theirs.example");
    assert_eq!(browser.problems(), json!([]));
}

#[test]
fn a_form_says_what_other_clients_did_and_its_dialogs_close_with_it() {
    let gateway = setup().start();
    let fields = [("name", "shop"), ("host", "shop.example")];
    gateway.admin("POST", "/services", &fields).expect(201);
    let browser = open(&gateway, "#/entities/services/shop");
    browser.fill("input[name=host]", "other.example");
    gateway
        .admin("PATCH", "/services/shop", &[("retries", "1")])
        .expect(200);
    browser.click_text("Save");
    browser.wait_for_text("main [role=alert]", "Another client has changed it");
    gateway.admin("DELETE", "/services/shop", &[]).expect(204);
    browser.click_text("Save");
    browser.wait_for_text("main [role=alert]", "It does not exist any more.");
    browser.show("#/entities/plugins");
    browser.click_text("New plugin");
    browser.wait_for_text("dialog[open]", "key-auth");
    browser.show("#/explain");
    browser.wait_for_text("h1", "Explain");
    until("the dialog is closed", || {
        browser.run(
            "return document.querySelector('dialog') === null && location.hash === '#/explain';",
        ) == json!(true)
    });
    assert_eq!(browser.problems(), json!([]));
}

#[test]
fn a_balancer_is_uploaded_promoted_tried_and_rolled_back() {
    let (gateway, _backends) = balanced(setup());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/prebuilt");
    let component = |name: &str| root.join(format!("{name}.wasm")).canonicalize().unwrap();
    let browser = open(&gateway, "#/balancers");
    browser.fill("input[placeholder='name of the balancer']", "mine");
    browser.choose_file(
        "input[type=file]",
        &root.join("../../README.md").canonicalize().unwrap(),
    );
    browser.wait_for_text(".report", "is refused");
    browser.choose_file("input[type=file]", &component("random"));
    browser.wait_for_text(".report", "exports pointsman:balancer/policy");
    patch_upstream(&gateway, &json!({ "algorithm": "mine" }));
    browser.show("#/balancers/mine");
    browser.wait_for_text("main", "New version");
    browser.choose_file("input[type=file]", &component("p2c"));
    browser.wait_for_text("main", "ready");
    browser.click_text("Canary");
    browser.fill("dialog input[name=share_percent]", "500");
    browser.click_text("Start");
    browser.wait_for_text("dialog .error:not([hidden])", "between 0 and 100");
    browser.fill("dialog input[name=share_percent]", "50");
    browser.click_text("Start");
    let load = Load::start(gateway.proxy, "/", 2);
    browser.wait_for_text("main", "50 % of the picks");
    browser.wait_for_text("main", "Requests until it is judged");
    browser.click_text("End the canary");
    browser.wait_for_text("main", "ended");
    let digest = || gateway.admin("GET", "/balancers/mine", &[]).json()["digest"].clone();
    let first = digest();
    browser.click_text("Promote");
    until("the promotion", || digest() != first);
    browser.click_text("Roll back");
    until("the rollback", || digest() == first);

    browser.show("#/balancers?upstream=u");
    browser.wait_for_text(".shadow-report", "no shadow");
    browser.click_text("Start");
    browser.wait_for_text(".shadow-report", "chose the same endpoint");
    browser.click_text("End the shadow");
    browser.wait_for_text(".shadow-report", "no shadow");
    assert_eq!(browser.problems(), json!([]));
    load.stop();
}

#[test]
fn a_request_is_explained_and_balancers_are_simulated() {
    let (gateway, _backends) = balanced(setup());
    let other = [("paths[]", "/other"), ("methods[]", "PUT")];
    gateway
        .admin("POST", "/services/u-service/routes", &other)
        .expect(201);
    let browser = open(&gateway, "#/explain");
    browser.click_text("Explain");
    browser.wait_for_text("main", "not satisfied: methods, paths");
    browser.wait_for_text("main", "round-robin picks 127.0.0.1");
    until("what others would pick", || {
        !browser.text("main").contains('…')
    });
    browser.show("#/simulate");
    browser.wait_for("input[type=checkbox]");
    browser.run("document.querySelector('details').open = true;");
    let short = "description = \"x\"\nload = [{ seconds = 5, level = 0.5 }]\n[requests]\ncost = { distribution = \"constant\", mean = 20 }\n[[targets]]\ncount = 3\n";
    browser.run(&format!(
        "document.querySelector('textarea').value = {};",
        json!(short)
    ));
    browser.click_text("Simulate");
    browser.wait_for_text("main", "Jain's index");
    browser.wait_for("svg.quantiles");
    browser.run("document.querySelector('textarea').value = 'x';");
    browser.click_text("Simulate");
    browser.wait_for_text("main .problem", "is not a scenario");
    assert_eq!(browser.problems(), json!([]));
}

#[test]
fn the_page_asks_for_a_token_and_connects_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = setup()
        .data_dir(folder.path())
        .arg("--admin-tokens", TOKENS)
        .start();
    let address = gateway.listener("gui", 0);
    let browser = open(&gateway, "#/");
    browser.fill("dialog input[type=password]", "wrong");
    browser.click_text("Use");
    browser.wait_for_text("dialog", "not known");
    // A browser sends no header with such a character.
    browser.fill("dialog input[type=password]", "one\u{200b}");
    browser.click_text("Use");
    browser.wait_for_text("dialog", "a character that no token has");
    browser.fill("dialog input[type=password]", "one");
    browser.click_text("Use");
    browser.wait_for_text(".state", "Live");
    gateway.terminate();
    gateway.wait();
    browser.wait_for_text(".state", "Reconnecting");
    let gateway = Setup::new()
        .data_dir(folder.path())
        .arg("--admin-gui-listen", address)
        .arg("--admin-tokens", TOKENS)
        .start();
    browser.wait_for_text(".state", "Live");
    assert_eq!(browser.problems(), json!([]));
    drop(gateway);
}

/// Sixty seconds of figures of a thousand targets: their number of nodes stays, and the memory of
/// scripts after a collection of garbage grows by less than a tenth and two megabytes.
#[test]
fn a_thousand_targets_take_no_more_memory_after_a_minute() {
    let gateway = setup().start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    for number in 0..1000 {
        let target = format!("127.1.{}.{}:9", number / 250, number % 250 + 1);
        let path = "/upstreams/u/targets";
        gateway
            .admin("POST", path, &[("target", &target)])
            .expect(201);
    }
    let browser = open(&gateway, "#/upstreams/u");
    browser.wait_for("canvas.heat[aria-label^='1000 targets']");
    // All that an event changes is one record of the observer.
    browser.run(
        "window.events = 0; new MutationObserver(() => events++)\
         .observe(document.querySelector('.charts'), { subtree: true, attributes: true });",
    );
    let mut seen = 0;
    let mut after_events = |number: u64| {
        for _ in 0..number / 10 {
            seen += 10;
            until("events", || {
                browser.run("return events;").as_u64() >= Some(seen)
            });
        }
        browser.run(
            "gc(); gc(); return [performance.memory.usedJSHeapSize, document.querySelectorAll('*').length];",
        )
    };
    let before = after_events(10);
    let after = after_events(60);
    assert_eq!(before[1], after[1]);
    let [before, after] = [before, after].map(|seen| seen[0].as_f64().unwrap());
    assert!(after < before * 1.1 + 2e6, "{before} bytes, then {after}");
    assert_eq!(browser.problems(), json!([]));
}
