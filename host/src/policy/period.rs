//! The periods of the calendar in which requests are counted, all in UTC.

use crate::entity::plugin::periods::PeriodLimits;
use crate::node::NodeShare;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The days of the months of a year that is not a leap year.
const MONTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// How many kinds of periods there are.
pub(super) const PERIODS: usize = 6;

/// A period of the calendar; the shortest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Year,
}

/// One second, minute or other period of the calendar, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Its first second.
    pub(super) start: u64,
    /// The first second after it.
    pub(super) end: u64,
}

impl Window {
    pub(super) fn contains(&self, time: u64) -> bool {
        (self.start..self.end).contains(&time)
    }
}

/// Fewest days of a month and of a year.
const LEAST_DAYS: [u64; 2] = [28, 365];

impl Period {
    /// A number for the window that contains a time: that of a later window is larger, as a rule by
    /// one.
    fn number(self, time: u64) -> u64 {
        let least = match self {
            Self::Second => 1,
            Self::Minute => MINUTE,
            Self::Hour => HOUR,
            Self::Day => DAY,
            Self::Month => LEAST_DAYS[0] * DAY,
            Self::Year => LEAST_DAYS[1] * DAY,
        };
        self.window(time).start / least
    }

    /// The name, as in settings and in the keys of counters.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The window that contains a time, in seconds since 1970.
    pub(super) fn window(self, time: u64) -> Window {
        match self {
            Self::Second => aligned(time, 1),
            Self::Minute => aligned(time, MINUTE),
            Self::Hour => aligned(time, HOUR),
            Self::Day => aligned(time, DAY),
            Self::Month => month(time / DAY),
            Self::Year => {
                let year = year_of(time / DAY);
                Window {
                    start: days_before(year) * DAY,
                    end: days_before(year + 1) * DAY,
                }
            }
        }
    }
}

fn aligned(time: u64, length: u64) -> Window {
    let start = time - time % length;
    Window {
        start,
        end: start + length,
    }
}

/// The month that contains a day, counted from 1970.
fn month(day: u64) -> Window {
    let year = year_of(day);
    let mut start = days_before(year);
    let mut end = start;
    for (month, days) in MONTHS.into_iter().enumerate() {
        start = end;
        end += days + u64::from(month == 1 && is_leap(year));
        if day < end {
            break;
        }
    }
    Window {
        start: start * DAY,
        end: end * DAY,
    }
}

/// The year that contains a day, counted from 1970.
fn year_of(day: u64) -> u64 {
    // The first guess is never too late, and at most one year too early for each 366 years.
    let mut year = 1970 + day / 366;
    while days_before(year + 1) <= day {
        year += 1;
    }
    year
}

/// The days from 1970 to the start of a year.
fn days_before(year: u64) -> u64 {
    365 * (year - 1970) + leap_years_before(year) - leap_years_before(1970)
}

fn leap_years_before(year: u64) -> u64 {
    let last = year - 1;
    last / 4 - last / 100 + last / 400
}

fn is_leap(year: u64) -> bool {
    leap_years_before(year + 1) > leap_years_before(year)
}

/// The limit for a period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limit {
    pub(super) period: Period,
    /// How many requests a window allows. With 2.5, a third request passes, as with 3.
    pub(super) most: f64,
}

/// The limits that are set, the shortest period first.
pub(super) fn limits(set: &PeriodLimits) -> Vec<Limit> {
    let all: [(Period, Option<f64>); PERIODS] = [
        (Period::Second, set.second),
        (Period::Minute, set.minute),
        (Period::Hour, set.hour),
        (Period::Day, set.day),
        (Period::Month, set.month),
        (Period::Year, set.year),
    ];
    let limit = |(period, most): (Period, Option<f64>)| {
        Some(Limit {
            period,
            most: most?,
        })
    };
    all.into_iter().filter_map(limit).collect()
}

impl Limit {
    /// How many requests the window that contains a time allows at the gateway of this share.
    pub(super) fn part(&self, share: NodeShare, time: u64) -> f64 {
        match share {
            NodeShare::ONLY => self.most,
            share => share.part_of(self.most, self.period.number(time)),
        }
    }
}

/// This gateway's share of limits in the windows that contain a time; beyond the last limit, the
/// last one again.
pub(super) fn parts(limits: &[Limit], share: NodeShare, time: u64) -> [Limit; PERIODS] {
    std::array::from_fn(|at| {
        let limit = limits.get(at).or(limits.last());
        let limit = limit.copied().unwrap_or(Limit {
            period: Period::Year,
            most: 0.0,
        });
        Limit {
            most: limit.part(share, time),
            ..limit
        }
    })
}

#[cfg(test)]
pub(super) const ALL: [Period; PERIODS] = [
    Period::Second,
    Period::Minute,
    Period::Hour,
    Period::Day,
    Period::Month,
    Period::Year,
];

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    /// A time as text, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
    fn text(time: u64) -> String {
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time))
    }

    #[test]
    fn months_and_years_are_those_of_the_calendar() {
        for (time, period, start, end) in [
            // Fri, 29 Feb 2008 12:00:00
            (1_204_286_400, Period::Month, "01 Feb 2008", "01 Mar 2008"),
            // Sun, 31 Dec 2023 23:59:59
            (1_704_067_199, Period::Month, "01 Dec 2023", "01 Jan 2024"),
            (1_704_067_199, Period::Year, "01 Jan 2023", "01 Jan 2024"),
            (1_704_067_200, Period::Year, "01 Jan 2024", "01 Jan 2025"),
            (0, Period::Month, "01 Jan 1970", "01 Feb 1970"),
            (0, Period::Year, "01 Jan 1970", "01 Jan 1971"),
        ] {
            let window = period.window(time);
            let shown = [window.start, window.end].map(|time| text(time)[5..16].to_owned());
            assert_eq!(shown, [start, end], "{time} {period:?}");
        }
    }

    proptest! {
        #[test]
        fn windows_contain_their_time_and_follow_each_other(time in 0..253_000_000_000_u64) {
            for period in ALL {
                let window = period.window(time);
                prop_assert!(window.contains(time), "{period:?} {window:?}");
                prop_assert_eq!(period.window(window.start), window);
                prop_assert_eq!(period.window(window.end - 1), window);
                prop_assert_eq!(period.window(window.end).start, window.end);
                prop_assert_eq!(period.number(window.end - 1), period.number(window.start));
                prop_assert!(period.number(window.end) > period.number(time));
            }
        }

        #[test]
        fn windows_start_where_the_calendar_says(time in 0..253_000_000_000_u64) {
            let now = text(time);
            let start = |period: Period| text(period.window(time).start);
            // The date with weekday, the hour and so on, in the format of HTTP.
            prop_assert_eq!(&start(Period::Second), &now);
            prop_assert_eq!(start(Period::Minute), format!("{}:00 GMT", &now[..22]));
            prop_assert_eq!(start(Period::Hour), format!("{}:00:00 GMT", &now[..19]));
            prop_assert_eq!(start(Period::Day), format!("{} 00:00:00 GMT", &now[..16]));
            let month = format!("01{} 00:00:00 GMT", &now[7..16]);
            prop_assert_eq!(&start(Period::Month)[5..], month);
            let year = format!("01 Jan{} 00:00:00 GMT", &now[11..16]);
            prop_assert_eq!(&start(Period::Year)[5..], year);
        }
    }
}
