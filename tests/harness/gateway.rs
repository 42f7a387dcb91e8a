//! A gateway process for each test.

mod setup;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use setup::Setup;

use super::log::Log;
use super::{Backend, send_signal};

/// A running gateway. Killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The addresses of all listeners, with their flags, by what listens there.
    pub(crate) listeners: Value,
    pub(crate) data_dir: PathBuf,
    log: Log,
    agent: ureq::Agent,
    writes: AtomicUsize,
    _owned: Option<TempDir>,
}

/// An answer of the Admin API or of the proxy.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// Fails the test unless the answer has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

impl Gateway {
    pub(crate) fn start() -> Self {
        Setup::new().start()
    }

    /// An address of the listeners of `proxy`, `admin` or `status`, counted from 0.
    pub(crate) fn listener(&self, of: &str, number: usize) -> SocketAddr {
        let entry = self.listeners[of][number].as_str().unwrap();
        let address = entry.split(' ').next().unwrap();
        address.parse().unwrap()
    }

    /// Sends a request to the Admin API, with the fields as a form.
    pub(crate) fn admin(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        let form = form(fields);
        let content_type = "application/x-www-form-urlencoded";
        let body = (!fields.is_empty()).then_some((content_type, form.into_bytes()));
        self.send(self.admin, method, path, &[], body)
    }

    /// Sends a JSON document to the Admin API.
    pub(crate) fn admin_json(&self, method: &str, path: &str, document: &Value) -> Reply {
        let body = ("application/json", document.to_string().into_bytes());
        self.send(self.admin, method, path, &[], Some(body))
    }

    /// Uploads a component.
    pub(crate) fn upload(&self, name: &str, component: Vec<u8>) -> Reply {
        let path = format!("/balancers?name={name}");
        let body = ("application/wasm", component);
        self.send(self.admin, "POST", &path, &[], Some(body))
    }

    /// Sends a request to the proxy.
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send(self.proxy, "GET", path, &[], None)
    }

    /// Sends a request with headers to the proxy.
    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(self.proxy, "GET", path, headers, None)
    }

    /// The name of the backend that answers a request with 200.
    pub(crate) fn backend_of(&self, path: &str) -> String {
        self.get(path).expect(200).header("x-backend").to_owned()
    }

    pub(crate) fn send(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<(&str, Vec<u8>)>,
    ) -> Reply {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{to}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = match body {
            Some((content_type, body)) => {
                let request = request.header("content-type", content_type).body(body);
                self.agent.run(request.unwrap())
            }
            None => self.agent.run(request.body(()).unwrap()),
        };
        let mut answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        Reply {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.body_mut().read_to_vec().unwrap(),
        }
    }

    /// The same for a process that may end meanwhile: the status, or `None` if it does not answer.
    pub(crate) fn try_send(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        body: (&str, Vec<u8>),
    ) -> Option<u16> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{to}{path}"))
            .header("content-type", body.0)
            .body(body.1);
        let answer = self.agent.run(request.ok()?);
        answer.ok().map(|answer| answer.status().as_u16())
    }

    /// An upstream `u` with these targets, reached under `/`.
    pub(crate) fn balanced(&self, targets: &[(SocketAddr, u32)]) {
        self.balanced_as("u", "/", targets);
    }

    /// An upstream with these targets, reached under a path.
    pub(crate) fn balanced_as(&self, name: &str, path: &str, targets: &[(SocketAddr, u32)]) {
        self.admin("POST", "/upstreams", &[("name", name)])
            .expect(201);
        for (target, weight) in targets {
            self.add_target(name, *target, *weight);
        }
        let service = format!("{name}-service");
        self.admin("POST", "/services", &[("name", &service), ("host", name)])
            .expect(201);
        let routes = format!("/services/{service}/routes");
        self.admin("POST", &routes, &[("paths[]", path)])
            .expect(201);
    }

    pub(crate) fn add_target(&self, upstream: &str, target: SocketAddr, weight: u32) {
        let fields = [
            ("target", &*target.to_string()),
            ("weight", &*weight.to_string()),
        ];
        self.admin("POST", &format!("/upstreams/{upstream}/targets"), &fields)
            .expect(201);
    }

    /// Sends a form to the Admin API: the status, or `None` if the process did not answer.
    pub(crate) fn try_admin(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Option<u16> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin));
        let answer = if fields.is_empty() {
            self.agent.run(request.body(()).ok()?)
        } else {
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            self.agent.run(request.body(form(fields)).ok()?)
        };
        let status = answer.ok()?.status().as_u16();
        self.writes.fetch_add(1, Ordering::SeqCst);
        Some(status)
    }

    /// How many requests of [`Gateway::try_admin`] were answered so far.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// Sends SIGKILL to the process, while clients may still use it.
    pub(crate) fn kill_9(&self) {
        self.signal("-KILL");
    }

    /// The length of a body that is not held in memory.
    pub(crate) fn get_large(&self, path: &str) -> usize {
        let answer = self
            .agent
            .get(format!("http://{}{path}", self.proxy))
            .call();
        let mut body = answer.unwrap().into_body().into_reader();
        std::io::copy(&mut body, &mut std::io::sink()).unwrap() as usize
    }

    /// The memory that the process holds.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.status_bytes("VmRSS:")
    }

    /// Begins to measure the peak of the memory that the process holds, and returns what it holds
    /// now.
    pub(crate) fn reset_peak(&self) -> usize {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
        self.peak_bytes()
    }

    /// The peak of the memory that the process held since [`Gateway::reset_peak`].
    pub(crate) fn peak_bytes(&self) -> usize {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = field
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .unwrap();
        kilobytes.parse::<usize>().unwrap() << 10
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process, such as `-USR2`.
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.child.id(), signal.trim_start_matches('-'));
    }

    /// Kills the process, which cleans nothing up.
    pub(crate) fn kill(mut self) -> Option<TempDir> {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self._owned.take()
    }

    /// Sends SIGTERM to the process, without waiting for its end.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Waits until the log has a text.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        self.log.wait_for(text);
    }

    /// Waits for the end of the process: its exit status and its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log.to_end())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the gateway:\n{}", self.log.to_end());
        }
    }
}

/// A gateway whose upstream `u` has one backend `b`, reached under `/`.
pub(crate) fn with_backend(setup: Setup) -> (Gateway, Backend) {
    let gateway = setup.start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    (gateway, backend)
}

/// What `--help` prints.
pub(crate) fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .arg("--help")
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

fn form(fields: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in fields {
        for (text, mark) in [(name, '='), (value, '&')] {
            for byte in text.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'[' | b']' => {
                        form.push(byte.into());
                    }
                    _ => form.push_str(&format!("%{byte:02X}")),
                }
            }
            form.push(mark);
        }
    }
    form.pop();
    form
}
