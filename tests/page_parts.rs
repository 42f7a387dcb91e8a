//! Parts of the page: what policies decide, what forms send, and streams.

use serde_json::{Value, json};

use crate::harness::{Browser, Raw, RawServer, until};
use crate::page::{balanced, setup, url};

#[test]
fn explain_shows_what_each_policy_decides() {
    let (gateway, _backends) = balanced(setup());
    for plugin in [
        json!({ "name": "key-auth" }),
        json!({ "name": "rate-limiting", "config": { "minute": 5, "policy": "local" } }),
    ] {
        gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    }
    let browser = Browser::start(1360, 900);
    browser.open(&url(&gateway));
    browser.show("#/explain?method=GET&path=/x");
    browser.wait_for_text(".verdicts", "answers 401: No API key found in request");
    browser.wait_for_text(".verdicts", "not reached");
    let anonymous = json!({ "username": "anyone" });
    gateway
        .admin_json("POST", "/consumers", &anonymous)
        .expect(201);
    let plugins = gateway.admin("GET", "/plugins", &[]).json();
    let plugins = plugins["data"].as_array().unwrap().iter();
    let mut own = plugins.filter(|plugin| plugin["name"] == "key-auth");
    let path = format!("/plugins/{}", own.next().unwrap()["id"].as_str().unwrap());
    let config = json!({ "config": { "anonymous": "anyone" } });
    gateway.admin_json("PATCH", &path, &config).expect(200);
    // The second answer is shown, whether or not the picks of the first have all come.
    browser.click_text("Explain");
    browser.wait_for_text(".verdicts", "passes, as anyone");
    browser.wait_for_text(".verdicts", "not evaluated: it counts requests");
}

#[test]
fn a_form_sends_only_the_fields_of_a_record_that_were_changed() {
    let (gateway, _backends) = balanced(setup());
    let browser = Browser::start(1360, 900);
    browser.open(&url(&gateway));
    browser.show("#/entities/upstreams/u");
    browser.wait_for("input[name=slots]");
    browser.run(
        "window.sent = []; const own = window.fetch;\
         window.fetch = (to, how) => {\
           if (how && how.method === 'PATCH') sent.push(how.body);\
           return own(to, how);\
         };\
         document.querySelectorAll('details').forEach(one => { one.open = true; });",
    );
    browser.fill("input[name=timeout]", "7");
    browser.click_text("Save");
    until("the change is sent", || {
        browser.run("return sent.length;") == json!(1)
    });
    let sent = browser.run("return sent[0];");
    let sent: Value = serde_json::from_str(sent.as_str().unwrap()).unwrap();
    assert_eq!(
        sent,
        json!({ "healthchecks": { "active": { "timeout": 7 } } })
    );
    let row = || gateway.admin("GET", "/upstreams/u", &[]).json();
    until("it is stored", || {
        row()["healthchecks"]["active"]["timeout"] == 7
    });
    // What `balanced` has set is as it was.
    assert_eq!(
        row()["healthchecks"]["passive"]["unhealthy"]["tcp_failures"],
        3
    );
}

#[test]
fn the_overview_shows_streams_once_there_are_any() {
    let (gateway, _backends) = balanced(setup().arg("--stream-listen", "127.0.0.1:0"));
    let server = RawServer::start(|_, mut raw| {
        let line = raw.read_until("\n");
        raw.send(line.as_bytes());
    });
    let service = json!({
        "name": "t", "protocol": "tcp", "host": "127.0.0.1", "port": server.address.port(),
    });
    gateway
        .admin_json("POST", "/services", &service)
        .expect(201);
    let route = json!({
        "name": "a-stream", "protocols": ["tcp"], "sources": [{ "ip": "127.0.0.0/8" }],
    });
    gateway
        .admin_json("POST", "/services/t/routes", &route)
        .expect(201);
    let browser = Browser::start(1360, 900);
    browser.open(&url(&gateway));
    browser.wait_for_text(".state", "Live");
    let hidden = "return document.querySelector('.t-streams').hidden;";
    assert_eq!(browser.run(hidden), json!(true));
    until("the stream is shown", || {
        let mut raw = Raw::connect(gateway.listener("stream", 0));
        raw.send(b"hello\n").read_to_end();
        browser.run(hidden) == json!(false)
    });
    browser.wait_for_text(".t-streams", "a-stream");
    browser.wait_for_text(".t-requests", "TCP to port");
    assert_eq!(browser.problems(), json!([]));
}
