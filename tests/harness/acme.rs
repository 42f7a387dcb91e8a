//! A server that speaks ACME (RFC 8555), with an authority of its own. It verifies names as real
//! ones do, except that it asks one gateway whatever the name is.

mod challenges;
mod jws;
mod orders;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use ::ring::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use jws::{open, thumbprint};
use orders::{authorization, issue, shown, verify};

/// The path of what is suggested for a certificate.
const RENEWAL: &str = "/renewal-info/";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The server. It serves until the process ends.
pub(crate) struct AcmeServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The challenges that are offered for each name.
    offered: Vec<&'static str>,
    /// The listeners of the gateway: in clear text, and over TLS.
    gateway: Option<(SocketAddr, SocketAddr)>,
    /// How long certificates have been valid when they are issued, and still are.
    validity: (Duration, Duration),
    /// Names that no challenge verifies.
    refused: BTreeSet<String>,
    /// The id and the key that accounts need besides (RFC 8555, 7.3.4).
    external: Option<(String, Vec<u8>)>,
    /// What was verified: a name by a challenge.
    verified: Vec<(String, String)>,
    /// The contacts of accounts.
    contacts: Vec<String>,
    /// How many certificates each name has got.
    issued: BTreeMap<String, usize>,
    /// When certificates are to be renewed (RFC 9773), if the server says so: from and to these
    /// times from now, in seconds.
    renewal: Option<(i64, i64)>,
    /// The certificates that were replaced, as orders name them.
    replaced: Vec<String>,
    nonces: BTreeSet<String>,
    /// The public keys of accounts, as JSON Web Keys.
    accounts: Vec<Value>,
    orders: Vec<Order>,
    issuer: CertifiedIssuer<'static, KeyPair>,
    counter: u64,
}

struct Order {
    name: String,
    account: usize,
    status: &'static str,
    /// The state of the authorization, and which challenge has failed why.
    authorization: (&'static str, Option<(String, String)>),
    /// The certificate that it replaces (RFC 9773, 5).
    replaces: Option<String>,
    certificate: Option<String>,
}

/// A response: status, URL of what was made, body.
type Response = (u16, Option<String>, Value);

impl AcmeServer {
    pub(crate) fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let state = State {
            offered: vec!["http-01", "tls-alpn-01", "dns-01"],
            gateway: None,
            validity: (Duration::ZERO, 90 * DAY),
            refused: BTreeSet::new(),
            external: None,
            verified: Vec::new(),
            contacts: Vec::new(),
            issued: BTreeMap::new(),
            renewal: None,
            replaced: Vec::new(),
            nonces: BTreeSet::new(),
            accounts: Vec::new(),
            orders: Vec::new(),
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
            counter: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, address, &state));
            }
        });
        Self { address, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The URL of its directory.
    pub(crate) fn directory(&self) -> String {
        format!("http://{}/directory", self.address)
    }

    /// Verifies names at this gateway: in clear text, and over TLS.
    pub(crate) fn verify_at(&self, plain: SocketAddr, tls: SocketAddr) {
        self.state().gateway = Some((plain, tls));
    }

    /// Offers only this challenge.
    pub(crate) fn offer(&self, challenge: &'static str) {
        self.state().offered = vec![challenge];
    }

    /// Has names fail, and no others.
    pub(crate) fn refuse(&self, names: &[&str]) {
        self.state().refused = names.iter().map(ToString::to_string).collect();
    }

    /// Issues certificates that have been valid for some days, and still are for some.
    pub(crate) fn set_validity(&self, past: u32, left: u32) {
        self.state().validity = (DAY * past, DAY * left);
    }

    /// Makes accounts only for who has this key besides.
    pub(crate) fn ask_for_external_account(&self, id: &str, key: &[u8]) {
        self.state().external = Some((id.to_owned(), key.to_owned()));
    }

    /// Suggests to renew all certificates between these times from now, in seconds.
    pub(crate) fn suggest_renewal(&self, from: i64, to: i64) {
        self.state().renewal = Some((from, to));
    }

    /// The certificates that were replaced, as orders name them.
    pub(crate) fn replaced(&self) -> Vec<String> {
        self.state().replaced.clone()
    }

    /// Forgets all accounts.
    pub(crate) fn forget_accounts(&self) {
        for account in &mut self.state().accounts {
            *account = Value::Null;
        }
    }

    /// How many accounts were made.
    pub(crate) fn accounts(&self) -> usize {
        self.state().accounts.len()
    }

    /// The contacts of accounts.
    pub(crate) fn contacts(&self) -> Vec<String> {
        self.state().contacts.clone()
    }

    /// How many certificates a name has got.
    pub(crate) fn issued(&self, name: &str) -> usize {
        self.state().issued.get(name).copied().unwrap_or(0)
    }

    /// What was verified: names by challenges.
    pub(crate) fn verified(&self) -> Vec<(String, String)> {
        self.state().verified.clone()
    }
}

