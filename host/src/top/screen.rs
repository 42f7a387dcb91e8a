//! The overview as lines of text.

use std::fmt::Write;

use serde_json::Value;

use super::model::{Order, Overview, Row};

/// Whether lines have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    Plain,
    Coloured,
}

/// What a line is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Normal,
    Head,
    Bad,
    Chosen,
    Quiet,
}

impl Style {
    /// The sequence of ECMA-48 that begins it.
    fn sequence(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::Head => "\x1b[1m",
            Self::Bad => "\x1b[31m",
            Self::Chosen => "\x1b[7m",
            Self::Quiet => "\x1b[2m",
        }
    }
}

/// Where the lines are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) looks: Looks,
}

/// The lines of a part of the screen: its head, and its rows.
type Part = Vec<(Style, String)>;

impl Screen {
    /// The lines, from the top down, as many as there is room for. No line is longer than there is
    /// room for.
    pub(super) fn lines(&self, overview: &Overview) -> Vec<String> {
        let mut head = self.head(overview);
        if self.rows != usize::MAX {
            head.push((Style::Quiet, keys(overview)));
        }
        let parts = [
            self.rows_of("ROUTE", &overview.routes(), None, |_| String::new()),
            self.rows_of(
                "UPSTREAM",
                &overview.upstreams(),
                overview.chosen().filter(|_| self.rows != usize::MAX),
                |row| {
                    overview
                        .upstream(&row.name)
                        .map_or_else(String::new, of_upstream)
                },
            ),
            self.targets(overview),
            self.nodes(overview),
        ];
        let rooms = rooms(
            &parts.each_ref().map(Vec::len),
            self.rows.saturating_sub(head.len()),
        );
        let mut lines = head;
        for (part, room) in parts.into_iter().zip(rooms) {
            let left_out = part.len().saturating_sub(room);
            if room < 2 {
                continue;
            }
            lines.push((Style::Normal, String::new()));
            // One line of the room is the empty one, and one says what is left out.
            let shown = if left_out > 0 { room - 1 } else { room };
            lines.extend(part.into_iter().take(shown));
            if left_out > 0 {
                lines.push((Style::Quiet, format!("  … {} more", left_out + 1)));
            }
        }
        lines.truncate(self.rows);
        let lines = lines.into_iter();
        lines
            .map(|(style, line)| self.styled(style, &line))
            .collect()
    }

    fn styled(&self, style: Style, line: &str) -> String {
        let line: String = line.chars().take(self.columns).collect();
        match self.looks {
            Looks::Coloured if style != Style::Normal => {
                format!("{}{line}\x1b[0m", style.sequence())
            }
            _ => line,
        }
    }

    fn head(&self, overview: &Overview) -> Part {
        let text = |pointer: &str| {
            let text = overview.figure(pointer).and_then(Value::as_str);
            printable(text.unwrap_or("-"))
        };
        let number = |pointer: &str| overview.figure(pointer).and_then(Value::as_f64);
        let mut lines = vec![(
            Style::Head,
            format!(
                "pointsman {} on {}   revision {}   {} connections   {}",
                text("/node/version"),
                text("/node/hostname"),
                number("/revision").unwrap_or(0.0),
                number("/connections").unwrap_or(0.0),
                bytes(number("/memory").unwrap_or(0.0)),
            ),
        )];
        let streams = number("/streams/active").filter(|active| *active > 0.0);
        lines.push((
            Style::Normal,
            format!(
                "{} requests/s   {} errors/s   p50 {}   p99 {}{}",
                rate(number("/all/rate").unwrap_or(0.0)),
                rate(number("/all/errors").unwrap_or(0.0)),
                millis(number("/all/p50")),
                millis(number("/all/p99")),
                streams.map_or_else(String::new, |active| format!("   {active} streams")),
            ),
        ));
        if let Some(reason) = overview.figure("/store/failure").and_then(Value::as_str) {
            let reason = printable(reason);
            lines.push((Style::Bad, format!("changes cannot be stored: {reason}")));
        }
        if let Some(reason) = overview.trouble() {
            let reason = printable(reason);
            lines.push((Style::Bad, format!("no newer figures: {reason}")));
        }
        lines
    }

