//! The log of requests: where it goes, and the form of its lines.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::endpoint_address::{UNIX, unix_path};

/// The log of requests.
#[derive(Debug, Clone, Default)]
pub struct AccessLog {
    /// Where it goes; `None` for no log.
    pub target: Option<LogTarget>,
    /// The form of its lines.
    pub format: LogFormat,
    /// Size of a file at which another one begins, in bytes; none for no limit.
    pub max_size: Option<u64>,
    /// Files that are kept beside the one that is written.
    pub max_files: u32,
    /// The format as it is written, until it is checked.
    pub(super) written_format: String,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// To a file, or a named pipe.
    File(PathBuf),
    /// To the standard output.
    Stdout,
    /// To the standard error.
    Stderr,
    /// To a log daemon.
    Syslog(SyslogTarget),
}

/// A log daemon, and what its messages say besides the line. Source: nginx, `syslog:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogTarget {
    /// Where it listens; `None` for the setting `syslog_socket`.
    pub server: Option<SyslogServer>,
    /// The facility, from 0 to 23.
    pub facility: u8,
    /// The severity, from 0 to 7.
    pub severity: u8,
    /// The name of the program.
    pub tag: String,
    /// Whether messages name this machine.
    pub has_hostname: bool,
}

/// Where a log daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogServer {
    /// By UDP, at a host and a port.
    Udp(String),
    /// At a Unix socket.
    Unix(PathBuf),
}

/// The form of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// A JSON document with all that is known.
    Json,
    /// Text with variables.
    Template {
        /// The parts of the line.
        parts: Vec<LogPart>,
        /// How values are written.
        escape: LogEscape,
    },
}

/// How the values of variables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEscape {
    /// Bytes that are not printable ASCII, quotes and backslashes as `\xXX`; an absent value as
    /// `-`. Source: nginx, `escape=default`.
    Default,
    /// As within a string of JSON; an absent value is empty. Source: nginx, `escape=json`.
    Json,
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPart<V = LogVariable> {
    /// Text that is the same in every line.
    Text(String),
    /// A value.
    Variable(V),
}

/// Declares the variables by their names.
macro_rules! variables {
    ($($variable:ident $name:literal,)+) => {
        /// A value in a line. Those that nginx knows have its names and its meaning.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "docs/logging.md has the list, by the same names")]
        pub enum LogVariable {
            $($variable,)+
            /// A header of the request.
            RequestHeader(http::HeaderName),
            /// A header of the response.
            ResponseHeader(http::HeaderName),
        }

        /// The names of the variables that are not headers.
        #[cfg(test)]
        pub(super) const VARIABLES: &[&str] = &[$($name,)+];

        fn named(name: &str) -> Option<LogVariable> {
            Some(match name {
                $($name => LogVariable::$variable,)+
                _ => return None,
            })
        }
    };
}

variables! {
    Access "access_time",
    Args "args",
    Balancer "balancer",
    BalancerDigest "balancer_digest",
    BalancerVersion "balancer_version",
    BodyBytesSent "body_bytes_sent",
    BytesSent "bytes_sent",
    ChosenBy "chosen_by",
    Connection "connection",
    ConnectionRequests "connection_requests",
    Consumer "consumer",
    Host "host",
    KongRequestId "kong_request_id",
    Match "match_time",
    Msec "msec",
    Pick "pick_time",
    Policy "policy",
    QueryString "query_string",
    Reason "reason",
    RemoteAddr "remote_addr",
    RemotePort "remote_port",
    RemoteUser "remote_user",
    Request "request",
    RequestId "request_id",
    RequestLength "request_length",
    RequestMethod "request_method",
    RequestTime "request_time",
    RequestUri "request_uri",
    Route "route",
    Scheme "scheme",
    ServerAddr "server_addr",
    ServerPort "server_port",
    ServerProtocol "server_protocol",
    Service "service",
    Source "source",
    SslCipher "ssl_cipher",
    SslClientVerify "ssl_client_verify",
    SslProtocol "ssl_protocol",
    Status "status",
    TimeIso8601 "time_iso8601",
    TimeLocal "time_local",
    TraceId "trace_id",
    UpstreamAddr "upstream_addr",
    UpstreamHeaderTime "upstream_header_time",
    UpstreamName "upstream_name",
    UpstreamResponseTime "upstream_response_time",
    UpstreamStatus "upstream_status",
    UpstreamUri "upstream_uri",
    Uri "uri",
}

/// The common log format of NCSA.
const COMMON: &str =
    r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent"#;

/// nginx's `combined`.
const COMBINED: &str = r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent""#;

/// Kong's `kong_log_format`.
const KONG: &str = r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" kong_request_id: "$kong_request_id""#;

impl Default for LogFormat {
    fn default() -> Self {
        Self::Template {
            parts: Vec::new(),
            escape: LogEscape::Default,
        }
    }
}