/// Serves the requests of a connection.
fn serve(stream: TcpStream, address: SocketAddr, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let length = head.iter().find_map(|line| {
            let line = line.to_ascii_lowercase();
            line.strip_prefix("content-length: ")?.parse().ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let mut words = head[0].split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let (status, location, body) = answer(method, path, &body, address, state);
        let body = match &body {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        let nonce = new_nonce(&mut state.lock().unwrap());
        let location = location.map_or_else(String::new, |url| format!("location: {url}\r\n"));
        let pause = match path.starts_with(RENEWAL) {
            true => "retry-after: 60\r\n",
            false => "",
        };
        let length = body.len();
        let body = if method == "HEAD" { "" } else { &body };
        let response = format!(
            "HTTP/1.1 {status} x\r\nreplay-nonce: {nonce}\r\n{location}{pause}content-length: {length}\r\n\r\n{body}"
        );
        if writer.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

/// A time as in `1994-11-06T08:49:37Z`.
fn rfc3339(time: SystemTime) -> String {
    // As in `Sun, 06 Nov 1994 08:49:37 GMT`.
    let date = httpdate::fmt_http_date(time);
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(&date[8..11]).unwrap() / 3 + 1;
    let (day, year, time) = (&date[5..7], &date[12..16], &date[17..25]);
    format!("{year}-{month:02}-{day}T{time}Z")
}

fn new_nonce(state: &mut State) -> String {
    state.counter += 1;
    let nonce = format!("nonce-{}", state.counter);
    state.nonces.insert(nonce.clone());
    nonce
}

fn problem(status: u16, kind: &str, detail: &str) -> Response {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    (
        status,
        None,
        json!({"type": kind, "detail": detail, "status": status}),
    )
}

fn answer(
    method: &str,
    path: &str,
    body: &[u8],
    address: SocketAddr,
    state: &Mutex<State>,
) -> Response {
    let url = |path: &str| format!("http://{address}{path}");
    match (method, path) {
        ("GET", "/directory") => {
            let mut directory = json!({
                "newNonce": url("/nonce"),
                "newAccount": url("/account"),
                "newOrder": url("/order"),
                "revokeCert": url("/revoke"),
                "keyChange": url("/key"),
                "meta": {"termsOfService": url("/terms")},
            });
            if state.lock().unwrap().renewal.is_some() {
                directory["renewalInfo"] = url(RENEWAL.trim_end_matches('/')).into();
            }
            return (200, None, directory);
        }
        ("GET", path) if path.starts_with(RENEWAL) => {
            let (from, to) = state.lock().unwrap().renewal.unwrap();
            let at = |seconds| {
                let now = SystemTime::now();
                let length = Duration::from_secs(i64::unsigned_abs(seconds));
                rfc3339(if seconds < 0 {
                    now - length
                } else {
                    now + length
                })
            };
            let window = json!({"start": at(from), "end": at(to)});
            return (200, None, json!({"suggestedWindow": window}));
        }
        ("HEAD", "/nonce") => return (200, None, json!("")),
        ("POST", _) => {}
        _ => return problem(405, "malformed", "method"),
    }
    let (payload, key, account) = match open(body, &url(path), address, &mut state.lock().unwrap())
    {
        Ok(opened) => opened,
        Err(refused) => return refused,
    };
    let mut parts = path.trim_start_matches('/').split('/');
    let (what, number) = (parts.next().unwrap(), parts.next());
    let number: usize = number.map_or(0, |number| number.parse().unwrap());
    if what == "challenge" {
        let kind = parts.next().unwrap().to_owned();
        return verify(number, &kind, &thumbprint(&key), address, state);
    }
    let mut state = state.lock().unwrap();
    match what {
        "account" => new_account(&payload, &key, address, &mut state),
        "order" if path == "/order" => {
            let replaced = payload["replaces"].as_str().map(str::to_owned);
            state.replaced.extend(replaced.clone());
            state.orders.push(Order {
                name: payload["identifiers"][0]["value"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
                account: account.unwrap(),
                status: "pending",
                authorization: ("pending", None),
                replaces: replaced,
                certificate: None,
            });
            let number = state.orders.len() - 1;
            (
                201,
                Some(url(&format!("/order/{number}"))),
                shown(number, address, &state),
            )
        }
        "order" => (200, None, shown(number, address, &state)),
        "authorization" => (200, None, authorization(number, address, &state)),
        "finalize" => {
            let csr = payload["csr"].as_str().unwrap();
            issue(number, &BASE64.decode(csr).unwrap(), &mut state);
            (200, None, shown(number, address, &state))
        }
        "certificate" => (200, None, json!(state.orders[number].certificate)),
        _ => problem(404, "malformed", path),
    }
}

fn new_account(payload: &Value, key: &Value, address: SocketAddr, state: &mut State) -> Response {
    if payload["termsOfServiceAgreed"] != true {
        return problem(
            403,
            "userActionRequired",
            "the terms of service are not agreed to",
        );
    }
    if let Some((id, secret)) = &state.external {
        let binding = &payload["externalAccountBinding"];
        let Some(protected) = binding["protected"].as_str() else {
            return problem(
                403,
                "externalAccountRequired",
                "an external account is required",
            );
        };
        let head: Value = serde_json::from_slice(&BASE64.decode(protected).unwrap()).unwrap();
        assert_eq!((&head["alg"], &head["kid"]), (&json!("HS256"), &json!(id)));
        let signed = format!("{protected}.{}", binding["payload"].as_str().unwrap());
        let signature = BASE64
            .decode(binding["signature"].as_str().unwrap())
            .unwrap();
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        hmac::verify(&secret, signed.as_bytes(), &signature).unwrap();
    }
    let contacts = payload["contact"].as_array().into_iter().flatten();
    state
        .contacts
        .extend(contacts.map(|contact| contact.as_str().unwrap().to_owned()));
    state.accounts.push(key.clone());
    let url = format!("http://{address}/account/{}", state.accounts.len() - 1);
    (201, Some(url), json!({"status": "valid"}))
}
