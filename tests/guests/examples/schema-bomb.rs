//! Describes its settings by a schema of three kilobytes in which each definition refers twice to
//! the one before: to apply it takes 2^40 steps.

use guest_sdk::{Balancer, Endpoints, Request};

macro_rules! twice {
    ($($name:literal of $other:literal),*) => {
        concat!(
            r##"{"$ref":"#/$defs/d40","$defs":{"d0":{"type":"object"}"##,
            $(
                ",\"d", $name, r##"":{"allOf":[{"$ref":"#/$defs/d"##, $other,
                r##""},{"$ref":"#/$defs/d"##, $other, "\"}]}",
            )*
            "}}"
        )
    };
}

#[derive(Default)]
struct SchemaBomb;

impl Balancer for SchemaBomb {
    const CONFIG_SCHEMA: &'static str = twice!(
        1 of 0, 2 of 1, 3 of 2, 4 of 3, 5 of 4, 6 of 5, 7 of 6, 8 of 7, 9 of 8, 10 of 9,
        11 of 10, 12 of 11, 13 of 12, 14 of 13, 15 of 14, 16 of 15, 17 of 16, 18 of 17, 19 of 18,
        20 of 19, 21 of 20, 22 of 21, 23 of 22, 24 of 23, 25 of 24, 26 of 25, 27 of 26, 28 of 27,
        29 of 28, 30 of 29, 31 of 30, 32 of 31, 33 of 32, 34 of 33, 35 of 34, 36 of 35, 37 of 36,
        38 of 37, 39 of 38, 40 of 39
    );

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(0)
    }
}

guest_sdk::export!(SchemaBomb);
