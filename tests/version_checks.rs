//! Checks of uploaded versions: after the answer, after a restart, and of signatures.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign::KeyPair;

use crate::harness::{Setup, guest};
use crate::versions::{
    checked, get, pin, promote, states, upload, upload_with, version, with_mine,
};

#[test]
fn a_check_can_run_after_the_answer() {
    let (gateway, _backend) = with_mine(Setup::new());
    let prefer = &[("prefer", "respond-async")];
    let accepted = upload_with(&gateway, prefer, guest("clock")).expect(202);
    assert_eq!(accepted.header("preference-applied"), "respond-async");
    assert_eq!(accepted.json()["state"], "checking");
    let location = accepted.header("location").to_owned();
    let version = checked(&gateway, &location);
    assert_eq!(version["state"], "ready");
    assert!(version["description"].is_object());
    upload_with(&gateway, prefer, guest("clock")).expect(200);

    let accepted = upload_with(&gateway, prefer, guest("no-policy")).expect(202);
    let failed = checked(&gateway, accepted.header("location"));
    assert_eq!(failed["state"], "failed");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("lacks the interface"), "{reason}");
    let refused = promote(&gateway, &failed["id"]).expect(400);
    assert!(refused.text().contains("lacks the interface"));
    pin(&gateway, "u", failed["digest"].clone()).expect(400);
    // A failed version can be uploaded again.
    upload_with(&gateway, prefer, guest("no-policy")).expect(202);
    upload_with(&gateway, prefer, Vec::new()).expect(400);

    // A failure that is answered to the client leaves no version.
    let before = states(&gateway);
    let refused = upload(&gateway, b"\0asm\x01\0\0\0".to_vec());
    let refused = refused.expect(400).json();
    assert!(refused["fields"]["component"].is_string());
    assert_eq!(states(&gateway).len(), before.len());
}

#[test]
fn a_long_check_continues_after_the_answer_and_after_a_restart() {
    // The time limit of `describe` follows from this setting.
    let setup = Setup::new().arg("--balancer-pick-timeout", 10_000);
    let (gateway, _backend) = with_mine(setup);
    let accepted = upload(&gateway, guest("loops-in-describe")).expect(202);
    let location = accepted.header("location").to_owned();
    assert_eq!(get(&gateway, &location)["state"], "checking");
    assert_eq!(accepted.header("preference-applied"), "");
    // Uploading the same component again does not start a second check.
    let again = upload(&gateway, guest("loops-in-describe")).expect(202);
    assert_eq!(again.header("location"), location);
    let refused = promote(&gateway, &accepted.json()["id"]).expect(400);
    assert!(refused.text().contains("still being checked"));

    let data_dir = gateway.data_dir.clone();
    let _folder = gateway.kill();
    let setup = Setup::with_data(&data_dir).arg("--balancer-pick-timeout", 1);
    let gateway = setup.start();
    let version = checked(&gateway, &location);
    assert_eq!(version["state"], "failed");
    let reason = version["reason"].as_str().unwrap();
    assert!(reason.contains("describe"), "{reason}");
}

#[test]
fn only_components_signed_by_a_known_key_are_accepted() {
    let [ours, theirs] = [(); 2].map(|()| KeyPair::generate_unencrypted_keypair().unwrap());
    let setup = Setup::new().arg("--balancer-public-keys", ours.pk.to_base64());
    let gateway = setup.start();
    let signature = |pair: &KeyPair, component: &[u8]| {
        let signed = minisign::sign(None, &pair.sk, component, None, None);
        signed.unwrap().into_string()
    };
    let send = |method: &str, path: &str, file: Option<&str>, component: &str| {
        let file = file.map(|file| STANDARD.encode(file));
        let headers: Vec<_> = file
            .iter()
            .map(|f| ("x-pointsman-signature", &**f))
            .collect();
        let body = Some(("application/wasm", guest(component)));
        gateway.send(gateway.admin, method, path, &headers, body)
    };
    let good = signature(&ours, &guest("first"));
    let made = "/balancers?name=mine";
    for (file, part) in [
        (None, "is not signed"),
        (Some(signature(&theirs, &guest("first"))), "not that of"),
        (Some(signature(&ours, &guest("clock"))), "not that of"),
        (Some("nonsense".into()), "not the content of a .minisig"),
    ] {
        let refused = send("POST", made, file.as_deref(), "first").expect(403);
        assert!(refused.text().contains(part), "{}", refused.text());
    }
    send("POST", made, Some(&good), "first").expect(201);
    send("PUT", "/balancers/mine", None, "clock").expect(403);
    send("POST", "/balancers/mine/versions", Some(&good), "clock").expect(403);

    // In a multipart body the signature is a part.
    let clock = signature(&ours, &guest("clock"));
    let mut body = Vec::new();
    for (name, content) in [
        ("signature", clock.into_bytes()),
        ("component", guest("clock")),
    ] {
        body.extend(
            format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").bytes(),
        );
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(b"--X--\r\n");
    let body = Some(("multipart/form-data; boundary=X", body));
    let path = "/balancers/mine/versions";
    let added = gateway.send(gateway.admin, "POST", path, &[], body);
    assert_eq!(version(&gateway, added)["state"], "ready");
    // Shipped balancers need no signature.
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);

    let (status, log) = Setup::new()
        .arg("--balancer-public-keys", "RWnonsense")
        .fail();
    assert!(!status.success());
    assert!(
        log.contains("balancer_public_keys = \"RWnonsense\""),
        "{log}"
    );
}
