//! Gateways that share one configuration: what a gateway answers while it cannot see the others' changes.

use crate::harness::{Etcd, Relay, add_consumer, until};

/// Right after the packets of a gateway have begun to vanish, nothing has told it that etcd is away.
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
