//! What must hold for every document.

use super::{Components, NoGateway, Syntax, Text, convert_nginx, read};
use crate::config::RouterFlavor;
use crate::entity::Kind;

const AROUND: NoGateway = NoGateway {
    flavor: RouterFlavor::TraditionalCompatible,
    pattern_memory: 1 << 20,
    components: Components::NONE,
};

/// Reads bytes as a document, in YAML and in JSON.
///
/// # Panics
/// An accepted document has a row that its own declaration refuses, or mistakes without a message.
pub fn declarative(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else {
        return;
    };
    for syntax in [Syntax::Yaml, Syntax::Json] {
        let Ok(text) = Text::read(input, syntax) else {
            continue;
        };
        match read(&text, &AROUND) {
            Ok(configuration) => {
                for entity in configuration.entities {
                    let is_balancer = entity.kind == Kind::Balancer;
                    let id = entity.row.get("id").and_then(|id| id.as_str());
                    assert!(is_balancer || id == Some(&*entity.id.to_string()));
                }
            }
            Err(mistakes) => {
                let fields = mistakes.fields();
                assert!(!super::Mistakes::message(&fields).is_empty());
                assert!(!mistakes.told(&text.lines()).is_empty());
                let _ = mistakes.flattened();
            }
        }
    }
}

/// Converts bytes as a file of nginx.
///
/// # Panics
/// The document that it is converted to cannot be read.
pub fn nginx(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else {
        return;
    };
    match convert_nginx(input, &AROUND) {
        Ok((document, left)) => {
            let text = Text::read(&document, Syntax::Yaml);
            let text = text.unwrap_or_else(|_| panic!("it cannot be read: {document}"));
            if let Err(mistakes) = read(&text, &AROUND) {
                panic!("{}\n{document}", mistakes.told(&text.lines()).join("\n"));
            }
            assert!(left.iter().all(|left| !left.is_empty()));
        }
        Err(why) => assert!(!why.is_empty()),
    }
}
