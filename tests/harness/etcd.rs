//! A real etcd for each test, of one member or of several.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Issued, Relay, Setup, refusing_address, send_signal, until};

/// An etcd. Killed when dropped.
pub(crate) struct Etcd {
    members: Vec<Member>,
    folder: TempDir,
    args: Vec<String>,
    /// The scheme of the URLs of clients.
    scheme: &'static str,
    /// What `etcdctl` needs to be let in.
    access: Vec<String>,
    /// The settings with which a gateway is let in.
    settings: Vec<(&'static str, String)>,
}

struct Member {
    /// None while it is stopped.
    process: Option<Child>,
    client: SocketAddr,
    peer: SocketAddr,
}

fn program(name: &str) -> Command {
    Command::new(Etcd::folder().join("bin").join(name))
}

impl Etcd {
    /// What `scripts/etcd` has unpacked.
    pub(crate) fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/etcd")
    }

    /// One member.
    pub(crate) fn start() -> Self {
        Self::start_with(1, &[])
    }

    /// Several members, with more arguments.
    pub(crate) fn start_with(members: usize, args: &[&str]) -> Self {
        Self::new(members, args).up()
    }

    /// One member that shows a certificate, and asks clients for one.
    pub(crate) fn start_with_tls() -> Self {
        let mut etcd = Self::new(1, &[]);
        etcd.scheme = "https";
        let (server, client) = (Issued::to("127.0.0.1"), Issued::to("gateway"));
        let save = |name: &str, text: String| {
            let path = etcd.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let authority = save("server-ca.pem", server.authority);
        let certificate = save("client.pem", client.certificate.pem());
        let key = save("client.key", client.key.serialize_pem());
        let server = [
            ("--cert-file", save("server.pem", server.certificate.pem())),
            ("--key-file", save("server.key", server.key.serialize_pem())),
            ("--trusted-ca-file", save("client-ca.pem", client.authority)),
        ];
        etcd.args = server
            .into_iter()
            .flat_map(|(name, file)| [name.to_owned(), file])
            .chain(["--client-cert-auth".to_owned()])
            .collect();
        etcd.access = [
            ("--cacert", &authority),
            ("--cert", &certificate),
            ("--key", &key),
        ]
        .into_iter()
        .flat_map(|(name, file)| [name.to_owned(), file.clone()])
        .collect();
        etcd.settings = vec![
            ("--etcd-ca", authority),
            ("--etcd-cert", certificate),
            ("--etcd-cert-key", key),
        ];
        etcd.up()
    }

    /// Has it ask for a user from now on. Gateways that are started afterwards have one, who may
    /// use only the keys below their prefix.
    pub(crate) fn require_users(&mut self) {
        for args in [
            &["user", "add", "root:secret"][..],
            &["user", "add", "gateway:word"],
            &["role", "add", "gateway"],
            &[
                "role",
                "grant-permission",
                "--prefix=true",
                "gateway",
                "readwrite",
                "/pointsman/",
            ],
            &["user", "grant-role", "gateway", "gateway"],
            &["auth", "enable"],
        ] {
            self.ctl(args);
        }
        self.access.extend(["--user".into(), "root:secret".into()]);
        self.settings.extend([
            ("--etcd-user", "gateway".into()),
            ("--etcd-password", "word".into()),
        ]);
    }

    fn new(members: usize, args: &[&str]) -> Self {
        let member = |_| Member {
            process: None,
            client: refusing_address(),
            peer: refusing_address(),
        };
        Self {
            members: (0..members).map(member).collect(),
            folder: tempfile::tempdir().unwrap(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            scheme: "http",
            access: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Starts all members.
    fn up(mut self) -> Self {
        for number in 0..self.members.len() {
            self.run(number);
        }
        self.wait();
        self
    }

    /// Starts a member that does not run.
    pub(crate) fn run(&mut self, number: usize) {
        let peers = self.members.iter().enumerate();
        let peers = peers.map(|(number, member)| format!("m{number}=http://{}", member.peer));
        let peers = peers.collect::<Vec<_>>().join(",");
        let member = &mut self.members[number];
        let (client, peer) = (
            format!("{}://{}", self.scheme, member.client),
            format!("http://{}", member.peer),
        );
        let name = format!("m{number}");
        let child = program("etcd")
            .args(["--name", &name, "--data-dir"])
            .arg(self.folder.path().join(&name))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &peers])
            // What it has written survives its end, but not that of the machine. A slow disk of a
            // busy machine does not make it miss its own deadlines.
            .arg("--unsafe-no-fsync")
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("etcd, which scripts/etcd unpacks: {error}"));
        member.process = Some(child);
    }

    /// Waits until writes are answered.
    pub(crate) fn wait(&self) {
        until("etcd answers", || {
            self.try_ctl(&["put", "test", "0"]).is_some()
        });
    }

    /// Kills a member.
    pub(crate) fn kill(&mut self, number: usize) {
        let member = &mut self.members[number];
        if let Some(mut process) = member.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Kills all members and deletes what they have stored.
    pub(crate) fn wipe(&mut self) {
        for number in 0..self.members.len() {
            self.kill(number);
            std::fs::remove_dir_all(self.folder.path().join(format!("m{number}"))).unwrap();
        }
    }

    /// Sends a signal to a member, by its name.
    pub(crate) fn signal(&self, number: usize, signal: &str) {
        let process = self.members[number].process.as_ref().unwrap();
        send_signal(process.id(), signal);
    }

    /// The number of the member that leads.
    pub(crate) fn leader(&self) -> usize {
        let mut found = None;
        until("etcd has a leader", || {
            let members = self.members.iter();
            found = members
                .map(|member| member.client.to_string())
                .position(|client| {
                    let status = program("etcdctl")
                        .args(["--endpoints", &client, "--command-timeout", "1s"])
                        .args(&self.access)
                        .args(["endpoint", "status", "--write-out", "fields"])
                        .output()
                        .unwrap();
                    let status = String::from_utf8_lossy(&status.stdout).into_owned();
                    let number = |name: &str| {
                        let line = status.lines().find(|line| line.starts_with(name));
                        line.and_then(|line| line.rsplit_once(' '))
                            .map(|(_, number)| number.to_owned())
                    };
                    let leader = number("\"Leader\"");
                    leader.is_some() && leader == number("\"MemberID\"")
                });
            found.is_some()
        });
        found.unwrap()
    }

    /// Where clients connect, as the setting `etcd_endpoints`.
    pub(crate) fn endpoints(&self) -> String {
        let members = self.members.iter();
        let urls: Vec<String> = members
            .map(|member| format!("{}://{}", self.scheme, member.client))
            .collect();
        urls.join(",")
    }

    /// The address for clients of a member.
    pub(crate) fn address(&self, number: usize) -> SocketAddr {
        self.members[number].client
    }

    /// What `etcdctl` prints.
    #[track_caller]
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args)
            .unwrap_or_else(|| panic!("etcdctl {args:?} has failed"))
    }

