//! The log of streams: where it goes, and the form of its lines. Source: Kong 3.9,
//! `proxy_stream_access_log`, and nginx, `ngx_stream_log_module`.

use super::access_log::{AccessLog, LogEscape, LogPart, LogTarget, parse_template};

/// The log of streams.
#[derive(Debug, Clone, Default)]
pub struct StreamAccessLog {
    /// Where it goes, and when another file begins. Its own format is not used.
    pub log: AccessLog,
    /// The form of its lines.
    pub format: StreamLogFormat,
}

/// The form of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamLogFormat {
    /// A JSON document with all that is known.
    Json,
    /// Text with variables.
    Template {
        /// The parts of the line.
        parts: Vec<LogPart<StreamLogVariable>>,
        /// How values are written.
        escape: LogEscape,
    },
}

impl Default for StreamLogFormat {
    fn default() -> Self {
        Self::Template {
            parts: Vec::new(),
            escape: LogEscape::Default,
        }
    }
}

/// Declares the variables by their names.
macro_rules! variables {
    ($($variable:ident $name:literal,)+) => {
        /// A value in a line. Those that nginx knows have its names and its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "docs/logging.md has the list, by the same names")]
        pub enum StreamLogVariable {
            $($variable,)+
        }

        /// The names of the variables.
        #[cfg(test)]
        pub(super) const VARIABLES: &[&str] = &[$($name,)+];

        fn named(name: &str) -> Option<StreamLogVariable> {
            Some(match name {
                $($name => StreamLogVariable::$variable,)+
                _ => return None,
            })
        }
    };
}

variables! {
    BytesReceived "bytes_received",
    BytesSent "bytes_sent",
    Msec "msec",
    Protocol "protocol",
    RemoteAddr "remote_addr",
    RemotePort "remote_port",
    Route "route",
    ServerAddr "server_addr",
    ServerPort "server_port",
    Service "service",
    SessionTime "session_time",
    Source "source",
    SslCipher "ssl_cipher",
    SslClientVerify "ssl_client_verify",
    SslProtocol "ssl_protocol",
    SslServerName "ssl_server_name",
    Status "status",
    TimeIso8601 "time_iso8601",
    TimeLocal "time_local",
    UpstreamAddr "upstream_addr",
    UpstreamBytesReceived "upstream_bytes_received",
    UpstreamBytesSent "upstream_bytes_sent",
    UpstreamConnectTime "upstream_connect_time",
}

/// Kong's `basic`.
const BASIC: &str =
    "$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time";

impl StreamLogFormat {
    /// The format that a text names, or has as a template.
    ///
    /// # Errors
    /// What is wrong with it, and what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = match text {
            "json" => return Ok(Self::Json),
            "basic" => BASIC,
            text if text.contains('$') => text,
            _ => {
                return Err(
                    "expected json, basic, or a template with variables such as $remote_addr"
                        .into(),
                );
            }
        };
        let (parts, escape) = parse_template(template, named)?;
        Ok(Self::Template { parts, escape })
    }
}

impl StreamAccessLog {
    /// Stores the target, which the name of a format may follow.
    pub(super) fn set_target(&mut self, text: &str) -> Option<()> {
        self.log.set_target_or_format(text, &["json", "basic"])
    }

    /// Reads the format, once both settings are known that may name it. `requests` is the log of
    /// requests.
    pub(super) fn check(&mut self, requests: &AccessLog, mistakes: &mut Vec<String>) {
        match StreamLogFormat::parse(&self.log.written_format) {
            Ok(format) => self.format = format,
            Err(wrong) => mistakes.push(format!(
                "proxy_stream_access_log_format = {:?}: {wrong}",
                self.log.written_format
            )),
        }
        let is_file = matches!(self.log.target, Some(LogTarget::File(_)));
        if is_file && self.log.target == requests.target && self.log.max_size.is_some() {
            mistakes.push(
                "proxy_stream_access_log is the file of proxy_access_log, which is renamed at \
                 proxy_access_log_max_size: give it a file of its own, or set no size"
                    .to_owned(),
            );
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_named_or_a_template_of_variables_of_streams() {
        assert_eq!(
            StreamLogFormat::parse("json").unwrap(),
            StreamLogFormat::Json
        );
        for text in ["basic", "$remote_addr ${ssl_server_name}"] {
            assert!(StreamLogFormat::parse(text).is_ok(), "{text}");
        }
        for (wrong, why) in [
            ("kong", "expected json, basic"),
            ("$request", "no variable $request"),
        ] {
            let said = StreamLogFormat::parse(wrong).unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }

    #[test]
    fn two_logs_in_one_file_are_not_renamed_by_either() {
        let mut mistakes = Vec::new();
        let mut requests = AccessLog::default();
        requests.set_target("/a/access.log").unwrap();
        let mut streams = StreamAccessLog::default();
        streams.set_target("/a/access.log basic").unwrap();
        streams.check(&requests, &mut mistakes);
        assert_eq!(mistakes, [""; 0]);
        streams.log.max_size = Some(1);
        streams.check(&requests, &mut mistakes);
        assert_eq!(mistakes.len(), 1);
    }

    #[test]
    fn every_variable_is_documented() {
        let docs = include_str!("../../../docs/logging.md");
        for name in VARIABLES {
            assert!(docs.contains(&format!("`${name}`")), "${name}");
        }
    }
}
