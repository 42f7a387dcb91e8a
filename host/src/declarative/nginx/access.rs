//! `allow` and `deny` as the plugin `ip-restriction`.

use serde_json::{Value, json};

use super::grammar::Directive;
use super::inherited::Inherited;
use super::{Left, is_valid_plugin};

/// Which clients a location is for.
#[derive(Debug, PartialEq)]
pub(super) enum Access {
    All,
    None,
    /// Those that this plugin lets pass.
    Some(Value),
}

fn is_range(range: &str) -> bool {
    is_valid_plugin(&json!({ "name": "ip-restriction", "config": { "allow": [range] } }))
}

/// Which clients the directives of a location let pass. They hold in their order, and those that
/// match none pass; here `deny` comes before `allow`, so that no client passes that nginx refuses.
pub(super) fn access(inherited: &Inherited<'_>, left: &mut Left) -> Access {
    let (mut allow, mut deny) = (Vec::new(), Vec::new());
    // With `satisfy any`, a client that no line names would have to authenticate.
    let is_any = |satisfy: &Directive| satisfy.value() == "any";
    let is_either = inherited.get("satisfy").is_some_and(is_any);
    let mut others = !is_either || inherited.authentication().is_empty();
    let mut refuses_unknown = false;
    for directive in &inherited.access {
        let (is_allowed, range) = (directive.name() == "allow", directive.value());
        match range {
            "all" => {
                others = is_allowed;
                break;
            }
            // Connections over Unix sockets, which are not converted.
            "unix:" => {}
            range if !is_range(range) => {
                left.add(directive, "this is no address, nor a range of addresses");
                refuses_unknown |= !is_allowed;
            }
            range => {
                if !is_allowed && !allow.is_empty() {
                    let why = "these clients are refused even if an earlier line allows them";
                    left.add(directive, why);
                }
                let list = if is_allowed { &mut allow } else { &mut deny };
                list.push(range.to_owned());
            }
        }
    }
    // It is not known whom such a line refuses.
    if refuses_unknown {
        return Access::None;
    }
    if others {
        allow.clear();
    } else if allow.is_empty() {
        return Access::None;
    }
    let mut config = crate::entity::Row::new();
    for (name, list) in [("allow", allow), ("deny", deny)] {
        if !list.is_empty() {
            config.insert(name.into(), list.into());
        }
    }
    match config.is_empty() {
        true => Access::All,
        false => Access::Some(json!({ "name": "ip-restriction", "config": config })),
    }
}
