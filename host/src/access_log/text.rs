//! What lines are made of: numbers, times, and what of a request has to be known for them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::clock::since_1970;
use crate::config::{LogFormat, LogPart, LogVariable};
use crate::endpoint_address::EndpointAddress;

/// What a reader of records needs to know of requests. What it does not need costs nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants {
    /// Route, service, tries and the times of stages.
    pub trace: bool,
    /// The host.
    pub host: bool,
    /// The sizes of heads.
    pub sizes: bool,
    /// The headers of the response.
    pub response_headers: bool,
}

impl Wants {
    /// Everything.
    pub const ALL: Self = Self {
        trace: true,
        host: true,
        sizes: true,
        response_headers: true,
    };

    /// What the lines of a format need.
    pub(super) fn of(format: &LogFormat) -> Self {
        let parts = match format {
            LogFormat::Json => {
                return Self {
                    response_headers: false,
                    ..Self::ALL
                };
            }
            LogFormat::Template { parts, .. } => parts,
        };
        let mut wants = Self::default();
        for part in parts {
            let LogPart::Variable(variable) = part else {
                continue;
            };
            match variable {
                LogVariable::Host => wants.host = true,
                LogVariable::BytesSent | LogVariable::RequestLength => wants.sizes = true,
                LogVariable::ResponseHeader(_) => wants.response_headers = true,
                LogVariable::Access
                | LogVariable::Balancer
                | LogVariable::BalancerDigest
                | LogVariable::BalancerVersion
                | LogVariable::ChosenBy
                | LogVariable::Match
                | LogVariable::Pick
                | LogVariable::Route
                | LogVariable::Service
                | LogVariable::UpstreamAddr
                | LogVariable::UpstreamHeaderTime
                | LogVariable::UpstreamName
                | LogVariable::UpstreamResponseTime
                | LogVariable::UpstreamStatus
                | LogVariable::UpstreamUri => wants.trace = true,
                _ => {}
            }
        }
        wants
    }
}

/// The time of a line, whose texts change once a second. In UTC.
#[derive(Debug, Default)]
pub(super) struct Times {
    since_1970: Duration,
    /// The second that the texts are of.
    second: Option<u64>,
    local: String,
    iso: String,
}

impl Times {
    pub(super) fn set(&mut self, now: SystemTime) {
        self.since_1970 = since_1970(now);
        if self.second.replace(self.since_1970.as_secs()) == Some(self.since_1970.as_secs()) {
            return;
        }
        // As in "Sun, 06 Nov 1994 08:49:37 GMT".
        let date = httpdate::fmt_http_date(now);
        let part = |range| date.get(range).unwrap_or_default();
        let (day, month, year, time) = (part(5..7), part(8..11), part(12..16), part(17..25));
        let number = MONTHS.iter().position(|name| *name == month).unwrap_or(0) + 1;
        self.local = format!("{day}/{month}/{year}:{time} +0000");
        self.iso = format!("{year}-{number:02}-{day}T{time}");
    }

    /// As in `06/Nov/1994:08:49:37 +0000`.
    pub(super) fn local(&self) -> &str {
        &self.local
    }

    /// As in `1994-11-06T08:49:37`, without the zone.
    pub(super) fn iso(&self) -> &str {
        &self.iso
    }

    /// The time since 1970.
    pub(super) fn since_1970(&self) -> Duration {
        self.since_1970
    }

    /// Milliseconds of the second.
    pub(super) fn millis(&self) -> u64 {
        self.since_1970.subsec_millis().into()
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Writes a number.
pub(super) fn number(text: &mut Vec<u8>, number: u64) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes a number of three digits.
pub(super) fn three_digits(text: &mut Vec<u8>, number: u64) {
    for factor in [100, 10, 1] {
        text.push(b'0' + (number / factor % 10) as u8);
    }
}

/// Writes seconds with milliseconds, as nginx does.
pub(super) fn seconds(text: &mut Vec<u8>, time: Duration) {
    number(text, time.as_secs());
    text.push(b'.');
    three_digits(text, time.subsec_millis().into());
}

/// Whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Writes an address as it displays itself. Formatting would take several times as long.
pub(super) fn ip(text: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            number(text, first.into());
            for octet in rest {
                text.push(b'.');
                number(text, octet.into());
            }
        }
        IpAddr::V6(address) => display(text, address),
    }
}

/// Writes the address of an endpoint as it displays itself. The path of a Unix socket is passed to
/// `escape`.
pub(super) fn endpoint(
    text: &mut Vec<u8>,
    address: &EndpointAddress,
    escape: impl FnOnce(&mut Vec<u8>, &[u8]),
) {
    match address {
        EndpointAddress::Inet(SocketAddr::V4(address)) => {
            ip(text, (*address.ip()).into());
            text.push(b':');
            number(text, address.port().into());
        }
        other => escape(text, other.to_string().as_bytes()),
    }
}

/// Writes what displays itself, without anything to escape.
pub(super) fn display(text: &mut Vec<u8>, value: impl std::fmt::Display) {
    use std::io::Write as _;
    // Writing to memory does not fail.
    let _ = write!(text, "{value}");
}

/// Writes an id.
pub(super) fn id(text: &mut Vec<u8>, id: Uuid) {
    let mut buffer = Uuid::encode_buffer();
    text.extend_from_slice(id.as_hyphenated().encode_lower(&mut buffer).as_bytes());
}

/// Number of lines.
pub(super) fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_written_as_nginx_writes_them() {
        let mut times = Times::default();
        times.set(SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_042));
        assert_eq!(times.local(), "06/Nov/1994:08:49:37 +0000");
        assert_eq!(times.iso(), "1994-11-06T08:49:37");
        assert_eq!(times.millis(), 42);
        times.set(SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_778_000));
        assert_eq!(times.iso(), "1994-11-06T08:49:38");
        let mut text = Vec::new();
        seconds(&mut text, Duration::from_micros(12_034_999));
        assert_eq!(text, b"12.034");
    }

    proptest! {
        #[test]
        fn a_number_is_written_in_decimal(value: u64) {
            let mut text = Vec::new();
            number(&mut text, value);
            prop_assert_eq!(text, value.to_string().into_bytes());
        }

        #[test]
        fn addresses_and_ids_are_written_as_they_display_themselves(
            address: IpAddr,
            port: u16,
            number: u128,
        ) {
            let (mut text, uuid) = (Vec::new(), Uuid::from_u128(number));
            ip(&mut text, address);
            let to = EndpointAddress::Inet(SocketAddr::new(address, port));
            endpoint(&mut text, &to, |text, other| text.extend_from_slice(other));
            id(&mut text, uuid);
            prop_assert_eq!(text, format!("{address}{to}{uuid}").into_bytes());
        }
    }
}
