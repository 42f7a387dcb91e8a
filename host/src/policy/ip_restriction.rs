//! `ip-restriction`: lets clients of some addresses in, or keeps them out. Source: Kong 3.9,
//! `ip-restriction`.

use std::net::IpAddr;

use http::StatusCode;

use super::answer::Answer;
use super::request::Request;
use super::{Access, DryRun, Policy, Stream};
use crate::entity::plugin::ip_restriction::Config;
use crate::ip_ranges::{IpRanges, ip_range};

/// Refuses clients by their addresses.
#[derive(Debug)]
pub(super) struct IpRestriction {
    allow: Option<IpRanges>,
    deny: Option<IpRanges>,
    status: StatusCode,
    message: Option<String>,
}

/// `None` for an empty list, which Kong treats as one that is not given.
fn ranges(texts: Option<&[String]>) -> Result<Option<IpRanges>, String> {
    let texts = texts.unwrap_or_default();
    let parsed = texts.iter().map(|text| {
        let range = ip_range(text);
        range.ok_or_else(|| format!("{text} is no range of addresses"))
    });
    let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
    Ok((!parsed.is_empty()).then(|| IpRanges::new(parsed)))
}

impl IpRestriction {
    /// # Errors
    /// A range is none.
    pub(super) fn new(config: Config) -> Result<Self, String> {
        let status = config.status.map(|status| status as u16);
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        Ok(Self {
            allow: ranges(config.allow.as_deref())?,
            deny: ranges(config.deny.as_deref())?,
            status: status.unwrap_or(StatusCode::FORBIDDEN),
            message: config.message,
        })
    }

    fn is_allowed(&self, address: IpAddr) -> bool {
        let is_denied = self.deny.as_ref().is_some_and(|deny| deny.contain(address));
        !is_denied
            && self
                .allow
                .as_ref()
                .is_none_or(|allow| allow.contain(address))
    }
}

impl Policy for IpRestriction {
    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        // A listener for both versions of IP shows the addresses of version 4 within version 6.
        let address = request.client.address.ip().to_canonical();
        if self.is_allowed(address) {
            return Access::PASS;
        }
        let message = self.message.clone();
        let message = message.unwrap_or_else(|| format!("IP address not allowed: {address}"));
        Answer::error(self.status, message).into()
    }

    fn admits_stream(&self, stream: &Stream) -> bool {
        self.is_allowed(stream.client.ip())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> IpRestriction {
        let list = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
        IpRestriction::new(Config {
            allow: list(allow),
            deny: list(deny),
            status: None,
            message: None,
        })
        .unwrap()
    }

    #[test]
    fn an_address_that_is_denied_is_not_allowed() {
        let both = policy(&["10.0.0.0/8", "::1"], &["10.1.0.0/16", "10.2.3.4"]);
        for (address, allowed) in [
            ("10.0.0.1", true),
            ("10.1.2.3", false),
            ("10.2.3.4", false),
            ("10.2.3.5", true),
            ("11.0.0.1", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(
                both.is_allowed(address.parse().unwrap()),
                allowed,
                "{address}"
            );
        }
        assert!(policy(&[], &["10.0.0.0/8"]).is_allowed("11.0.0.1".parse().unwrap()));
        assert!(!policy(&["0.0.0.0/0"], &[]).is_allowed("::1".parse().unwrap()));
    }
}
