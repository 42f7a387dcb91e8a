//! Routes with `router_flavor = expressions`: they may have an expression and its priority. Source:
//! Kong 3.9, `routes` of this flavor.

use serde_json::Value;

use super::{
    CRITERIA, FIELDS, SNIS_NEED_TLS, addresses_name_something, declaration, family_of_requests,
    fields_of_the_family, is_set, something_to_match,
};
use crate::entity::declaration::Declaration;
use crate::entity::field::{Check, Field, Preset};
use crate::entity::violations::Violations;
use crate::entity::{EntityCheck, Row};
use crate::expression::{Expression, Family, Kind};
use crate::pattern;

/// The greatest priority. Source: Kong.
const GREATEST_PRIORITY: i64 = (1 << 46) - 1;

const ADDED: [Field; 2] = [
    Field::string("expression"),
    Field::integer("priority")
        .required()
        .default(Preset::Integer(0))
        .check(&[Check::Between(0, GREATEST_PRIORITY)]),
];

const ALL_FIELDS: [Field; FIELDS.len() + ADDED.len()] = {
    let mut fields = [ADDED[0]; FIELDS.len() + ADDED.len()];
    let mut at = 0;
    while at < FIELDS.len() {
        fields[at] = FIELDS[at];
        at += 1;
    }
    fields[at + 1] = ADDED[1];
    fields
};

/// The fields that the rules below read.
const CHECKED: &[&str] = &[
    "protocols",
    "methods",
    "hosts",
    "headers",
    "paths",
    "snis",
    "sources",
    "destinations",
    "strip_path",
    "regex_priority",
    "expression",
    "priority",
];

pub(super) static DECLARATION: Declaration = Declaration {
    normalize: add_unset,
    ..declaration(
        &ALL_FIELDS,
        &[
            SNIS_NEED_TLS,
            EntityCheck::Custom {
                fields: CHECKED,
                check: |row, violations| something_to_match(row, violations, &["expression"]),
            },
            EntityCheck::Custom {
                fields: CHECKED,
                check: fields_of_the_family,
            },
            EntityCheck::Custom {
                fields: &["sources", "destinations"],
                check: addresses_name_something,
            },
            EntityCheck::Custom {
                fields: CHECKED,
                check: valid_expression,
            },
        ],
    )
};

/// Gives a row that was stored with another flavor the fields of this one.
fn add_unset(row: &mut Row) {
    for field in ADDED {
        row.entry(field.name).or_insert_with(|| field.preset());
    }
}

/// Takes the fields of this flavor out of a row that does not make use of them. A row with an
/// expression keeps it: its route is set aside until the flavor is `expressions` again.
pub(super) fn remove_unset(row: &mut Row) {
    if row.get("expression").is_none_or(Value::is_null) {
        for field in ADDED {
            row.shift_remove(field.name);
        }
    }
}

fn valid_expression(row: &Row, violations: &mut Violations) {
    if let Err(wrong) = check(row) {
        violations.entity(format!("Router Expression failed validation: {wrong}"));
    }
}

fn check(row: &Row) -> Result<(), String> {
    let is_nonzero = |field: &str| {
        row.get(field)
            .and_then(Value::as_i64)
            .is_some_and(|n| n != 0)
    };
    let has_criteria = CRITERIA.iter().any(|field| is_set(row, field));
    let criteria = "'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations'";
    let Some(expression) = row.get("expression").and_then(Value::as_str) else {
        return match has_criteria && is_nonzero("priority") {
            true => Err(format!(
                "cannot set 'priority' with {criteria} simultaneously"
            )),
            false => Ok(()),
        };
    };
    if has_criteria {
        return Err(format!(
            "cannot set 'expression' with {criteria} simultaneously"
        ));
    }
    if is_nonzero("regex_priority") {
        return Err("cannot set 'regex_priority' with 'expression' simultaneously".into());
    }
    let family = match family_of_requests(row) {
        Some(_) => Family::Http,
        None => Family::Stream,
    };
    let read = Expression::parse(expression, family, pattern::is_pattern);
    let read = read.map_err(|error| error.to_string())?;
    match read.holds_never(&kinds(row, family)) {
        None => Ok(()),
        Some(why) => Err(format!(
            "the expression never holds, so nothing would take the route: {why}"
        )),
    }
}

/// What a route may be for, by its protocols.
fn kinds(row: &Row, family: Family) -> Vec<Kind> {
    const ALL: [(&[&str], Kind); 3] = [
        (
            &["tcp"],
            Kind {
                protocol: "tcp",
                has_server_name: false,
            },
        ),
        (
            &["udp"],
            Kind {
                protocol: "udp",
                has_server_name: false,
            },
        ),
        (
            &["tls", "tls_passthrough"],
            Kind {
                protocol: "tls",
                has_server_name: true,
            },
        ),
    ];
    // A request in clear text is told to use TLS by the route that is for requests over TLS.
    const OF_REQUESTS: [Kind; 2] = [
        Kind {
            protocol: "http",
            has_server_name: false,
        },
        Kind {
            protocol: "https",
            has_server_name: true,
        },
    ];
    if family == Family::Http {
        return OF_REQUESTS.to_vec();
    }
    let protocols = row.get("protocols").and_then(Value::as_array);
    let own = |names: &[&str]| {
        let mut own = protocols.into_iter().flatten().filter_map(Value::as_str);
        own.any(|name| names.contains(&name))
    };
    let all = ALL.into_iter().filter(|(names, _)| own(names));
    all.map(|(_, kind)| kind).collect()
}