    fn try_ctl(&self, args: &[&str]) -> Option<String> {
        let output = program("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoints(), "--command-timeout", "5s"])
            .args(&self.access)
            .args(args)
            .stderr(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("etcdctl, which scripts/etcd unpacks: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    /// Whether a key can be written.
    pub(crate) fn try_put(&self, key: &str, value: &str) -> bool {
        self.try_ctl(&["put", key, value]).is_some()
    }

    /// Saves what the only member has stored. Returns the file.
    pub(crate) fn snapshot(&self) -> PathBuf {
        let file = self.folder.path().join("snapshot");
        self.ctl(&["snapshot", "save", file.to_str().unwrap()]);
        file
    }

    /// Replaces what the only member has stored by that of a snapshot.
    pub(crate) fn restore(&mut self, snapshot: &Path) {
        self.wipe();
        let data = self.folder.path().join("m0");
        let peer = format!("http://{}", self.members[0].peer);
        let restored = program("etcdctl")
            .args(["snapshot", "restore", snapshot.to_str().unwrap()])
            .args(["--name", "m0", "--data-dir", data.to_str().unwrap()])
            .args(["--initial-cluster", &format!("m0={peer}")])
            .args(["--initial-advertise-peer-urls", &peer])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&restored.stderr).into_owned();
        assert!(restored.status.success(), "{said}");
        self.run(0);
        self.wait();
    }

    /// A gateway that shares this etcd.
    pub(crate) fn gateway(&self) -> Setup {
        self.gateway_at(&self.endpoints())
    }

    /// The same, which reaches it through a relay.
    pub(crate) fn gateway_through(&self, relay: &Relay) -> Setup {
        self.gateway_at(&format!("{}://{}", self.scheme, relay.address))
    }

    fn gateway_at(&self, endpoints: &str) -> Setup {
        let setup = Setup::new()
            .arg("--store", "etcd")
            .arg("--etcd-endpoints", endpoints);
        let settings = self.settings.iter();
        settings.fold(setup, |setup, (name, value)| setup.arg(name, value))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for number in 0..self.members.len() {
            if let Some(mut process) = self.members[number].process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}
