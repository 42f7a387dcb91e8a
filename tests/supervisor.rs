//! What a supervisor such as systemd passes to a gateway, and what it is told.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};

use crate::harness::{Backend, Gateway, Raw, Setup};

/// The socket that a gateway tells its state.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        // A test that waits in vain fails.
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self(socket)
    }

    fn told(&self) -> String {
        let mut message = [0; 256];
        let length = self.0.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }
}

#[test]
fn a_supervisor_is_notified_once_all_of_a_gateway_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (folder.path().join("notify"), folder.path().join("kong.yml"));
    let supervisor = Supervisor::at(&socket);
    let write = |name: &str| {
        let text = format!("_format_version: '3.0'\nservices:\n- {{name: {name}, host: h}}\n");
        std::fs::write(&file, text).unwrap();
    };
    write("a");
    let gateway = Setup::new()
        .arg("--database", "off")
        .arg("--declarative-config", file.display())
        .env("NOTIFY_SOCKET", socket.display())
        .start();
    assert!(supervisor.told().starts_with("READY=1"));
    for name in ["b", "c", "d"] {
        write(name);
        gateway.signal("-HUP");
        let reloading = supervisor.told();
        assert!(
            reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reloading}"
        );
        assert_eq!(supervisor.told(), "READY=1");
        let path = format!("/services/{name}");
        gateway.admin("GET", &path, &[]).expect(200);
    }
    // A file with a mistake is a reload as well.
    std::fs::write(&file, "services: 1").unwrap();
    gateway.signal("-HUP");
    assert!(supervisor.told().starts_with("RELOADING=1"));
    assert_eq!(supervisor.told(), "READY=1");
    gateway.admin("GET", "/services/d", &[]).expect(200);
    gateway.terminate();
    assert!(supervisor.told().starts_with("STOPPING=1"));
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
}

/// A gateway to which these descriptors are passed, with these names.
fn passed(setup: Setup, sockets: &[&dyn AsRawFd], names: &str) -> Setup {
    let mut script = format!(
        "export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names}; exec \"$@\"",
        sockets.len()
    );
    for (number, socket) in (3..).zip(sockets) {
        script += &format!(" {number}<&{}", socket.as_raw_fd());
    }
    let launcher = ["bash", "-c", &script, "bash"];
    setup.launcher(launcher.map(str::to_owned).into())
}

#[test]
fn listeners_take_the_sockets_of_a_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let ip = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = ip.local_addr().unwrap();
    for socket in [&ip as &dyn std::os::fd::AsFd, &unix, &unused] {
        // So that the shell inherits it.
        fcntl_setfd(socket, FdFlags::empty()).unwrap();
    }
    // A client that came before the gateway.
    let mut early = Raw::connect(address);
    early.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    let listen = format!("{address}, unix:{}", path.display());
    let setup = |setup: Setup| setup.arg("--proxy-listen", &listen);
    let start = |new: Setup| {
        passed(
            setup(new),
            &[&ip, &unix, &unused],
            "pointsman.socket:proxy_listen:admin_listen",
        )
        .start()
    };
    let gateway = start(Setup::with_data(&folder.path().join("data")));
    let is_served = |gateway: &Gateway| {
        let info = gateway.get("/").expect(404);
        UnixStream::connect(&path).unwrap();
        assert!(info.text().contains("no Route matched"));
    };
    let answer = early.read_until("\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    is_served(&gateway);
    // A process that takes over gets them from the one before.
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let next = setup(Setup::with_data(&gateway.data_dir))
        .arg("--take-over", "on")
        .start();
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    let warned = log.lines().find(|line| line.contains("not used")).unwrap();
    let unused = unused.local_addr().unwrap();
    assert!(
        warned.contains(&unused.to_string()) && warned.contains("admin_listen"),
        "{warned}"
    );
    assert_eq!(next.backend_of("/"), "b");
    next.terminate();
    assert!(next.wait().0.success());
    // The file is the supervisor's, which starts the gateway again at the next connection.
    assert!(path.exists());
    let again = start(Setup::with_data(&folder.path().join("data")));
    assert_eq!(again.backend_of("/"), "b");
}

#[test]
fn what_is_passed_and_does_not_listen_is_refused() {
    let file = tempfile::tempfile().unwrap();
    fcntl_setfd(&file, FdFlags::empty()).unwrap();
    let (status, log) = passed(Setup::new(), &[&file], "x").fail();
    assert!(!status.success());
    assert!(
        log.contains("descriptor 3 (\"x\"): it is no socket"),
        "{log}"
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    fcntl_setfd(&connected, FdFlags::empty()).unwrap();
    let (status, log) = passed(Setup::new(), &[&connected], "x").fail();
    assert!(!status.success());
    assert!(log.contains("Accept= of its unit must be no"), "{log}");
}
