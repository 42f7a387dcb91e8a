//! The targets of `fuzz/`: one function for each parser of external input. Each takes any bytes,
//! and panics if a property does not hold. The tests run it on every stored input.

pub use crate::admin::fuzzing::{form, signature};
pub use crate::balancer::fuzzing::{component, json_scan};
pub use crate::declarative::fuzzing::{declarative, nginx};
pub use crate::exposition::fuzzing::exposition;
pub use crate::expression::fuzzing::expression;
pub use crate::http1::fuzzing::{request_body, response};
pub use crate::listener::fuzzing::{client_hello, proxy_protocol};
pub use crate::proxy::fuzzing::{client_address, cookies, request_head};
pub use crate::router::fuzzing::router;
pub use crate::trace_context::fuzzing::trace_context;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::path::Path;

    use super::*;

    /// The inputs of a target, one a line, as `fuzz/corpus.py` writes them: with `\\` and `\xNN`
    /// for bytes that are not plain text.
    fn inputs(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let text = std::fs::read_to_string(folder.join(format!("{target}.txt"))).unwrap();
        let inputs: Vec<Vec<u8>> = text.lines().map(unescape).collect();
        assert!(!inputs.is_empty(), "{target}");
        inputs
    }

    fn unescape(line: &str) -> Vec<u8> {
        let mut input = Vec::new();
        let mut rest = line;
        while let Some(at) = rest.find('\\') {
            input.extend_from_slice(&rest.as_bytes()[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('x') {
                input.push(u8::from_str_radix(&behind[..2], 16).unwrap());
                rest = &behind[2..];
            } else {
                input.push(b'\\');
                rest = &rest[1..];
            }
        }
        input.extend_from_slice(rest.as_bytes());
        input
    }

    #[test]
    fn every_stored_input_keeps_the_properties() {
        type Target = (&'static str, fn(&[u8]));
        let targets: [Target; 17] = [
            ("request_head", request_head),
            ("response", response),
            ("form", form),
            ("cookies", cookies),
            ("signature", signature),
            ("json_scan", json_scan),
            ("declarative", declarative),
            ("request_body", request_body),
            ("router", router),
            ("expression", expression),
            ("exposition", exposition),
            ("proxy_protocol", proxy_protocol),
            ("client_hello", client_hello),
            ("client_address", client_address),
            ("nginx", nginx),
            ("trace_context", trace_context),
            ("component", component),
        ];
        for (target, run) in targets {
            for input in inputs(target) {
                run(&input);
            }
        }
    }
}
