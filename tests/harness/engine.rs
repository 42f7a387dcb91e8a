//! Real inference servers that batch, stream and cache prompts: llama.cpp's, with a model that
//! costs what it costs and says nothing. See `tests/engine/`.

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use super::{Gateway, send_signal};

/// A server whose answers have its name as their model. Killed when dropped.
pub(crate) struct Engine {
    child: Child,
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
}

impl Engine {
    /// What `scripts/engine` has installed, which it does first if that is missing.
    fn folder() -> &'static Path {
        static FOLDER: OnceLock<PathBuf> = OnceLock::new();
        FOLDER.get_or_init(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let script = root.join("scripts/engine");
            let output = Command::new(script).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "scripts/engine: {said}");
            String::from_utf8(output.stdout).unwrap().trim().into()
        })
    }

    /// Servers that start at the same time, with an empty cache.
    pub(crate) fn start_all<const COUNT: usize>(names: [&'static str; COUNT]) -> [Self; COUNT] {
        let folder = Self::folder();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/engine/serve.py");
        let started = names.map(|name| {
            let child = Command::new(folder.join("bin/python"))
                .arg(&program)
                .arg(folder.join("model.gguf"))
                .arg(name)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            (name, child.unwrap())
        });
        started.map(|(name, mut child)| {
            let mut port = String::new();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            stdout.read_line(&mut port).unwrap();
            let port = port.trim().parse::<u16>();
            let port = port.unwrap_or_else(|_| panic!("server {name} has not started"));
            Self {
                child,
                name,
                address: ([127, 0, 0, 1], port).into(),
            }
        })
    }

    /// A number that the server counts, as its own `/metrics` has it.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let url = format!("http://{}/metrics", self.address);
        let mut answer = ureq::get(&url).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let start = format!("llamacpp:{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value
            .unwrap_or_else(|| panic!("{name}: {text}"))
            .parse()
            .unwrap()
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.child.id(), signal);
    }

    /// Ends it at once, with all that it answers.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An answer that is being streamed, as an iterator of its events.
pub(crate) struct Events {
    lines: Lines<BufReader<ureq::BodyReader<'static>>>,
    /// Whether the event that ends an answer has come.
    is_complete: bool,
}

/// An answer that has ended.
#[derive(Debug)]
pub(crate) struct Generated {
    /// The server that has sent it.
    pub(crate) engine: String,
    pub(crate) text: String,
    /// Events that had text.
    pub(crate) pieces: usize,
    /// Tokens of the prompt that the server had cached, and those that it computed.
    pub(crate) cached: u64,
    pub(crate) computed: u64,
}

impl Events {
    /// Asks through a gateway for an answer that is streamed, and waits for its head.
    pub(crate) fn ask(
        gateway: &Gateway,
        path: &str,
        document: &Value,
        headers: &[(&str, &str)],
    ) -> Self {
        let url = format!("http://{}{path}", gateway.proxy);
        let request = ureq::post(&url).header("content-type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let answer = request.send(document.to_string());
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
        let media_type = answer.headers()["content-type"].to_str().unwrap();
        assert!(media_type.starts_with("text/event-stream"), "{media_type}");
        Self {
            lines: BufReader::new(answer.into_body().into_reader()).lines(),
            is_complete: false,
        }
    }

    /// The rest of the answer, after events that were read before; nothing if it broke off.
    pub(crate) fn finish(mut self, mut events: Vec<Value>) -> Option<Generated> {
        events.extend(self.by_ref());
        let text_of = |event: &Value| {
            let choice = &event["choices"][0];
            let text = [&choice["text"], &choice["delta"]["content"]];
            let text = text.into_iter().find_map(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let pieces: Vec<String> = events.iter().filter_map(text_of).collect();
        let timings = &events.last()?["timings"];
        self.is_complete.then(|| Generated {
            engine: events[0]["model"].as_str().unwrap().to_owned(),
            text: pieces.concat(),
            pieces: pieces.len(),
            cached: timings["cache_n"].as_u64().unwrap(),
            computed: timings["prompt_n"].as_u64().unwrap(),
        })
    }
}

impl Iterator for Events {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        while let Some(Ok(line)) = self.lines.next() {
            match line.strip_prefix("data: ") {
                Some("[DONE]") => self.is_complete = true,
                Some(event) => return Some(serde_json::from_str(event).unwrap()),
                None => assert_eq!(line, ""),
            }
        }
        None
    }
}
