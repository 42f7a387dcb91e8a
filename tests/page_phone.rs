//! The page on a phone: nothing is beside the screen.

use serde_json::json;

use crate::harness::Browser;
use crate::page::{balanced, setup, url};

/// Columns of the screen.
const WIDTH: u64 = 390;

#[test]
fn every_screen_fits_a_phone() {
    let (gateway, _backends) = balanced(setup());
    for name in ["one", "two"] {
        let name = format!("a-service-with-a-name-that-is-rather-long-{name}");
        let service = json!({ "name": name, "host": "u" });
        gateway
            .admin_json("POST", "/services", &service)
            .expect(201);
    }
    let browser = Browser::start(800, 900);
    let metrics = json!({
        "width": WIDTH, "height": 844, "deviceScaleFactor": 1, "mobile": true,
    });
    browser.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    browser.open(&url(&gateway));
    for (hash, content) in [
        ("#/", "Requests/s"),
        ("#/upstreams", "round-robin"),
        ("#/upstreams/u", "127.0.0.1"),
        ("#/balancers", "least-connections"),
        ("#/balancers/p2c", "Versions"),
        ("#/explain?method=GET&path=/x", "picks 127.0.0.1"),
        ("#/simulate", "least-connections"),
        ("#/entities", "a-service-with-a-name"),
        ("#/entities/routes", "u-service"),
        ("#/entities/upstreams/u", "healthchecks"),
    ] {
        browser.show(hash);
        browser.wait_for_text("main", content);
        // A phone widens the page to what sticks out.
        let width = || browser.run("return document.documentElement.scrollWidth;");
        assert_eq!(width(), json!(WIDTH), "{hash}");
        let links = browser.run(
            "return [...document.querySelectorAll('header nav a')]\
             .map(link => link.getBoundingClientRect())\
             .every(at => at.left >= 0 && at.right <= innerWidth && at.width > 0);",
        );
        assert_eq!(links, json!(true), "{hash}");
    }
    assert_eq!(browser.problems(), json!([]));
}
