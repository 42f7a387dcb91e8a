//! Figures of targets' own metrics that the gateway reads for balancers.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, RawServer, Setup, guest, health, patch_upstream, until};
use crate::record::replayed_bytes;
use crate::reported::{facts, last_seen};

/// What is read of the metrics of servers, as the guest `reported` names it.
fn reading(more: &Value) -> Value {
    let mut reports = json!({
        "path": "/probe/metrics",
        "interval": 1,
        "metrics": [{"name": "vllm:gpu_cache_usage_perc", "labels": {"model_name": "m"}, "as": "cache_use"}],
    });
    let fields = reports.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    json!({"algorithm": "reported", "pointsman": {"reports": reports}})
}

/// The metrics of a server that is so full.
fn metrics(use_of_cache: f64) -> String {
    format!(
        "# HELP vllm:gpu_cache_usage_perc GPU KV-cache usage.\n# TYPE vllm:gpu_cache_usage_perc gauge\n\
         vllm:gpu_cache_usage_perc{{engine=\"0\",model_name=\"m\"}} {use_of_cache}\n\
         vllm:gpu_cache_usage_perc{{engine=\"0\",model_name=\"n\"}} 7.0\n\
         vllm:num_requests_waiting{{engine=\"0\",model_name=\"m\"}} 2.0\n\
         vllm:num_requests_waiting{{engine=\"1\",model_name=\"m\"}} 3.0\n"
    )
}

