//! `pointsman config`: on a running gateway and on a data folder, and files of nginx and manifests
//! of Kubernetes that it converts.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{
    Backend, Gateway, MY_SERVICE, Reply, Setup, guest, of_every_kind, put_document, sha256,
};

fn get(gateway: &Gateway, path: &str) -> Reply {
    gateway.admin("GET", path, &[])
}

fn pointsman(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .arg("config")
        .args(arguments)
        .env_remove("POINTSMAN_ADMIN")
        .output()
        .unwrap()
}

/// The exit code and all that a command prints.
fn ran(arguments: &[&str]) -> (Option<i32>, String) {
    let output = pointsman(arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn commands_work_on_a_running_gateway_and_on_a_data_folder_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let file = written(path, "all.yaml", &of_every_kind());
    let (code, said) = ran(&["validate", &file]);
    assert_eq!((code, &*said), (Some(0), "the configuration is valid\n"));
    let wrong = written(
        path,
        "wrong.yaml",
        "_format_version: '3.0'\nroutes:\n- name: r\n",
    );
    let (code, said) = ran(&["validate", &wrong]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("wrong.yaml: line 3: routes[0] (r): must set one of"),
        "{said}"
    );

    // Wrong usage is told apart from a file that is different.
    let (code, said) = ran(&["diff", &file, "--unknown"]);
    assert_eq!(code, Some(64), "{said}");

    let gateway = Setup::with_data(&path.join("data")).start();
    let url = format!("http://{}", gateway.admin);
    let (code, said) = ran(&["diff", &file, "--admin", &url]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains(&format!("create services \"my-service\" ({MY_SERVICE})\n")),
        "{said}"
    );
    let (code, said) = ran(&["import", &file, "--admin", &url]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("18 entities changed\n"), "{said}");
    let (code, said) = ran(&["diff", &file, "--admin", &url]);
    assert_eq!((code, &*said), (Some(0), ""));
    let (code, exported) = ran(&["export", "--admin", &url]);
    assert_eq!(code, Some(0), "{exported}");
    let (_, shared) = ran(&["export", "--without-secrets", "--admin", &url]);
    for secret in ["top-secret", "PRIVATE KEY", "jwk:", "password:"] {
        assert!(exported.contains(secret), "{secret}");
        assert!(!shared.contains(secret), "{secret}");
    }
    let data = path.join("data").display().to_string();
    // The folder is in use.
    let (code, said) = ran(&["export", "--data-dir", &data]);
    assert_eq!(code, Some(1), "{said}");
    drop(gateway.kill());

    let (code, offline) = ran(&["export", "--data-dir", &data]);
    assert_eq!((code, offline), (Some(0), exported));
    let empty = written(path, "empty.json", "{\"_format_version\": \"3.0\"}");
    let (code, said) = ran(&["import", &empty, "--data-dir", &data]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("18 entities changed\n"), "{said}");
    let (code, said) = ran(&["import", &file, "--data-dir", &data]);
    assert_eq!(code, Some(0), "{said}");
    let gateway = Setup::with_data(&path.join("data")).start();
    get(&gateway, "/services/my-service").expect(200);
}

#[test]
fn commands_reach_an_admin_api_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let gateway = Setup::with_data(&data)
        .arg("--admin-listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
        .start();
    let file = written(folder.path(), "all.yaml", &of_every_kind());
    let url = format!("https://localhost:{}", gateway.listener("admin", 1).port());
    let (code, said) = ran(&["import", &file, "--admin", &url]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("invalid peer certificate") && said.contains("--admin-ca names"),
        "{said}"
    );
    let own = data.join("ssl/admin-default.crt").display().to_string();
    let over_tls = ["--admin", &url, "--admin-ca", &own];
    let (code, said) = ran(&[&["import", &file][..], &over_tls].concat());
    assert_eq!(code, Some(0), "{said}");
    // A large response, and one that is streamed.
    let (code, said) = ran(&[&["diff", &file][..], &over_tls].concat());
    assert_eq!((code, &*said), (Some(0), ""));
    let out = folder.path().join("trace");
    let recorded = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["record", "my-upstream", "--seconds", "1", "-o"])
        .arg(&out)
        .args(over_tls)
        .output()
        .unwrap();
    assert!(recorded.status.success(), "{recorded:?}");
    // The certificate is for another name.
    let by_address = url.replace("localhost", "127.0.0.1");
    let (code, said) = ran(&["export", "--admin", &by_address, "--admin-ca", &own]);
    assert_eq!(code, Some(1), "{said}");
    let missing = folder.path().join("missing").display().to_string();
    let (code, said) = ran(&["export", "--admin", &url, "--admin-ca", &missing]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot read the authorities in"), "{said}");
}

#[test]
fn a_file_is_checked_by_the_flavor_of_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let text = "_format_version: '3.0'\nroutes:\n- name: r\n  expression: http.path == \"/a\"\n";
    let file = written(folder.path(), "routes.yaml", text);
    let validate = |flavor: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command.args(["config", "validate", &file]);
        command.env("POINTSMAN_ROUTER_FLAVOR", flavor);
        command.output().unwrap().status.success()
    };
    assert!(validate("expressions"));
    assert!(!validate("traditional_compatible"));
}

