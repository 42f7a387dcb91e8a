//! Outlier detection: which targets are ejected, and for how long.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Backend, Gateway, Load, health, patch_upstream, until};

#[test]
fn an_outlier_is_ejected_and_returns() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d", "e", "f"].map(Backend::start);
    let targets: Vec<_> = backends.iter().map(|b| (b.address, 1)).collect();
    gateway.balanced(&targets);
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"outlier_detection": {
            "success_rate": true, "interval": 0.3, "request_volume": 10, "base_ejection_time": 1,
        }}}),
    );
    let worst = backends[5].address;
    backends[5].respond_with(500, 0);
    let load = Load::start(gateway.proxy, "/", 4);
    until("the target is ejected", || {
        health(&gateway, worst).1["pointsman"]["ejected"] == true
    });
    backends[5].respond_normally();
    until("the ejection ends", || {
        health(&gateway, worst).1["pointsman"]["ejected"] == false
    });
    load.stop();
}

#[test]
fn an_ejection_stays_with_its_address_and_ends_in_time() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d", "e", "f"].map(Backend::start);
    let targets: Vec<_> = backends.iter().map(|b| (b.address, 1)).collect();
    gateway.balanced(&targets);
    let outliers = json!({
        "success_rate": true, "interval": 0.3, "request_volume": 10, "base_ejection_time": 10,
    });
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"outlier_detection": outliers}}),
    );
    let worst = backends[5].address;
    backends[5].respond_with(500, 0);
    let load = Load::start(gateway.proxy, "/", 4);
    let ejected = || health(&gateway, worst).1["pointsman"]["ejected"] == true;
    until("the target is ejected", ejected);
    load.stop();
    backends[5].respond_normally();
    let path = format!("/upstreams/u/targets/{worst}");
    gateway.admin("DELETE", &path, &[]).expect(204);
    // Longer than the interval of outlier detection, which runs once without the target.
    std::thread::sleep(Duration::from_secs(1));
    gateway.add_target("u", worst, 1);
    assert!(ejected(), "the ejection is kept with the address");
    until("the ejection ends", || !ejected());
}

#[test]
fn slow_targets_are_ejected_up_to_the_maximum_percentage() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d", "e", "f"].map(Backend::start);
    let targets: Vec<_> = backends.iter().map(|b| (b.address, 1)).collect();
    gateway.balanced(&targets);
    backends[0].respond_with(0, 200);
    backends[1].respond_with(0, 400);
    let load = Load::start(gateway.proxy, "/", 4);
    let outliers = |percent: u32| {
        json!({"pointsman": {"outlier_detection": {
            "latency": true, "interval": 1, "request_volume": 3, "base_ejection_time": 60,
            "max_ejection_percent": percent, "latency_factor": 10_000,
        }}})
    };
    let ejected = || -> Vec<bool> {
        let out =
            |backend: &Backend| health(&gateway, backend.address).1["pointsman"]["ejected"] == true;
        backends.iter().map(out).collect()
    };
    patch_upstream(&gateway, &outliers(20));
    // Only the slowest target is ejected, also after more intervals.
    until("a target is ejected", || ejected().contains(&true));
    load.wait_for(100);
    assert_eq!(ejected(), [false, true, false, false, false, false]);
    patch_upstream(&gateway, &outliers(40));
    until("two targets are ejected", || ejected()[..2] == [true, true]);
    assert_eq!(load.stop().failures, [""; 0]);
}