impl LogFormat {
    /// The format that a text names, or has as a template.
    ///
    /// # Errors
    /// What is wrong with it, and what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = match text {
            "json" => return Ok(Self::Json),
            "common" => COMMON,
            "combined" => COMBINED,
            "kong" => KONG,
            text if text.contains('$') => text,
            _ => {
                return Err(
                    "expected json, common, combined, kong, or a template with variables such as \
                     $remote_addr"
                        .into(),
                );
            }
        };
        let (parts, escape) = parse_template(template, variable)?;
        Ok(Self::Template { parts, escape })
    }
}

/// Reads a template, with what reads the names of variables.
pub(super) fn parse_template<V>(
    template: &str,
    variable: fn(&str) -> Option<V>,
) -> Result<(Vec<LogPart<V>>, LogEscape), String> {
    let (escape, template) = match template.split_once(' ') {
        Some(("escape=json", rest)) => (LogEscape::Json, rest),
        Some(("escape=default", rest)) => (LogEscape::Default, rest),
        Some((other, _)) if other.starts_with("escape=") => {
            return Err(format!(
                "expected escape=default or escape=json, not {other}: values are never written as \
                 they are, since a client could then write lines of its own"
            ));
        }
        _ => (LogEscape::Default, template),
    };
    if template.contains(|c: char| c.is_control()) {
        return Err("a line may have no control characters".into());
    }
    Ok((parts(template, variable)?, escape))
}

/// The parts of a template.
fn parts<V>(template: &str, variable: fn(&str) -> Option<V>) -> Result<Vec<LogPart<V>>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let (name, after) = match after.strip_prefix('{') {
            Some(braced) => braced
                .split_once('}')
                .ok_or_else(|| "a variable in braces has no end".to_owned())?,
            None => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = after.find(|c| !is_part(c)).unwrap_or(after.len());
                after.split_at(end)
            }
        };
        rest = after;
        if !text.is_empty() {
            parts.push(LogPart::Text(std::mem::take(&mut text)));
        }
        let variable = variable(name)
            .ok_or_else(|| format!("there is no variable ${name}; docs/logging.md has the list"))?;
        parts.push(LogPart::Variable(variable));
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(LogPart::Text(text));
    }
    Ok(parts)
}

fn variable(name: &str) -> Option<LogVariable> {
    if let Some(variable) = named(name) {
        return Some(variable);
    }
    // As in nginx: lower case, with underscores in place of dashes.
    let header = |name: &str| {
        let name = name.replace('_', "-");
        http::HeaderName::from_bytes(name.as_bytes()).ok()
    };
    if let Some(name) = name.strip_prefix("sent_http_") {
        return header(name).map(LogVariable::ResponseHeader);
    }
    let name = name.strip_prefix("http_")?;
    header(name).map(LogVariable::RequestHeader)
}

impl AccessLog {
    /// Stores the target, which the name of a format may follow. A last word without slash and dot
    /// is the name of a format; a target of that kind, such as `on`, is not a path either.
    pub(super) fn set_target(&mut self, text: &str) -> Option<()> {
        self.set_target_or_format(text, &["json", "common", "combined", "kong"])
    }

    /// The same with the names of other formats.
    pub(super) fn set_target_or_format(&mut self, text: &str, formats: &[&str]) -> Option<()> {
        let text = text.trim();
        let (target, format) = match text.rsplit_once(' ') {
            Some((target, name)) if !name.contains(['/', '.', '=', ':']) => (
                target.trim_end(),
                Some(*formats.iter().find(|known| **known == name)?),
            ),
            _ => (text, None),
        };
        self.target = match target {
            "" => return None,
            "off" => None,
            "/dev/stdout" => Some(LogTarget::Stdout),
            "/dev/stderr" => Some(LogTarget::Stderr),
            target => match target.strip_prefix("syslog:") {
                Some(options) => Some(LogTarget::Syslog(SyslogTarget::parse(options)?)),
                None if !target.contains(['/', '.']) => return None,
                None => Some(LogTarget::File(target.into())),
            },
        };
        if let Some(format) = format {
            self.written_format = format.to_owned();
        }
        Some(())
    }

    /// Reads the format, once both settings are known that may name it.
    pub(super) fn check(&mut self, mistakes: &mut Vec<String>) {
        match LogFormat::parse(&self.written_format) {
            Ok(format) => self.format = format,
            Err(wrong) => mistakes.push(format!(
                "proxy_access_log_format = {:?}: {wrong}",
                self.written_format
            )),
        }
    }
}

/// The facilities of syslog by number. Source: RFC 3164, with the names of nginx.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv",
    "ftp", "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// The severities of syslog by number.
const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug",
];

