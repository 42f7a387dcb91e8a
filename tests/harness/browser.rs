//! A real browser, for the page: Debian's Chromium, driven by its own driver over WebDriver (W3C).
//! The few commands that tests need are requests with JSON; a client library would bring twenty
//! crates, among them an older HTTP and an older ICU.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Longest wait for something to be shown.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The name that the protocol has for the reference of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one tab. It is closed when dropped.
pub(crate) struct Browser {
    driver: Child,
    /// The address of the session.
    session: String,
    agent: ureq::Agent,
}

/// A driver of Chromium and its port; `None` if it has ended.
fn driver() -> Option<(Child, u16)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("chromedriver, which scripts/test installs: {error}"));
    let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = said.find_map(|line| {
        let line = line.unwrap();
        let port = line
            .split("successfully on port ")
            .nth(1)?
            .trim_end_matches('.');
        port.parse::<u16>().ok()
    });
    let Some(port) = port else {
        driver.wait().unwrap();
        return None;
    };
    // The driver would block on a full pipe if its log were not read.
    std::thread::spawn(move || said.for_each(drop));
    Some((driver, port))
}

impl Browser {
    /// A browser whose window has this size.
    pub(crate) fn start(width: u32, height: u32) -> Self {
        // chromedriver listens on the same port of IPv4 and of IPv6, and exits if one of them is in
        // use.
        let started = (0..5).find_map(|_| driver());
        let (driver, port) = started.unwrap();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build()
            .new_agent();
        let mut browser = Self {
            driver,
            session: format!("http://127.0.0.1:{port}/session"),
            agent,
        };
        let arguments = json!([
            "--headless=new",
            // Without a namespace of its own, as in containers.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            "--enable-precise-memory-info",
            "--js-flags=--expose-gc",
            format!("--window-size={width},{height}"),
        ]);
        let wanted = json!({ "goog:chromeOptions": { "args": arguments } });
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        // On a busy machine, Chromium may be slower than its driver waits.
        let begun = (0..3).find_map(|_| browser.command("", &wanted).ok());
        let begun = begun.unwrap_or_else(|| browser.post("", &wanted));
        browser.session = format!(
            "{}/{}",
            browser.session,
            begun["sessionId"].as_str().unwrap()
        );
        browser
    }

    /// Sends a command, and returns the value of the answer or the error.
    fn command(&self, path: &str, body: &Value) -> Result<Value, Value> {
        let request = ureq::http::Request::post(format!("{}{path}", self.session))
            .header("content-type", "application/json")
            .body(body.to_string());
        let mut answer = self.agent.run(request.unwrap()).unwrap();
        let content = answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_vec();
        let mut content: Value = serde_json::from_slice(&content.unwrap()).unwrap();
        match answer.status().is_success() {
            true => Ok(content["value"].take()),
            false => Err(content["value"].take()),
        }
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let done = self.command(path, body);
        done.unwrap_or_else(|error| panic!("{path} {body}: {}", error["message"]))
    }

    /// A command of Chromium's own protocol.
    pub(crate) fn devtools(&self, name: &str, parameters: &Value) -> Value {
        let body = json!({ "cmd": name, "params": parameters });
        self.post("/goog/cdp/execute", &body)
    }

    /// Loads a page, and collects its errors from then on.
    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
        self.run(
            "window.problems = [];\
             addEventListener('error', e => problems.push(String(e.message)));\
             addEventListener('unhandledrejection', e => problems.push(String(e.reason)));\
             document.addEventListener('securitypolicyviolation', e => problems.push(e.violatedDirective + ' ' + e.blockedURI));",
        );
    }

    /// Shows another screen of the page.
    pub(crate) fn show(&self, hash: &str) {
        self.run(&format!("location.hash = {};", json!(hash)));
    }

    /// The errors since the page was loaded: of scripts, and of the policy of its content.
    pub(crate) fn problems(&self) -> Value {
        self.run("return window.problems;")
    }

    /// Runs a script, and returns its value.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits for an element that can be acted on, and does so. Until then it may be absent, hidden,
    /// covered, or replaced by a newer one.
    fn act(&self, using: &str, what: &str, act: impl Fn(&str) -> Result<Value, Value>) {
        let start = Instant::now();
        loop {
            let found = self.command("/element", &json!({ "using": using, "value": what }));
            let done = found.and_then(|found| act(found[ELEMENT].as_str().unwrap_or_default()));
            let Err(error) = done else {
                return;
            };
            assert!(
                start.elapsed() < WAIT_TIMEOUT,
                "{what}: {}; shown: {}",
                error["message"],
                self.text("body")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until there is an element.
    pub(crate) fn wait_for(&self, css: &str) {
        self.act("css selector", css, |_| Ok(Value::Null));
    }

    /// The text of the first such element; empty if there is none.
    pub(crate) fn text(&self, css: &str) -> String {
        let script = format!(
            "const found = document.querySelector({}); return found ? found.innerText : '';",
            json!(css)
        );
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the first such element shows a text.
    #[track_caller]
    pub(crate) fn wait_for_text(&self, css: &str, text: &str) {
        let start = Instant::now();
        while !self.text(css).contains(text) {
            assert!(
                start.elapsed() < WAIT_TIMEOUT,
                "waited in vain: {text:?} in {css}; shown: {}",
                self.text("body")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Clicks an element.
    pub(crate) fn click(&self, css: &str) {
        self.act("css selector", css, |id| {
            self.command(&format!("/element/{id}/click"), &json!({}))
        });
    }

    /// Clicks the first button or link with this text: of the open dialog, or of the screen.
    pub(crate) fn click_text(&self, text: &str) {
        let named =
            format!("[(self::button or self::a) and normalize-space()='{text}' and not(@hidden)]");
        let path =
            format!("(//dialog[@open]//*{named} | //main[not(//dialog[@open])]//*{named})[1]");
        self.act("xpath", &path, |id| {
            self.command(&format!("/element/{id}/click"), &json!({}))
        });
    }

    /// Takes back the change that a notice tells of.
    pub(crate) fn undo(&self, told: &str) {
        let path = format!(
            "//div[contains(@class, 'notice') and span[contains(., '{told}')]]/button[normalize-space()='Undo']"
        );
        self.act("xpath", &path, |id| {
            self.command(&format!("/element/{id}/click"), &json!({}))
        });
    }

    /// Puts a text in place of that of a field.
    pub(crate) fn fill(&self, css: &str, text: &str) {
        self.act("css selector", css, |id| {
            self.command(&format!("/element/{id}/clear"), &json!({}))?;
            self.command(&format!("/element/{id}/value"), &json!({ "text": text }))
        });
    }

    /// Gives a file to a field, as its dialog does.
    pub(crate) fn choose_file(&self, css: &str, file: &Path) {
        let text = file.to_str().unwrap();
        self.act("css selector", css, |id| {
            self.command(&format!("/element/{id}/value"), &json!({ "text": text }))
        });
    }

    /// Presses a key at an element.
    pub(crate) fn press(&self, css: &str, key: &str) {
        self.act("css selector", css, |id| {
            self.command(&format!("/element/{id}/value"), &json!({ "text": key }))
        });
    }

    /// What the page shows in a window of this size, as a PNG: all of it, or what is in the window.
    pub(crate) fn screenshot(&self, width: u32, height: u32) -> Vec<u8> {
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let shot = self.devtools(
            "Page.captureScreenshot",
            &json!({ "format": "png", "clip": clip, "captureBeyondViewport": true }),
        );
        STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let request = ureq::http::Request::delete(&self.session).body(());
        if let Ok(request) = request {
            let _ = self.agent.run(request);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