#[test]
fn a_document_that_a_gateway_would_refuse_is_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    // A regular expression, but one that takes more memory than a route may have.
    let nginx = "server { location / { proxy_pass http://a; }\n\
                 location ~ \"^/(\\w{1,100}){1,40}$\" { deny all; } }";
    let file = written(folder.path(), "nginx.conf", nginx);
    let refused = pointsman(&["convert", &file]);
    assert!(!refused.status.success() && refused.stdout.is_empty());
    let said = String::from_utf8(refused.stderr).unwrap();
    let told =
        format!("{file}: line 2: location ~ ^/(\\w{{1,100}}){{1,40}}$: cannot be expressed: ");
    assert!(said.contains(&told), "{said}");
}

#[test]
fn a_file_of_nginx_becomes_a_document_that_serves_its_requests() {
    let backend = Backend::start("a");
    let folder = tempfile::tempdir().unwrap();
    let nginx = format!(
        "user nobody;\nhttp {{ upstream api {{ server {}; }}\n\
         server {{ location / {{ proxy_pass http://api; }}\n\
         location /v1/secret {{ deny all; }} location ~ /\\. {{ root /srv; }} }} }}\n",
        backend.address
    );
    let file = written(folder.path(), "nginx.conf", &nginx);
    let output = pointsman(&["convert", &file]);
    assert!(output.status.success());
    let left = String::from_utf8(output.stderr).unwrap();
    let told: Vec<&str> = left.lines().collect();
    assert_eq!(
        told[0],
        format!("{file}: line 1: user nobody: not converted")
    );
    assert_eq!(told.len(), 4, "{left}");
    let gateway = Gateway::start();
    let document = String::from_utf8(output.stdout).unwrap();
    put_document(&gateway, &document, "").expect(200);
    assert_eq!(gateway.backend_of("/v1/x"), "a");
    gateway.get("/v1/secret").expect(403);
    gateway.get("/v1/.git/config").expect(503);
}

#[test]
fn a_component_beside_the_file_is_imported_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = |balancer: &str| {
        format!(
            "_format_version: '3.0'
balancers:
- name: own
  {balancer}
upstreams:
- name: u
  algorithm: own
"
        )
    };
    let component = |name: &str| std::fs::write(path.join("own.wasm"), guest(name)).unwrap();
    component("first");
    let file = written(path, "kong.yaml", &text("component: own.wasm"));
    assert_eq!(ran(&["validate", &file]).0, Some(0));
    let gateway = Setup::with_data(&path.join("data")).start();
    let url = format!("http://{}", gateway.admin);
    let (code, said) = ran(&["diff", &file, "--admin", &url]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("create balancers \"own\" ("), "{said}");
    get(&gateway, "/balancers/own").expect(404);
    let (code, said) = ran(&["import", &file, "--admin", &url]);
    assert_eq!(code, Some(0), "{said}");
    let digest = || get(&gateway, "/balancers/own").expect(200).json()["digest"].clone();
    let first = digest();
    assert_eq!(first, sha256(&guest("first")));
    assert_eq!(
        ran(&["diff", &file, "--admin", &url]),
        (Some(0), String::new())
    );
    // Another component under the same name is another version.
    component("lightest");
    let (code, said) = ran(&["import", &file, "--admin", &url]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("update balancers \"own\" ("), "{said}");
    assert_eq!(digest(), sha256(&guest("lightest")));
    // By its digest, a version that is there is active again.
    let by_digest = written(path, "digest.yaml", &text(&format!("digest: {first}")));
    assert_eq!(ran(&["import", &by_digest, "--admin", &url]).0, Some(0));
    assert_eq!(digest(), first);
}

