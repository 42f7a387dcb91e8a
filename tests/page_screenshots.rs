//! The screenshots in `docs/page/`, which `scripts/page-screenshots` makes anew.

use std::path::Path;

use serde_json::json;

use crate::harness::{Backend, Browser, Gateway, Load, Setup, until};

/// Targets of the heat map.
const MANY: usize = 1000;

/// Waits until the page has got this many figures.
fn after_events(browser: &Browser, number: u64) {
    browser.run(
        "window.events = 0; new MutationObserver(() => events++)\
         .observe(document.querySelector('.charts'), { subtree: true, attributes: true });",
    );
    for seen in 1..=number {
        until("events", || {
            browser.run("return events;").as_u64() >= Some(seen)
        });
    }
}

fn save(browser: &Browser, name: &str, width: u32, height: u32) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/page");
    std::fs::create_dir_all(&folder).unwrap();
    let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
    browser.devtools("Emulation.setDeviceMetricsOverride", &size);
    let image = browser.screenshot(width, height);
    std::fs::write(folder.join(format!("{name}.png")), image).unwrap();
}

/// An upstream whose targets differ in speed, one of which fails.
fn shop(gateway: &Gateway) -> Vec<Backend> {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let backends: Vec<Backend> = names.into_iter().map(Backend::start).collect();
    let weights = [100, 100, 50, 100, 200, 100, 100, 100];
    let targets: Vec<_> = backends
        .iter()
        .map(|one| one.address)
        .zip(weights)
        .collect();
    gateway.balanced_as("shop", "/shop", &targets[..7]);
    for (number, backend) in backends.iter().enumerate() {
        backend.respond_with(200, 4 + 5 * (number as u64 % 4));
    }
    backends[5].respond_with(500, 3);
    let failover = json!({ "target": targets[7].0.to_string(), "failover": true });
    gateway
        .admin_json("POST", "/upstreams/shop/targets", &failover)
        .expect(201);
    let settings = json!({
        "algorithm": "least-connections",
        "healthchecks": {
            "active": {
                "healthy": { "interval": 2, "successes": 1 },
                "unhealthy": { "interval": 2, "http_failures": 2, "tcp_failures": 2 },
            },
        },
        "pointsman": { "shadow": { "balancer": "p2c" } },
    });
    gateway
        .admin_json("PATCH", "/upstreams/shop", &settings)
        .expect(200);
    backends
}

#[test]
#[ignore = "it writes files of the repository: see scripts/page-screenshots"]
fn screenshots_of_every_screen() {
    let gateway = Setup::new()
        .arg("--admin-gui-listen", "127.0.0.1:0")
        .start();
    let _backends = shop(&gateway);
    gateway
        .admin(
            "POST",
            "/upstreams",
            &[("name", "fleet"), ("algorithm", "p2c")],
        )
        .expect(201);
    // It listens on all addresses of this machine, which has those of 127.0.0.0/8.
    let many = Backend::start_on("m", "0.0.0.0:0".parse().unwrap());
    many.respond_with(200, 2);
    let port = many.address.port();
    for number in 0..MANY {
        // On some, nothing listens.
        let port = if number % 37 == 11 { 9 } else { port };
        let target = format!("127.1.{}.{}:{port}", number / 250, number % 250 + 1);
        let fields = [("target", &*target)];
        let path = "/upstreams/fleet/targets";
        gateway.admin("POST", path, &fields).expect(201);
    }
    let checks = json!({ "passive": { "unhealthy": { "tcp_failures": 1 } } });
    let checks = json!({ "healthchecks": checks });
    gateway
        .admin_json("PATCH", "/upstreams/fleet", &checks)
        .expect(200);
    gateway
        .admin("POST", "/services", &[("name", "fleet"), ("host", "fleet")])
        .expect(201);
    gateway
        .admin("POST", "/services/fleet/routes", &[("paths[]", "/fleet")])
        .expect(201);
    let limits = json!({ "name": "rate-limiting", "config": { "minute": 1_000_000 } });
    gateway
        .admin_json("POST", "/services/shop-service/plugins", &limits)
        .expect(201);
    let loads = [
        Load::start(gateway.proxy, "/shop", 6),
        Load::start(gateway.proxy, "/fleet", 8),
    ];
    let browser = Browser::start(1280, 900);
    let address = gateway.listener("gui", 0);
    browser.open(&format!("http://{address}/"));
    browser.wait_for_text(".state", "Live");
    after_events(&browser, 60);
    save(&browser, "overview", 1280, 900);
    browser.show("#/upstreams/shop");
    browser.wait_for("table.lanes tbody tr");
    after_events(&browser, 60);
    save(&browser, "upstream", 1280, 860);
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.devtools("Emulation.setEmulatedMedia", &dark);
    after_events(&browser, 10);
    save(&browser, "upstream-dark", 1280, 860);
    browser.devtools("Emulation.setEmulatedMedia", &json!({ "features": [] }));
    browser.show("#/upstreams/fleet");
    browser.wait_for("canvas.heat");
    after_events(&browser, 5);
    save(&browser, "heat-map", 1280, 900);
    browser.show("#/balancers?upstream=shop");
    browser.wait_for_text(".shadow-report", "chose the same endpoint");
    save(&browser, "balancers", 1280, 1000);
    browser.show("#/explain?method=GET&host=shop.example&path=/shop/cart&client=192.0.2.7");
    browser.wait_for_text("main", "What other balancers would pick now");
    until("all balancers", || !browser.text("main").contains('…'));
    save(&browser, "explain", 1280, 1080);
    for load in loads {
        load.stop();
    }
    browser.show("#/simulate");
    browser.wait_for("input[type=checkbox]");
    browser.click_text("Simulate");
    browser.wait_for("svg.quantiles");
    save(&browser, "simulate", 1280, 900);
    browser.show("#/entities/upstreams/shop");
    browser.wait_for("form .field");
    browser.run("document.querySelector('details').open = true;");
    save(&browser, "entities", 1280, 900);
    browser.show("#/");
    browser.wait_for_text("main", "shop");
    after_events(&browser, 10);
    save(&browser, "overview-phone", 390, 900);
    assert_eq!(browser.problems(), json!([]));
}
