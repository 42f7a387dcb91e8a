//! Gateways that share one configuration: what a gateway answers while it cannot see the others'
//! changes.

use crate::harness::{Etcd, Relay, add_consumer, until};

/// Right after the packets of a gateway have begun to vanish, nothing has told it that etcd is
/// away.
#[test]
fn what_a_gateway_cannot_see_is_not_answered_as_if_it_were_absent() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    let relay = Relay::start(etcd.address(0));
    let b = etcd.gateway_through(&relay).start();
    let document = b.admin("GET", "/pointsman/config", &[]).expect(200);
    // What is absent is answered as always, also while another gateway writes.
    add_consumer(&a, "seen");
    b.admin("DELETE", "/consumers/absent", &[]).expect(204);
    b.admin("DELETE", "/balancers/absent", &[]).expect(204);
    a.admin("DELETE", "/consumers/seen", &[]).expect(204);
    let import = || {
        let body = ("application/yaml", document.body.clone());
        b.send(b.admin, "PUT", "/pointsman/config", &[], Some(body))
    };
    import().expect(200);
    relay.swallow(true);
    add_consumer(&a, "unseen");
    std::thread::scope(|scope| {
        let delete = |path: &str| b.admin("DELETE", path, &[]);
        let deletions = ["/consumers/unseen", "/balancers/unseen"]
            .map(|path| scope.spawn(move || delete(path)));
        let importing = scope.spawn(import);
        for asked in deletions.into_iter().chain([importing]) {
            let answered = asked.join().unwrap().expect(503);
            assert!(answered.text().contains("etcd"), "{}", answered.text());
        }
    });
    a.admin("GET", "/consumers/unseen", &[]).expect(200);
    relay.swallow(false);
    until("it is deleted", || {
        let status = b.admin("DELETE", "/consumers/unseen", &[]).status;
        assert!([204, 503].contains(&status), "{status}");
        status == 204
    });
    until("the other one has the deletion", || {
        a.admin("GET", "/consumers/unseen", &[]).status == 404
    });
}

#[test]
fn the_list_of_gateways_says_why_it_is_empty() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    add_consumer(&a, "one");
    let nodes = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["nodes", "--admin", &a.admin.to_string()])
            .output()
            .unwrap()
    };
    until("it is listed", || nodes().status.success());
    etcd.ctl(&["del", "--prefix", "/pointsman/"]);
    until("it is not ready", || {
        a.admin("GET", "/status/ready", &[]).status == 503
    });
    until("it is not listed, and the command says why", || {
        // It lists itself again with its next revision, which may be on its way still, and after an
        // answer of etcd that comes late.
        etcd.ctl(&["del", "--prefix", "/pointsman/nodes/"]);
        let shown = nodes();
        let said = String::from_utf8(shown.stderr).unwrap();
        let is_empty = said.contains("etcd lists no gateway");
        assert!(
            !is_empty || said.contains("etcd has no configuration"),
            "{said}"
        );
        assert_eq!(shown.status.success(), !is_empty, "{said}");
        is_empty
    });
}