#[test]
fn the_file_of_a_gateway_without_a_database_names_components_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("own.wasm"), guest("lightest")).unwrap();
    let backends = [Backend::start("a"), Backend::start("b")];
    let targets = backends.each_ref().map(|backend| backend.address);
    let text = format!(
        "_format_version: '3.0'
balancers:
- {{name: own, component: own.wasm}}
upstreams:
- name: u
  algorithm: own
  targets: [{{target: '{}'}}, {{target: '{}'}}]
services:
- name: s
  host: u
  routes: [{{name: r, paths: [/]}}]
",
        targets[0], targets[1]
    );
    let file = written(folder.path(), "kong.yaml", &text);
    let gateway = Setup::new()
        .arg("--database", "off")
        .arg("--declarative-config", &file)
        .start();
    let digest = get(&gateway, "/balancers/own").expect(200).json()["digest"].clone();
    assert_eq!(digest, sha256(&guest("lightest")));
    gateway.get("/").expect(200);
}

/// The first block of code of this language behind a heading of `docs/declarative.md`.
fn documented(heading: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/declarative.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, text) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, code) = text.split_once(&format!("\n```{language}\n")).unwrap();
    code.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_manifests_of_the_documentation_become_a_document_that_serves_their_requests() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    let mut manifests = documented("From Kubernetes", "yaml");
    for (name, backend) in [("cart", &old), ("cart-next", &new)] {
        let (ip, port) = (backend.address.ip(), backend.address.port());
        manifests += &format!(
            "---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [{ip}]}}]
"
        );
    }
    let file = written(folder.path(), "manifests.yml", &manifests);
    let output = pointsman(&["convert", &file]);
    let left = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{left}");
    let listed = "line 7: Gateway shop/public: spec.listeners[0].port: addresses are in the setting \
                  proxy_listen";
    assert_eq!(left, format!("{file}: {listed}\n"));
    let document = String::from_utf8(output.stdout).unwrap();
    let gateway = Gateway::start();
    put_document(&gateway, &document, "").expect(200);
    let upstream = get(&gateway, "/upstreams/shop.cart.1/targets")
        .expect(200)
        .json();
    let weights = upstream["data"].as_array().unwrap().iter();
    let mut weights: Vec<u64> = weights
        .map(|target| target["weight"].as_u64().unwrap())
        .collect();
    weights.sort_unstable();
    assert_eq!(weights, [1, 9]);
    let host = [("host", "shop.example.com")];
    for path in ["/cart", "/cart/1"] {
        gateway.get_with(path, &host).expect(200);
    }
    gateway.get_with("/carts", &host).expect(404);
    gateway.get("/cart").expect(404);
}

#[test]
fn a_command_names_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let both = ["export", "--data-dir", &data, "--admin", "http://a.example"];
    let (code, said) = ran(&both);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("--admin and --data-dir name two places"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_converted_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let kong = written(
        folder.path(),
        "kong.yml",
        "_format_version: '3.0'\nservices: []\n",
    );
    let (code, said) = ran(&["convert", &kong]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("import it as it is"), "{said}");
    let other = written(
        folder.path(),
        "envoy.yaml",
        "static_resources:\n  listeners: []\n",
    );
    let (code, said) = ran(&["convert", &other]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("a configuration of nginx, or manifests of"),
        "{said}"
    );
}
