//! The values that fields are compared with.

use std::net::IpAddr;

use ipnet::IpNet;

/// A value as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Text(String),
    Number(i64),
    Address(IpAddr),
    Network(IpNet),
}

/// Reads a value that is written without quotes.
///
/// # Errors
/// What should be there instead.
pub(super) fn bare(text: &str) -> Result<Literal, String> {
    if let Some((address, _)) = text.split_once('/') {
        let network: IpNet = text
            .parse()
            .map_err(|_| format!("expected a CIDR such as 10.0.0.0/8 or fd00::/64, not {text}"))?;
        // Kong refuses such a CIDR as well.
        if network.trunc() != network {
            let host = format!("host part of the address {address} is not zero");
            return Err(format!("{host}: write {}", network.trunc()));
        }
        return Ok(Literal::Network(network));
    }
    if text.contains(['.', ':']) {
        let address = text.parse();
        return address
            .map(Literal::Address)
            .map_err(|_| format!("expected an IP address, not {text}"));
    }
    number(text).map(Literal::Number).ok_or_else(|| {
        format!(
            "expected a number of 64 bits: decimal, 0x and hexadecimal, or 0 and octal, not {text}"
        )
    })
}

fn number(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (digits, radix) = if let Some(digits) = digits.strip_prefix("0x") {
        (digits, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (digits, 8)
    } else {
        (digits, 10)
    };
    let is_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    // The least number has no positive counterpart, so the sign is read with the digits.
    is_digits.then(|| i64::from_str_radix(&format!("{sign}{digits}"), radix).ok())?
}