    /// Routes or upstreams.
    fn rows_of(
        &self,
        head: &str,
        rows: &[Row],
        chosen: Option<&str>,
        more: impl Fn(&Row) -> String,
    ) -> Part {
        let width = self.name_width(rows.iter().map(|row| row.name.chars().count()));
        let mut lines = vec![(
            Style::Head,
            format!(
                "{head:width$} {:>9} {:>9} {:>9} {:>9}",
                "REQ/S", "ERR/S", "P50", "P99"
            ),
        )];
        lines.extend(rows.iter().map(|row| {
            let name = fitted(&row.name, width);
            let line = format!(
                "{name} {:>9} {:>9} {:>9} {:>9}  {}",
                rate(row.rate),
                rate(row.errors),
                millis(row.p50),
                millis(row.p99),
                more(row),
            );
            let style = match () {
                () if chosen == Some(&*row.name) => Style::Chosen,
                () if row.errors > 0.0 || line.contains(NO_TARGET) => Style::Bad,
                () => Style::Normal,
            };
            (style, line.trim_end().to_owned())
        }));
        lines
    }

    /// The targets of the chosen upstream.
    fn targets(&self, overview: &Overview) -> Part {
        let Some(name) = overview.chosen() else {
            return Vec::new();
        };
        let lanes = overview.targets().and_then(|figures| figures.get("lanes"));
        let lanes = lanes.and_then(Value::as_array).into_iter().flatten();
        let text = |lane: &Value, field: &str| {
            let text = lane.get(field).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        // The gateway lists endpoints by id; an operator looks for an address.
        let mut lanes: Vec<&Value> = lanes.collect();
        lanes.sort_by_key(|lane| text(lane, "address"));
        let addresses = lanes
            .iter()
            .map(|lane| text(lane, "address").chars().count());
        let width = self.name_width(addresses);
        let head = fitted(&format!("TARGET of {}", printable(name)), width);
        // On a narrow screen, health matters more than what follows from the picks of all targets.
        let is_wide = self.columns >= WIDE;
        let of_all = |share: &str, weight: &str| match is_wide {
            true => format!(" {share:>7} {weight:>7}"),
            false => String::new(),
        };
        let mut lines = vec![(
            Style::Head,
            format!(
                "{head} {:>9}{} {:>9} {:>9} {:>9}  HEALTH",
                "PICKS/S",
                of_all("SHARE", "WEIGHT"),
                "IN FLIGHT",
                "MEAN",
                "ERR/S"
            ),
        )];
        let number = |lane: &Value, field: &str| lane.get(field).and_then(Value::as_f64);
        let of = |lane: &Value, field: &str| number(lane, field).unwrap_or(0.0);
        let all: f64 = lanes.iter().map(|lane| of(lane, "picks")).sum();
        for lane in lanes {
            let health = health(lane);
            let share = 100.0 * of(lane, "picks") / all.max(f64::MIN_POSITIVE);
            let (share, weight) = (format!("{share:.1}%"), of(lane, "weight").to_string());
            let line = format!(
                "{} {:>9}{} {:>9} {:>9} {:>9}  {health}",
                fitted(&text(lane, "address"), width),
                rate(of(lane, "picks")),
                of_all(&share, &weight),
                of(lane, "in_flight"),
                millis(number(lane, "ms")),
                rate(of(lane, "errors")),
            );
            let is_good = health == HEALTHY && of(lane, "errors") == 0.0;
            lines.push((if is_good { Style::Normal } else { Style::Bad }, line));
        }
        lines
    }

    /// The gateways that share the configuration.
    fn nodes(&self, overview: &Overview) -> Part {
        let nodes = overview.nodes();
        if nodes.is_empty() {
            return Vec::new();
        }
        let text = |node: &Value, pointer: &str| {
            let text = node.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or("-").to_owned()
        };
        let names = nodes
            .iter()
            .map(|node| text(node, "/hostname").chars().count());
        let width = self.name_width(names);
        let mut lines = vec![(
            Style::Head,
            format!(
                "{:width$} {:>9}  {:10} ID",
                "GATEWAY", "REVISION", "VERSION"
            ),
        )];
        let revision = |node: &Value| node.pointer("/pointsman/revision").and_then(Value::as_u64);
        let newest = nodes.iter().filter_map(revision).max();
        for node in nodes {
            let own = revision(node);
            let line = format!(
                "{} {:>9}  {} {}",
                fitted(&text(node, "/hostname"), width),
                own.unwrap_or(0),
                fitted(&text(node, "/version"), 10),
                printable(&text(node, "/id")),
            );
            lines.push((
                if own == newest {
                    Style::Normal
                } else {
                    Style::Bad
                },
                line,
            ));
        }
        lines
    }

    /// The width of a column of names: of the longest one, as far as there is room.
    fn name_width(&self, lengths: impl Iterator<Item = usize>) -> usize {
        let most = self.columns.saturating_sub(60).clamp(12, 48);
        lengths.max().unwrap_or(0).clamp(20.min(most), most)
    }
}

/// Columns of a screen on which a line of a target has all figures.
const WIDE: usize = 96;

/// Lines that a part needs at least: an empty one, its head, and a row.
const MIN_PART_LINES: usize = 3;

/// What an address without faults is.
const HEALTHY: &str = "healthy";

/// What an upstream without an available address is told by.
const NO_TARGET: &str = "no target";

fn keys(overview: &Overview) -> String {
    let mut text = "q quit  ↑↓ upstream  r reverse  order:".to_owned();
    for order in Order::ALL {
        let mark = if order == overview.order { "*" } else { "" };
        let _ = write!(text, " {} {}{mark}", char::from(order.key()), order.name());
    }
    text
}

/// What is shown of an upstream besides its figures.
fn of_upstream(upstream: &Value) -> String {
    let number = |field: &str| upstream.get(field).and_then(Value::as_u64).unwrap_or(0);
    let balancer = upstream.get("balancer").and_then(Value::as_str);
    let (available, addresses) = (number("available"), number("addresses"));
    let mut text = match available {
        0 => format!("{NO_TARGET} of {addresses}"),
        _ => format!("{available} of {addresses}"),
    };
    let _ = write!(
        text,
        "  {} in flight  {}",
        number("in_flight"),
        printable(balancer.unwrap_or_default())
    );
    if upstream.get("quarantine").is_some_and(Value::is_number) {
        text.push_str("  quarantine");
    }
    text
}

/// The health of an address in a few words.
fn health(lane: &Value) -> String {
    let number = |field: &str| lane.get(field).and_then(Value::as_f64);
    let is = |field: &str| lane.get(field).and_then(Value::as_bool) == Some(true);
    if let Some(seconds) = number("ejected_for") {
        return format!("ejected for {seconds:.0} s");
    }
    if !is("available") {
        let reason = ["last_probe", "last_failure"]
            .into_iter()
            .find_map(|field| {
                let detail = lane.get(field)?.get("detail")?.as_str()?;
                Some(format!("unhealthy: {}", printable(detail)))
            });
        return reason.unwrap_or_else(|| "unhealthy".to_owned());
    }
    match number("slow_start") {
        Some(part) => format!("slow start {:.0} %", part * 100.0),
        None if is("failover") => "failover".to_owned(),
        None => HEALTHY.to_owned(),
    }
}

/// How many lines each part gets: what it needs and an empty line, and if that is too much, no part
/// more than its fair share. The last parts get none if there is no room for a row of each.
fn rooms<const N: usize>(needs: &[usize; N], lines: usize) -> [usize; N] {
    let mut rooms = [0; N];
    let mut left = lines;
    let parts = (0..N).filter(|part| needs[*part] > 0);
    let mut by_need: Vec<usize> = parts.take(lines / MIN_PART_LINES).collect();
    by_need.sort_by_key(|part| needs[*part]);
    let mut parts = by_need.len();
    for part in by_need {
        let share = left / parts;
        rooms[part] = needs[part].min(share.saturating_sub(1));
        left -= (rooms[part] + 1).min(left);
        parts -= 1;
    }
    rooms
}

/// A text without characters that a terminal would obey.
fn printable(text: &str) -> String {
    let chars = text.chars();
    chars
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

/// A text in exactly so many columns.
fn fitted(text: &str, width: usize) -> String {
    let text = printable(text);
    match text.chars().count() > width {
        true => {
            let start: String = text.chars().take(width.saturating_sub(1)).collect();
            format!("{start}…")
        }
        false => format!("{text:width$}"),
    }
}

fn rate(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        _ if number < 10.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

fn millis(time: Option<f64>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time < 10.0 => format!("{time:.2} ms"),
        Some(time) if time < 10_000.0 => format!("{time:.0} ms"),
        Some(time) => format!("{:.1} s", time / 1000.0),
    }
}

fn bytes(number: f64) -> String {
    format!("{:.0} MiB", number / f64::from(1 << 20))
}

#[cfg(test)]
mod tests;