impl SyslogTarget {
    /// Reads `server=ADDR,facility=NAME,severity=NAME,tag=NAME,nohostname`, each of which may be
    /// left out.
    fn parse(options: &str) -> Option<Self> {
        let mut target = Self {
            server: None,
            facility: 23,
            severity: 6,
            tag: "pointsman".into(),
            has_hostname: true,
        };
        let number = |names: &[&str], name: &str| {
            let number = names.iter().position(|known| *known == name)?;
            u8::try_from(number).ok()
        };
        for option in options.split(',').map(str::trim).filter(|o| !o.is_empty()) {
            match option.split_once('=') {
                None if option == "nohostname" => target.has_hostname = false,
                Some(("server", server)) => target.server = Some(SyslogServer::parse(server)?),
                Some(("facility", name)) => target.facility = number(&FACILITIES, name)?,
                Some(("severity", name)) => target.severity = number(&SEVERITIES, name)?,
                Some(("tag", tag)) => {
                    let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    let fits = !tag.is_empty() && tag.len() <= 32 && tag.chars().all(is_valid);
                    target.tag = fits.then(|| tag.to_owned())?;
                }
                _ => return None,
            }
        }
        Some(target)
    }
}

impl SyslogServer {
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with(UNIX) {
            return unix_path(text).map(|path| Self::Unix(path.to_owned()));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self::Udp(address.to_string()));
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
            return Some(Self::Udp(SocketAddr::new(ip, 514).to_string()));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().ok()?),
            None => (text, 514),
        };
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let fits = !host.is_empty() && host.chars().all(is_valid);
        fits.then(|| Self::Udp(format!("{host}:{port}")))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn target(text: &str) -> Option<Option<LogTarget>> {
        let mut log = AccessLog::default();
        log.set_target(text).map(|()| log.target)
    }

    #[test]
    fn a_target_is_a_file_a_stream_or_a_daemon() {
        assert_eq!(target("off"), Some(None));
        assert_eq!(target("/dev/stdout"), Some(Some(LogTarget::Stdout)));
        let file = |path: &str| Some(Some(LogTarget::File(path.into())));
        assert_eq!(target("logs/access.log"), file("logs/access.log"));
        assert_eq!(target("/a b/access.log json"), file("/a b/access.log"));
        assert_eq!(target("/a b/access.log"), file("/a b/access.log"));
        // nginx's stock name, and a slip: neither is a part of the path.
        for unknown in ["", "on", "json", "/a/access.log main", "/dev/stdout jsn"] {
            assert_eq!(target(unknown), None, "{unknown}");
        }
        let syslog = |text: &str| match target(text) {
            Some(Some(LogTarget::Syslog(syslog))) => syslog,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(syslog("syslog:").server, None);
        let full =
            syslog("syslog:server=192.0.2.1,facility=local0,severity=debug,tag=a_1,nohostname");
        assert_eq!(full.server, Some(SyslogServer::Udp("192.0.2.1:514".into())));
        assert_eq!((full.facility, full.severity, &*full.tag), (16, 7, "a_1"));
        assert!(!full.has_hostname);
        let unix = syslog("syslog:server=unix:/dev/log").server;
        assert_eq!(unix, Some(SyslogServer::Unix("/dev/log".into())));
        let ipv6 = syslog("syslog:server=[::1]:1514").server;
        assert_eq!(ipv6, Some(SyslogServer::Udp("[::1]:1514".into())));
        for wrong in [
            "syslog:facility=x",
            "syslog:server=a:b",
            "syslog:tag=a b",
            "syslog:x",
        ] {
            assert_eq!(target(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_template_has_text_and_variables() {
        let LogFormat::Template { parts, escape } =
            LogFormat::parse(r"escape=json {$status ${http_x_a}b$sent_http_via}").unwrap()
        else {
            panic!("no template");
        };
        let text = |text: &str| LogPart::Text(text.into());
        let header = |name| http::HeaderName::from_static(name);
        assert_eq!(escape, LogEscape::Json);
        assert_eq!(
            parts,
            [
                text("{"),
                LogPart::Variable(LogVariable::Status),
                text(" "),
                LogPart::Variable(LogVariable::RequestHeader(header("x-a"))),
                text("b"),
                LogPart::Variable(LogVariable::ResponseHeader(header("via"))),
                text("}"),
            ]
        );
    }

    #[test]
    fn every_named_format_is_valid_and_a_wrong_one_says_why() {
        for name in ["json", "common", "combined", "kong"] {
            assert!(LogFormat::parse(name).is_ok(), "{name}");
        }
        for (wrong, why) in [
            ("xml", "expected json"),
            ("$status $nothing", "no variable $nothing"),
            ("$", "no variable $"),
            ("${status", "no end"),
            ("escape=none $status", "lines of its own"),
            ("$status\n", "control characters"),
        ] {
            let error = LogFormat::parse(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn the_documentation_lists_every_variable() {
        let page = include_str!("../../../docs/logging.md");
        let missing: Vec<&&str> = VARIABLES
            .iter()
            .filter(|name| !page.contains(&format!("`${name}`")))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
