//! The fields that expressions name.

use super::header_name::SentName;

/// The fields that an expression may name, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Requests.
    Http,
    /// Connections.
    Stream,
}

/// A field of a request or a connection. Source: Kong 3.9, `kong.router.schema`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    /// `net.protocol`: `http`, `https`, `tcp`, `tls` or `udp`.
    Protocol,
    /// `tls.sni`
    ServerName,
    /// `http.method`
    Method,
    /// `http.host`, without the port.
    Host,
    /// `http.path`, normalised.
    Path,
    /// `http.path.segments.N` and `.N_M`: the segments from the first to the last of these, from 0.
    Segments(usize, usize),
    /// `http.path.segments.len`
    SegmentCount,
    /// `http.headers.NAME`
    Header(SentName),
    /// `http.queries.NAME`
    Argument(Box<str>),
    /// `net.src.ip`
    SourceIp,
    /// `net.src.port`
    SourcePort,
    /// `net.dst.ip`
    DestinationIp,
    /// `net.dst.port`
    DestinationPort,
}

/// The type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Number,
    Address,
}

/// Why a text names no field.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FieldError {
    /// There is no such field.
    Unknown,
    /// What follows `http.path.segments.` is neither a number, nor two, nor `len`.
    Segments,
}

/// The greatest number of a segment. No request has as many.
const LAST_SEGMENT: usize = 1 << 16;

impl Field {
    pub(super) fn parse(name: &str, family: Family) -> Result<Self, FieldError> {
        let field = match name {
            "net.protocol" => Self::Protocol,
            "tls.sni" => Self::ServerName,
            "net.src.ip" => Self::SourceIp,
            "net.src.port" => Self::SourcePort,
            "net.dst.ip" => Self::DestinationIp,
            // The first one is an earlier name.
            "net.port" | "net.dst.port" => Self::DestinationPort,
            _ if family == Family::Stream => return Err(FieldError::Unknown),
            "http.method" => Self::Method,
            "http.host" => Self::Host,
            "http.path" => Self::Path,
            _ => return Self::parse_open(name),
        };
        Ok(field)
    }

    /// A field whose name has a part that the operator chooses.
    fn parse_open(name: &str) -> Result<Self, FieldError> {
        if let Some(header) = name.strip_prefix("http.headers.") {
            let header = SentName::parse(header).map_err(|_| FieldError::Unknown)?;
            return Ok(Self::Header(header));
        }
        if let Some(argument) = name.strip_prefix("http.queries.") {
            return match argument {
                "" => Err(FieldError::Unknown),
                argument => Ok(Self::Argument(argument.into())),
            };
        }
        match name.strip_prefix("http.path.segments.") {
            None => Err(FieldError::Unknown),
            Some("len") => Ok(Self::SegmentCount),
            Some(segments) => {
                let (first, last) = match segments.split_once('_') {
                    None => (number(segments), number(segments)),
                    Some((first, last)) => (number(first), number(last)),
                };
                match (first, last) {
                    (Some(first), Some(last)) if first < last || !segments.contains('_') => {
                        Ok(Self::Segments(first, last))
                    }
                    _ => Err(FieldError::Segments),
                }
            }
        }
    }

    pub(super) fn of_type(&self) -> Type {
        match self {
            Self::SourceIp | Self::DestinationIp => Type::Address,
            Self::SourcePort | Self::DestinationPort | Self::SegmentCount => Type::Number,
            _ => Type::Text,
        }
    }

    /// Whether its values are names that are compared without regard to case: a request has them in
    /// lower case.
    pub(super) fn is_name(&self) -> bool {
        matches!(self, Self::Host | Self::ServerName)
    }
}

/// A number without leading zeros.
fn number(text: &str) -> Option<usize> {
    let plain = text == "0" || !text.starts_with('0');
    let number = text.parse().ok().filter(|number| *number <= LAST_SEGMENT)?;
    (plain && !text.starts_with('+')).then_some(number)
}
