//! Declarative configurations.

use super::{Gateway, Issued, Reply};

/// The id that Kong generates for a service `my-service`.
pub(crate) const MY_SERVICE: &str = "0855b320-0dd2-547d-891d-601e9b38647f";

/// A document with an entity of every kind, but balancers.
pub(crate) fn of_every_kind() -> String {
    let issued = Issued::to("a.example");
    let indented = |pem: &str| pem.trim_end().replace('\n', "\n    ");
    let certificate = indented(&issued.certificate.pem());
    let key = indented(&issued.key.serialize_pem());
    let authority = indented(&issued.authority);
    format!(
        "_format_version: '3.0'
certificates:
- id: 11111111-1111-4111-8111-111111111111
  cert: |
    {certificate}
  key: |
    {key}
  snis:
  - name: a.example
ca_certificates:
- id: 22222222-2222-4222-8222-222222222222
  cert: |
    {authority}
vaults:
- {{prefix: my-env, name: env, config: {{prefix: X_}}}}
key_sets:
- name: set
  keys:
  - name: k
    kid: one
    jwk: '{{\"kid\": \"one\", \"kty\": \"oct\", \"k\": \"AAAA\"}}'
consumers:
- username: my-user
  custom_id: \"42\"
  tags: [a, b]
  keyauth_credentials:
  - {{id: 33333333-3333-4333-8333-333333333333, key: top-secret}}
  basicauth_credentials:
  - {{username: u, password: p}}
  jwt_secrets:
  - {{id: 44444444-4444-4444-8444-444444444444, key: j, secret: s}}
  acls:
  - group: \"yes\"
services:
- name: my-service
  url: https://a.example/x
  ca_certificates: [22222222-2222-4222-8222-222222222222]
  client_certificate: 11111111-1111-4111-8111-111111111111
  routes:
  - name: my-route
    paths: [/a, '~/b\\d+']
    headers: {{x-v: ['1', '2']}}
    plugins:
    - name: rate-limiting
      config: {{minute: 5, policy: redis, redis_host: 127.0.0.1}}
  plugins:
  - name: key-auth
upstreams:
- name: my-upstream
  algorithm: round-robin
  targets:
  - {{target: '127.0.0.1:9', weight: 7}}
  - target: '::1'
"
    )
}

/// Makes the configuration of a gateway that of a document.
pub(crate) fn put_document(gateway: &Gateway, text: &str, query: &str) -> Reply {
    let body = ("application/yaml", text.as_bytes().to_vec());
    let path = format!("/pointsman/config{query}");
    gateway.send(gateway.admin, "PUT", &path, &[], Some(body))
}
