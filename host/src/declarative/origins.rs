//! Where the entities of a converted document come from. The document is read as a gateway reads
//! it, and what would be refused is told of the part of the file that it was made of.

use super::context::NoGateway;
use super::read::read;
use super::syntax::{Step, Syntax, Text};

/// The parts of a file that entities of a document were made of.
#[derive(Default)]
pub(super) struct Origins(Vec<(Vec<Step>, String)>);

impl Origins {
    /// Adds the origin of an entity in a list of the document, such as `line 3: location /a`. An
    /// empty one is not known.
    pub(super) fn add(&mut self, list: &str, place: usize, origin: String) {
        if !origin.is_empty() {
            let steps = vec![Step::Name(list.to_owned()), Step::Index(place)];
            self.0.push((steps, origin));
        }
    }

    /// Adds the origin of an entity in a list of another one.
    pub(super) fn add_inside(
        &mut self,
        (list, place): (&str, usize),
        (inner, inner_place): (&str, usize),
        origin: String,
    ) {
        let outer = [Step::Name(list.to_owned()), Step::Index(place)];
        let inner = [Step::Name(inner.to_owned()), Step::Index(inner_place)];
        self.0.push(([outer, inner].concat(), origin));
    }

    /// The origin of the innermost entity around a value.
    fn of(&self, steps: &[Step]) -> Option<&str> {
        let around = self.0.iter().filter(|(own, _)| steps.starts_with(own));
        let innermost = around.max_by_key(|(own, _)| own.len());
        innermost.map(|(_, origin)| origin.as_str())
    }

    /// Returns a converted document, if a gateway would take it.
    ///
    /// # Errors
    /// What it would refuse, one mistake a line, each with the part of the file that it comes from
    /// where that is known.
    pub(super) fn checked(&self, document: String, context: &NoGateway) -> Result<String, String> {
        let text = Text::read(&document, Syntax::Yaml)
            .map_err(|why| format!("cannot be expressed: {why}"))?;
        match read(&text, context) {
            Ok(_) => Ok(document),
            Err(mistakes) => {
                let told = mistakes.told_of(|steps| {
                    let origin = self.of(steps).map(|origin| format!("{origin}: "));
                    origin.unwrap_or_default() + "cannot be expressed: "
                });
                Err(told.join("\n"))
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;
    use crate::config::RouterFlavor;
    use crate::declarative::Components;

    fn checked(document: &str) -> Result<String, String> {
        let mut origins = Origins::default();
        origins.add("services", 0, "line 1: location /a".into());
        origins.add("upstreams", 0, "line 2: upstream u".into());
        origins.add_inside(("upstreams", 0), ("targets", 1), "line 4: server b".into());
        let context = NoGateway {
            flavor: RouterFlavor::default(),
            pattern_memory: 64 << 20,
            components: Components::NONE,
        };
        origins.checked(document.to_owned(), &context)
    }

    #[test]
    fn each_mistake_is_reported_at_what_it_was_made_of() {
        let document = "_format_version: '3.0'\nservices:\n- {name: s, host: h}\n";
        assert_eq!(checked(document).unwrap(), document);
        let wrong = checked(
            "_format_version: '3.0'
services:
- {name: s, url: nowhere}
- {name: 'a b', host: h}
upstreams:
- {name: u, slots: 1, targets: [{target: 'a:1'}, {target: 'a:1:'}]}
",
        )
        .unwrap_err();
        let begins = |start: &str| wrong.lines().any(|line| line.starts_with(start));
        for start in [
            "line 1: location /a: cannot be expressed: services[0] (s)",
            "cannot be expressed: services[1] (a b): name:",
            "line 2: upstream u: cannot be expressed: upstreams[0] (u): slots:",
            "line 4: server b: cannot be expressed: upstreams[0].targets[1] (a:1:)",
        ] {
            assert!(begins(start), "{start}\n{wrong}");
        }
        assert_eq!(
            checked("a: 1\na: 2\n").unwrap_err(),
            "cannot be expressed: line 2, column 1: the field 'a' is there twice"
        );
    }
}
