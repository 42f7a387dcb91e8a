//! Rows that exist for a limited time.
//!
//! A request gives the number of seconds that a row is to exist, and a client is shown the seconds
//! that are left. The row itself has the time of its end, `{"expires_at": seconds}`: a form that no
//! request can give, so the two cannot be confused when a PATCH is merged into a row. An expired
//! row is not shown, and is removed. Source: Kong 3.9, `ttl` of its DAO.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Value, json};

use super::declaration::Declaration;
use super::field::{Field, Shape};
use super::{Row, Violation};
use crate::clock;

/// The longest time, in seconds. Source: Kong, `DAO_MAX_TTL`.
const MAX_TTL: u64 = 100_000_000;

/// When a row ends, as it is stored and as the data plane reads it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Expiry {
    /// Seconds since the Unix epoch, with milliseconds.
    expires_at: f64,
}

impl Expiry {
    /// The first moment at which the row does not exist.
    pub fn time(self) -> SystemTime {
        let since = Duration::try_from_secs_f64(self.expires_at).unwrap_or_default();
        let time = SystemTime::UNIX_EPOCH.checked_add(since);
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Replaces the seconds that an input gives by the time of the end; 0 stands for no end.
pub(super) fn set_expiry(fields: &[Field], input: &mut Row) -> Result<(), Violation> {
    for field in fields {
        let Shape::TimeToLive = field.shape else {
            continue;
        };
        let Some(value) = input.get_mut(field.name).filter(|value| !value.is_null()) else {
            continue;
        };
        let seconds = value.as_u64().filter(|seconds| *seconds <= MAX_TTL);
        let seconds = seconds.ok_or_else(|| Violation::Option {
            name: field.name,
            message: format!("must be an integer between 0 and {MAX_TTL}"),
        })?;
        *value = match seconds {
            0 => Value::Null,
            seconds => {
                let now = clock::since_1970(SystemTime::now());
                let end = now + Duration::from_secs(seconds);
                json!({ "expires_at": clock::to_millis(end) })
            }
        };
    }
    Ok(())
}

impl Declaration {
    /// When a row ends, if it does.
    pub fn expires_at(&self, row: &Row) -> Option<SystemTime> {
        let value = row.get(self.ttl()?.name)?;
        let expiry: Option<Expiry> = serde_json::from_value(value.clone()).ok()?;
        expiry.map(Expiry::time)
    }

    /// Whether a row has come to its end.
    pub fn is_expired(&self, row: &Row) -> bool {
        let end = self.expires_at(row);
        end.is_some_and(|end| end <= SystemTime::now())
    }

    /// The row as a client is shown it, with the seconds that are left, rounded up; none if it has
    /// come to its end.
    pub fn shown(&self, mut row: Row) -> Option<Row> {
        if let Some(ttl) = self.ttl()
            && let Some(end) = self.expires_at(&row)
        {
            let left = end.duration_since(SystemTime::now()).ok()?;
            if left.is_zero() {
                return None;
            }
            row.insert(ttl.name.into(), (left.as_secs_f64().ceil() as u64).into());
        }
        Some(row)
    }

    fn ttl(&self) -> Option<&Field> {
        let mut fields = self.fields.iter();
        fields.find(|field| matches!(field.shape, Shape::TimeToLive))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::entity::Kind;

    static TOKEN: Declaration = Declaration {
        fields: &[Field::id(), Field::ttl(), Field::tags()],
        ..Declaration::of(Kind::Service, "tokens", "token")
    };

    fn create(ttl: Value) -> Result<Row, Violation> {
        let input = Row::from_iter([("ttl".to_owned(), ttl)]);
        TOKEN.create(Uuid::from_u128(1), input)
    }

    #[test]
    fn a_client_gives_and_is_shown_seconds() {
        for (given, left) in [(json!(10), json!(10)), (json!(1e8), json!(100_000_000))] {
            let row = create(given).unwrap();
            assert!(row["ttl"]["expires_at"].is_number(), "{row:?}");
            assert_eq!(TOKEN.shown(row).unwrap()["ttl"], left);
        }
        for endless in [json!(0), Value::Null] {
            let row = create(endless).unwrap();
            assert_eq!(TOKEN.expires_at(&row), None);
            assert_eq!(TOKEN.shown(row).unwrap()["ttl"], Value::Null);
        }
    }

    #[test]
    fn a_change_keeps_the_end_unless_it_names_another() {
        let row = create(json!(10)).unwrap();
        let tagged = Row::from_iter([("tags".to_owned(), json!(["a"]))]);
        let kept = TOKEN.update(&row, tagged).unwrap();
        assert_eq!(kept["ttl"], row["ttl"]);
        let longer = Row::from_iter([("ttl".to_owned(), json!(100))]);
        let longer = TOKEN.update(&row, longer).unwrap();
        assert!(TOKEN.expires_at(&longer) > TOKEN.expires_at(&row));
        let endless = Row::from_iter([("ttl".to_owned(), json!(0))]);
        let endless = TOKEN.update(&row, endless).unwrap();
        assert_eq!(endless["ttl"], Value::Null);
    }

    #[test]
    fn what_is_no_number_of_seconds_is_refused() {
        let form_of_rows = json!({ "expires_at": 1 });
        let wrong = [
            json!(-1),
            json!(1.5),
            json!("5"),
            json!(100_000_001),
            form_of_rows,
        ];
        for wrong in wrong {
            let refused = create(wrong.clone());
            let is_option = matches!(refused, Err(Violation::Option { name: "ttl", .. }));
            assert!(is_option, "{wrong} {refused:?}");
        }
    }

    #[test]
    fn an_expired_row_is_not_shown() {
        let mut row = create(json!(10)).unwrap();
        assert!(!TOKEN.is_expired(&row));
        row.insert("ttl".into(), json!({ "expires_at": 1.5 }));
        assert!(TOKEN.is_expired(&row));
        assert_eq!(TOKEN.shown(row), None);
    }
}
