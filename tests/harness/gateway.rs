//! A gateway process for each test.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use super::Backend;

/// A gateway to be started.
pub(crate) struct Setup {
    data_dir: PathBuf,
    args: Vec<String>,
    environment: Vec<(&'static str, String)>,
    ulimit: Option<String>,
    /// A command that becomes the gateway, such as one that enters a namespace; empty for none.
    launcher: Vec<String>,
    owned: Option<TempDir>,
}

/// A running gateway. Killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The addresses of all listeners, with their flags, by what listens there.
    pub(crate) listeners: Value,
    pub(crate) data_dir: PathBuf,
    log: Option<JoinHandle<String>>,
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

impl Setup {
    /// With an empty data folder.
    pub(crate) fn new() -> Self {
        let owned = tempfile::tempdir().unwrap();
        Self {
            data_dir: owned.path().join("data"),
            args: Vec::new(),
            environment: Vec::new(),
            ulimit: None,
            launcher: Vec::new(),
            owned: Some(owned),
        }
    }

    /// With the data folder of another gateway.
    pub(crate) fn with_data(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            args: Vec::new(),
            environment: Vec::new(),
            ulimit: None,
            launcher: Vec::new(),
            owned: None,
        }
    }

    pub(crate) fn arg(mut self, name: &str, value: impl ToString) -> Self {
        self.args.extend([name.to_owned(), value.to_string()]);
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    /// With an address space of this many KiB at most.
    pub(crate) fn address_space(self, kibibytes: u64) -> Self {
        self.ulimit(&format!("-v {kibibytes}"))
    }

    /// With a limit that the shell's `ulimit` sets.
    pub(crate) fn ulimit(mut self, limit: &str) -> Self {
        self.ulimit = Some(limit.to_owned());
        self
    }

    /// With another data folder.
    pub(crate) fn data_dir(mut self, data_dir: &Path) -> Self {
        self.data_dir = data_dir.to_owned();
        self
    }

    /// Started by another command, which becomes the gateway.
    pub(crate) fn launcher(mut self, command: Vec<String>) -> Self {
        self.launcher = command;
        self
    }

    pub(crate) fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_pointsman");
        let mut command = match &self.ulimit {
            None if !self.launcher.is_empty() => {
                let mut command = Command::new(&self.launcher[0]);
                command.args(&self.launcher[1..]).arg(program);
                command
            }
            None => Command::new(program),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", r#"ulimit $0 && exec "$@""#, limit, program]);
                shell
            }
        };
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POINTSMAN_")) {
            command.env_remove(name);
        }
        command.arg("--data-dir").arg(&self.data_dir);
        let named = |name: &str| self.args.iter().any(|arg| arg == name);
        if !named("--proxy-listen") {
            command.args(["--proxy-listen", "127.0.0.1:0 http2"]);
        }
        if !named("--admin-listen") {
            command.args(["--admin-listen", "127.0.0.1:0"]);
        }
        if !named("--status-listen") {
            command.args(["--status-listen", "off"]);
        }
        let in_environment = |name| self.environment.iter().any(|(set, _)| *set == name);
        if !named("--workers") && !in_environment("POINTSMAN_WORKERS") {
            command.args(["--workers", "2"]);
        }
        if !named("--balancer-pick-timeout") {
            // On a busy machine a pick may overrun a shorter timeout, and the host chooses then.
            command.args(["--balancer-pick-timeout", "1000"]);
        }
        if !named("--balancer-pick-cost") {
            command.args(["--balancer-pick-cost", "1000000"]);
        }
        command.args(&self.args);
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Starts the gateway, and waits until it prints that it is ready.
    pub(crate) fn start(self) -> Gateway {
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            let _ = stderr.read_to_string(&mut log);
            log
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            panic!("not ready: {line:?}; log: {}", log.join().unwrap());
        };
        // Without a listener, or with a Unix socket only, there is none.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = |name: &str| {
            let address = ready[name].as_str().unwrap_or_default();
            address.parse().unwrap_or(nowhere)
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .new_agent();
        Gateway {
            proxy: address("proxy"),
            admin: address("admin"),
            listeners: ready["listeners"].clone(),
            child,
            data_dir: self.data_dir,
            log: Some(log),
            agent,
            writes: AtomicUsize::new(0),
            _owned: self.owned,
        }
    }

    /// Runs a gateway that is expected to exit at its start: its exit status and its log.
    pub(crate) fn fail(self) -> (ExitStatus, String) {
        let output = self.command().output().unwrap();
        (
            output.status,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
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

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.unwrap().success());
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

    /// Waits for the end of the process: its exit status and its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Some(log) = self.log.take()
            && let Ok(log) = log.join()
        {
            eprintln!("log of the gateway:\n{log}");
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
