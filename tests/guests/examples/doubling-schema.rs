//! Describes its settings by a schema of less than a kilobyte that is 2^25 schemas once its
//! references are followed.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct DoublingSchema;

macro_rules! doubling {
    ($($from:literal $to:literal)*) => {
        concat!(
            r##"{"$ref": "#/$defs/d0", "$defs": {"##,
            $(r##""d"##, $from, r##"": {"allOf": [{"$ref": "#/$defs/d"##, $to,
                r##""}, {"$ref": "#/$defs/d"##, $to, r##""}]}, "##,)*
            r##""d25": {"type": "object"}}}"##
        )
    };
}

impl Balancer for DoublingSchema {
    const CONFIG_SCHEMA: &'static str = doubling!(
        0 1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9 10 10 11 11 12 12 13 13 14 14 15 15 16 16 17 17 18 18 19
        19 20 20 21 21 22 22 23 23 24 24 25
    );

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(0)
    }
}

guest_sdk::export!(DoublingSchema);