fn with_backends(setup: Setup) -> (Gateway, [Backend; 2]) {
    let gateway = setup.start();
    let backends = ["a", "b"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    gateway.upload("reported", guest("reported")).expect(201);
    (gateway, backends)
}

fn value(gateway: &Gateway, backend: &Backend, name: &str) -> Value {
    facts(gateway, backend)[name]["value"].clone()
}

/// What is shown of the reading of a target's reports.
fn reads(gateway: &Gateway, backend: &Backend) -> Value {
    health(gateway, backend.address).1["pointsman"]["reports"].clone()
}

#[test]
fn a_balancer_reads_figures_of_targets_own_metrics() {
    let (gateway, backends) = with_backends(Setup::new());
    assert_eq!(reads(&gateway, &backends[0]), Value::Null);
    backends[0].respond_at("/probe/metrics", &metrics(0.75));
    backends[1].respond_at("/probe/metrics", &metrics(0.25));
    patch_upstream(&gateway, &reading(&json!({})));
    let url = format!("http://{}/upstreams/u/record?seconds=600", gateway.admin);
    let mut recording = ureq::post(&url).send_empty().unwrap();
    until("both were read", || {
        let known = |backend| !value(&gateway, backend, "cache_use").is_null();
        backends.iter().all(known)
    });
    assert_eq!(value(&gateway, &backends[0], "cache_use"), 0.75);
    assert!((0..10).all(|_| gateway.backend_of("/") == "b"));
    let seen = last_seen(&gateway);
    assert!(
        seen == "[(750, 0), (250, 0)]" || seen == "[(250, 0), (750, 0)]",
        "{seen}"
    );
    let explained = gateway.admin_json("POST", "/upstreams/u/explain", &json!({}));
    let explained = explained.expect(200).text();
    assert!(
        explained.contains(r#""reported":{"cache_use":0.75}"#),
        "{explained}"
    );
    backends[1].respond_at("/probe/metrics", &metrics(0.9));
    until("the change was read", || {
        value(&gateway, &backends[1], "cache_use") == 0.9
    });
    assert!((0..10).all(|_| gateway.backend_of("/") == "a"));
    let request = backends[0].probes().pop().unwrap();
    assert!(
        request.contains("(reports)") && request.contains("version=0.0.4"),
        "{request}"
    );
    assert!(reads(&gateway, &backends[0])["read_at"].as_f64() > Some(1.7e9));
    assert_eq!(reads(&gateway, &backends[0])["failures"], 0);

    // Samples are added up, or what the setting says; a name may be that of the metric.
    let more = json!({"metrics": [
        {"name": "vllm:num_requests_waiting"},
        {"name": "vllm:num_requests_waiting", "aggregation": "max", "as": "longest"},
    ]});
    patch_upstream(&gateway, &reading(&more));
    let waiting = || value(&gateway, &backends[0], "vllm:num_requests_waiting");
    until("the other metrics were read", || waiting() == 5.0);
    assert_eq!(value(&gateway, &backends[0], "longest"), 3.0);

    patch_upstream(
        &gateway,
        &json!({"algorithm": "random", "pointsman": {"reports": null}}),
    );
    until("nothing is shown of reads that have ended", || {
        reads(&gateway, &backends[0]).is_null()
    });
    let trace = recording.body_mut().read_to_vec().unwrap();
    let document = replayed_bytes(&trace, &["-b", "random"]);
    let rerun = &document["replayed"];
    assert_eq!(
        (&rerun["asked"], &rerun["same"]),
        (&json!(20), &json!(20)),
        "{rerun}"
    );
}

#[test]
fn a_connection_is_kept_only_for_a_read_that_is_near() {
    let gateway = Gateway::start();
    let target = Backend::start("target");
    target.respond_at("/probe/metrics", &metrics(0.5));
    gateway.balanced(&[(target.address, 100)]);
    gateway.upload("reported", guest("reported")).expect(201);
    patch_upstream(&gateway, &reading(&json!({})));
    until("it was read several times", || target.probes().len() >= 3);
    assert_eq!(target.connections(), 1);
    let asks_to_close = || {
        let last = target.probes().pop().unwrap();
        last.contains(r#""connection": "close""#)
    };
    assert!(!asks_to_close());
    patch_upstream(&gateway, &reading(&json!({"interval": 31})));
    until("its connection is closed after each read", asks_to_close);
}

#[test]
fn a_value_stays_for_a_while_when_a_target_cannot_be_read() {
    let (gateway, backends) = with_backends(Setup::new().arg("--log", "info"));
    backends[0].respond_at("/probe/metrics", &metrics(0.75));
    backends[1].respond_at("/probe/metrics", &metrics(0.5));
    patch_upstream(&gateway, &reading(&json!({})));
    until("both were read", || {
        let known = |backend| !value(&gateway, backend, "cache_use").is_null();
        backends.iter().all(known)
    });
    backends[1].respond_with(503, 0);
    let failures = || reads(&gateway, &backends[1])["failures"].as_u64().unwrap();
    until("several reads have failed", || failures() >= 3);
    assert_eq!(
        reads(&gateway, &backends[1])["last_failure"]["detail"],
        "status 503"
    );
    assert_eq!(value(&gateway, &backends[1], "cache_use"), 0.5);
    assert_eq!(reads(&gateway, &backends[0])["last_failure"], Value::Null);
    let page = gateway.admin("GET", "/metrics", &[]).expect(200).text();
    let failed = |backend: &Backend| {
        let address = backend.address;
        let label = format!("address=\"{address}\"}} ");
        let mut lines = page.lines();
        let line = lines.find(|line| {
            line.starts_with("pointsman_endpoint_report_failures_total{") && line.contains(&label)
        });
        line.unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(failed(&backends[0]), 0, "{page}");
    assert!(failed(&backends[1]) >= 3, "{page}");

    // A shorter age, which is never below two intervals with their timeouts.
    let mut settings = reading(&json!({"timeout": 0.5}));
    settings["pointsman"]["facts_max_age"] = json!(1);
    patch_upstream(&gateway, &settings);
    backends[1].respond_normally();
    until("the target was read again", || {
        facts(&gateway, &backends[1])["cache_use"]["expires_in"]
            .as_f64()
            .is_some_and(|left| left < 3.1)
    });
    // The metric is gone.
    backends[1].respond_at(
        "/probe/metrics",
        "vllm:gpu_cache_usage_perc{model_name=\"n\"} 1\n",
    );
    until("the value is too old", || {
        value(&gateway, &backends[1], "cache_use").is_null()
    });
    let detail = reads(&gateway, &backends[1])["last_failure"]["detail"].clone();
    assert_eq!(detail, "there is no sample of vllm:gpu_cache_usage_perc");
    // The value of the other must not become too old on a busy machine.
    settings["pointsman"]["facts_max_age"] = json!(60);
    patch_upstream(&gateway, &settings);
    until("the other was read for longer", || {
        facts(&gateway, &backends[0])["cache_use"]["expires_in"].as_f64() > Some(30.0)
    });
    assert!((0..4).all(|_| gateway.backend_of("/") == "b"));

    gateway.terminate();
    let (_, log) = gateway.wait();
    let told = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(told("reports cannot be read: status 503"), 1, "{log}");
    assert_eq!(
        told("reports cannot be read: there is no sample"),
        1,
        "{log}"
    );
    assert!(told("reports can be read again") >= 1, "{log}");
}

#[test]
fn a_metric_that_finds_no_name_is_read_once_there_is_one() {
    let gateway = Gateway::start();
    let target = Backend::start("target");
    target.respond_at("/probe/metrics", &metrics(0.5));
    gateway.balanced(&[(target.address, 100)]);
    let others: Vec<_> = (0..8).map(|_| Backend::start("other")).collect();
    for other in &others {
        gateway.add_target("u", other.address, 0);
    }
    let set = |other: &Backend, names: std::ops::Range<usize>, value: &Value| {
        let names = names.map(|n| (format!("{}_{n}", other.address.port()), value.clone()));
        let values: serde_json::Map<_, _> = names.collect();
        let path = format!("/upstreams/u/targets/{}/facts", other.address);
        gateway.admin_json("PATCH", &path, &values.into())
    };
    patch_upstream(&gateway, &json!({"pointsman": {"facts_max_age": 86400}}));
    // All names that a gateway can have in use.
    for other in &others {
        set(other, 0..128, &json!(1)).expect(200);
    }
    set(&target, 0..1, &json!(1)).expect(400);
    let mut settings = reading(&json!({}));
    settings["algorithm"] = json!("random");
    patch_upstream(&gateway, &settings);
    until("the health tells that there is no name", || {
        reads(&gateway, &target)["last_failure"]["detail"]
            == "the gateway has too many names of values in use, so cache_use is not kept"
    });
    set(&others[0], 0..1, &Value::Null).expect(200);
    until("the value is kept", || {
        value(&gateway, &target, "cache_use") == 0.5
    });
}

/// More targets that hang than are read at a time, and enough that a target that waits in one queue
/// with them is read once while all of them are read once.
const HANGING: usize = 60;

#[test]
fn targets_that_hang_do_not_delay_the_others() {
    let gateway = Gateway::start();
    let good = Backend::start("good");
    good.respond_at("/probe/metrics", &metrics(0.5));
    let hanging: Vec<RawServer> = (0..HANGING)
        .map(|_| {
            RawServer::start(|_, mut raw| {
                raw.read_to_end();
            })
        })
        .collect();
    let mut all = vec![(good.address, 100)];
    all.extend(hanging.iter().map(|server| (server.address, 100)));
    gateway.balanced(&all);
    gateway.upload("reported", guest("reported")).expect(201);
    patch_upstream(&gateway, &reading(&json!({"timeout": 0.5})));
    until("each of them has failed", || {
        let page = gateway.admin("GET", "/upstreams/u/health", &[]).expect(200);
        let page = page.json();
        let mut targets = page["data"].as_array().unwrap().iter();
        targets.all(|target| {
            let reports = &target["data"]["addresses"][0]["pointsman"]["reports"];
            reports["read_at"].is_number() || reports["failures"].as_u64() > Some(0)
        })
    });
    let tries = || hanging.iter().map(RawServer::accepted).sum::<u64>();
    let (tries_before, reads_before) = (tries(), good.probes().len());
    until("the good one was read several times", || {
        good.probes().len() >= reads_before + 5
    });
    let tries = tries() - tries_before;
    assert!(tries < 3 * HANGING as u64, "{tries} tries of the others");
    assert_eq!(value(&gateway, &good, "cache_use"), 0.5);
}

#[test]
fn a_target_without_end_does_not_keep_the_others_from_being_read() {
    let gateway = Gateway::start();
    let good = Backend::start("good");
    good.respond_at("/probe/metrics", &metrics(0.5));
    let line = format!("{}\n", "#".repeat(1000));
    let endless = RawServer::start(move |_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\n\r\n");
        while raw.try_send(line.as_bytes()) {}
    });
    let mute = RawServer::start(|_, mut raw| {
        raw.read_to_end();
    });
    let wrong = RawServer::responding_with("HTTP/1.1 200 OK\r\n\r\nvllm:gpu_cache_usage_perc x\n");
    let all = [good.address, endless.address, mute.address, wrong.address];
    gateway.balanced(&all.map(|address| (address, 100)));
    gateway.upload("reported", guest("reported")).expect(201);
    patch_upstream(&gateway, &reading(&json!({"timeout": 5})));
    let detail = |address| {
        let reports = health(&gateway, address).1["pointsman"]["reports"].clone();
        reports["last_failure"]["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    until("the endless text is given up", || {
        detail(endless.address) == "the metrics have more than 4 MiB"
    });
    until("the mute target is given up", || {
        detail(mute.address) == "no answer within 5s"
    });
    until("the malformed sample is found", || {
        detail(wrong.address) == "line 1 of the metrics is not a sample in Prometheus' text format"
    });
    assert_eq!(value(&gateway, &good, "cache_use"), 0.5);
    assert_eq!(detail(good.address), "");
}

#[test]
fn reports_are_read_over_tls_from_another_port() {
    let gateway = Gateway::start();
    let target = Backend::start("plain");
    let (other, authority) = Backend::start_tls("secure", "metrics.test");
    other.respond_at("/probe/metrics", &metrics(0.5));
    gateway.balanced(&[(target.address, 100)]);
    gateway.upload("reported", guest("reported")).expect(201);
    let mut settings = reading(&json!({"port": other.address.port(), "tls": true}));
    settings["pointsman"]["tls"] = json!({"server_name": "metrics.test"});
    settings["healthchecks"] = json!({"active": {"headers": {"authorization": ["Bearer x"]}}});
    patch_upstream(&gateway, &settings);
    let failure = || {
        reads(&gateway, &target)["last_failure"]["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    until("the certificate is refused", || failure().contains("TLS"));
    assert!(other.probes().is_empty());
    settings["pointsman"]["tls"]["ca_certificates"] = json!([authority]);
    patch_upstream(&gateway, &settings);
    until("the target was read", || {
        value(&gateway, &target, "cache_use") == 0.5
    });
    let request = other.probes().pop().unwrap();
    assert!(request.contains("Bearer x"), "{request}");
    assert!(target.probes().is_empty());
    // Without a setting of their own, reports are read as probes are made.
    let more = json!({"port": other.address.port(), "tls": null, "metrics": [
        {"name": "vllm:num_requests_waiting", "as": "waiting"},
    ]});
    let mut settings = reading(&more);
    settings["healthchecks"] = json!({"active": {"type": "https"}});
    patch_upstream(&gateway, &settings);
    until("the target was read as probes are made", || {
        value(&gateway, &target, "waiting") == 5.0
    });
}

#[test]
fn settings_of_reports_that_cannot_be_are_refused() {
    let labels = |count| -> Value {
        let labels = (0..count).map(|n| (format!("label_{n}"), json!("x")));
        labels.collect::<serde_json::Map<_, _>>().into()
    };
    let gateway = Gateway::start();
    gateway.balanced(&[]);
    for (reports, message) in [
        (json!({"path": "metrics"}), "should start with: /"),
        (json!({"path": "/metrics?a b"}), "expected a query"),
        (json!({"interval": 0}), "value should be between 1 and 3600"),
        (json!({"metrics": [{"as": "x"}]}), "required field missing"),
        (
            json!({"metrics": [{"name": "a{b=\"c\"}"}]}),
            "labels are a field of their own",
        ),
        (
            json!({"metrics": [{"name": "a", "labels": {"b c": "d"}}]}),
            "that of a label",
        ),
        (
            json!({"metrics": [{"name": "a", "as": "b c"}]}),
            "printable ASCII characters without spaces",
        ),
        (
            json!({"metrics": [{"name": "a", "aggregation": "mean"}]}),
            "expected one of: sum, min, max, avg",
        ),
        (
            json!({"metrics": [{"name": "a"}, {"name": "b", "as": "a"}]}),
            "two metrics are read as 'a'",
        ),
        (
            json!({"metrics": (0..33).map(|n| json!({"name": format!("a{n}")})).collect::<Vec<_>>()}),
            "at most 32",
        ),
        (
            json!({"metrics": [{"name": "a", "labels": labels(9)}]}),
            "'a' has too many labels: expected at most 8",
        ),
    ] {
        let fields = json!({"pointsman": {"reports": reports}});
        let refused = gateway
            .admin_json("PATCH", "/upstreams/u", &fields)
            .expect(400)
            .text();
        assert!(refused.contains(message), "{refused}");
    }
    let fields =
        json!({"pointsman": {"reports": {"metrics": [{"name": "a", "labels": labels(8)}]}}});
    patch_upstream(&gateway, &fields);
    let reports = json!({"path": "/stats?format=prometheus", "metrics": [{"name": "a"}]});
    let shown = gateway.admin_json(
        "PATCH",
        "/upstreams/u",
        &json!({"pointsman": {"reports": reports}}),
    );
    let shown = shown.expect(200).json();
    let expected = json!({
        "path": "/stats?format=prometheus", "port": null, "tls": null, "interval": 5, "timeout": 1,
        "metrics": [{"name": "a", "labels": null, "as": null, "aggregation": "sum"}],
    });
    assert_eq!(shown["pointsman"]["reports"], expected, "{shown}");
}
