//! Balancers that ask about bodies beyond their start: what they learn, from how much of a body,
//! and that no byte is lost.

use serde_json::json;

use crate::harness::{Backend, Gateway, Raw, guest, patch_upstream, sha256};
use crate::record::replayed_bytes;

/// A gateway whose balancer picks the position that the member `target` of a body names.
fn with_backends() -> (Gateway, [Backend; 3]) {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    gateway
        .upload("scans-body", guest("scans-body"))
        .expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "scans-body"}));
    (gateway, backends)
}

/// A body whose prompt has so many blocks of 64 bytes, with `target` behind it.
fn asking(blocks: usize, target: usize) -> Vec<u8> {
    let said = r#"\"{["#.repeat(16).repeat(blocks);
    let head = r#"{"model":"m","messages":[{"role":"user","content":""#;
    format!("{head}{said}\"}}],\"target\":{target}}}").into_bytes()
}

/// Sends a body, and returns the backend that received it whole.
fn post(gateway: &Gateway, body: &[u8]) -> String {
    let sent = Some(("application/json", body.to_vec()));
    let answer = gateway.send(gateway.proxy, "POST", "/", &[], sent);
    let answer = answer.expect(200).json();
    assert_eq!(answer["length"], body.len(), "{answer}");
    assert_eq!(answer["sha256"], sha256(body), "{answer}");
    answer["backend"].as_str().unwrap().to_owned()
}

/// The same without a `Content-Length`.
fn post_chunked(gateway: &Gateway, body: &[u8]) -> String {
    let mut request =
        b"POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for piece in body.chunks(7000) {
        request.extend(format!("{:x}\r\n", piece.len()).bytes());
        request.extend_from_slice(piece);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    let answer = Raw::connect(gateway.proxy).send(&request).read_to_end();
    let (head, content) = answer.split_once("\r\n\r\n").unwrap_or_default();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let content: serde_json::Value = serde_json::from_str(content).unwrap();
    assert_eq!(content["sha256"], sha256(body), "{answer}");
    content["backend"].as_str().unwrap().to_owned()
}

/// The words of the last log line: the number of the try, the lengths of body and prompt, the
/// number of hashes and the last one, and two members.
fn last_seen(gateway: &Gateway) -> Vec<String> {
    let logs = gateway.admin("GET", "/balancers/scans-body/logs", &[]);
    let logs = logs.expect(200).json();
    let lines = logs["data"].as_array().unwrap();
    let line = lines.last().unwrap()["message"].as_str().unwrap();
    line.replace(", ", ",")
        .split(' ')
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_balancer_learns_what_is_behind_a_long_prompt() {
    let (gateway, _backends) = with_backends();
    let url = format!(
        "http://{}/upstreams/u/record?seconds=600&facts=true",
        gateway.admin
    );
    let mut recording = ureq::post(&url).send_empty().unwrap();
    let places = [0, 1, 2].map(|target| post(&gateway, &asking(1, target)));
    assert!(
        places[0] != places[1] && places[1] != places[2],
        "{places:?}"
    );
    // Beyond the part that is buffered for any balancer.
    for (blocks, target) in [(1600, 2), (3200, 1), (0, 2), (3200, 0)] {
        let body = asking(blocks, target);
        assert_eq!(post(&gateway, &body), places[target]);
        let (length, prompt) = (
            body.len(),
            blocks * 64 + r#"{"role":"user","content":""}"#.len(),
        );
        let seen = last_seen(&gateway);
        let expected = format!(
            "Some(({length},false)) Some(({prompt},false)) Some({})",
            prompt / 64
        );
        assert_eq!(seen[1..4].join(" "), expected);
        assert_eq!(
            seen[5..].join(" "),
            format!("Some(\"use\") Some(\"{target}\")")
        );
        // Without a length, the end of a body is known once it was read.
        assert_eq!(post_chunked(&gateway, &body), places[target]);
        assert_eq!(last_seen(&gateway), seen);
    }
    // Other bodies, and none.
    assert_eq!(post(&gateway, b"target=1"), places[0]);
    assert_eq!(
        last_seen(&gateway).join(" "),
        "0 Some((8,false)) None None 0 None None"
    );
    assert_eq!(gateway.backend_of("/"), places[0]);
    assert_eq!(
        last_seen(&gateway).join(" "),
        "0 None None None 0 None None"
    );
    let usage = gateway
        .admin("GET", "/balancers/scans-body", &[])
        .expect(200)
        .json();
    assert_eq!(usage["usage"]["u"]["host_choices"], 0, "{usage}");

    // A replay gets the same answers without the bodies.
    patch_upstream(&gateway, &json!({"algorithm": "round-robin"}));
    let trace = recording.body_mut().read_to_vec().unwrap();
    assert!(trace.starts_with(b"PMTRACE3"));
    let said = r#"\"{["#.repeat(4);
    assert!(
        !trace
            .windows(said.len())
            .any(|part| part == said.as_bytes())
    );
    let document = replayed_bytes(&trace, &["-b", "token-load"]);
    let rerun = &document["replayed"];
    assert_eq!(
        (&rerun["asked"], &rerun["same"]),
        (&json!(13), &json!(13)),
        "{rerun}"
    );
}

#[test]
fn an_upstream_says_how_much_of_a_body_is_read() {
    let (gateway, backends) = with_backends();
    let sized = |kib: u32| {
        let fields = json!({"pointsman": {"balancer_body_size": kib}});
        gateway.admin_json("PATCH", "/upstreams/u", &fields)
    };
    for wrong in [15, 1025] {
        let refused = sized(wrong).expect(400).json();
        let said = refused["fields"]["pointsman"]["balancer_body_size"].to_string();
        assert!(said.contains("16") && said.contains("1024"), "{refused}");
    }
    let places = [0, 1, 2].map(|target| post(&gateway, &asking(1, target)));
    let seen = |kib: u32, blocks: usize, target: usize| {
        sized(kib).expect(200);
        let place = post(&gateway, &asking(blocks, target));
        let seen = last_seen(&gateway);
        assert_eq!(place, post_chunked(&gateway, &asking(blocks, target)));
        assert_eq!(last_seen(&gateway), seen);
        (
            places.iter().position(|known| *known == place),
            seen[1..4].join(" "),
        )
    };
    let head = r#"{"model":"m","messages":["#.len();
    for kib in [16, 256] {
        let (known, prompt) = (kib * 1024, kib * 1024 - head);
        let expected = format!(
            "Some(({known},true)) Some(({prompt},true)) Some({})",
            prompt / 64
        );
        assert_eq!(seen(kib as u32, 8000, 2), (Some(0), expected));
    }
    let (target, lengths) = seen(1024, 8000, 2);
    assert_eq!(target, Some(2));
    assert!(!lengths.contains("true"), "{lengths}");

    // A retry sends all of it, and its pick learns the same.
    let retry = json!({"retries": 1, "pointsman": {"retry": {"statuses": [503]}}});
    gateway
        .admin_json("PATCH", "/services/u-service", &retry)
        .expect(200);
    let failing = backends
        .iter()
        .zip(["a", "b", "c"])
        .find(|(_, name)| *name == places[1]);
    failing.unwrap().0.respond_with(503, 0);
    let body = asking(900, 1);
    let sent = Some(("application/json", body.clone()));
    let answer = gateway
        .send(gateway.proxy, "PUT", "/", &[], sent)
        .expect(200);
    assert_eq!(answer.json()["sha256"], sha256(&body));
    let seen = last_seen(&gateway);
    assert_eq!((&*seen[0], &*seen[6]), ("1", "Some(\"1\")"));
}
