//! `pointsman top`: what a gateway does now, in a terminal: the overview of the page as a table
//! that is drawn again every second.

mod feed;
mod model;
mod screen;
mod terminal;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use crate::client::Gateway;
use crate::standard_output::print;
use feed::{Feed, News};
use model::Overview;
use screen::{Looks, Screen};
use terminal::{Key, Terminal};

/// How long the first figures are awaited without a terminal. They come every second.
const FIRST_FIGURES_TIMEOUT: Duration = Duration::from_secs(15);

/// Columns of a table that is not for a terminal.
const COLUMNS: usize = 120;

/// How often the size of the terminal is looked at while nothing else happens.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long no figures may come before the operator is told. They come every second.
const SILENCE: Duration = Duration::from_secs(5);

/// Shows what a gateway does now: requests, routes, upstreams, targets and gateways, every second
#[derive(Debug, Args)]
pub struct Arguments {
    /// Upstream whose targets are shown, by name; otherwise the one with the most requests
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,

    /// Prints the figures of one second and ends, as without a terminal
    #[arg(long)]
    once: bool,

    #[command(flatten)]
    gateway: Gateway,
}

/// Runs the command.
///
/// # Errors
/// One clear sentence.
pub fn top(arguments: &Arguments) -> anyhow::Result<()> {
    let feed = Feed::start(&arguments.gateway)?;
    let mut overview = Overview::default();
    if let Some(name) = &arguments.upstream {
        overview.choose(name);
    }
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if arguments.once || !is_terminal {
        return once(&feed, overview);
    }
    // The first answer may be an error, which is clearer without a screen.
    follow(&feed, &mut overview)?;
    let looks = match std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        true => Looks::Plain,
        false => Looks::Coloured,
    };
    let ended = watch(&feed, &mut overview, looks);
    // From here on the terminal is as it was.
    ended
}

/// Prints the figures of one second.
fn once(feed: &Feed, mut overview: Overview) -> anyhow::Result<()> {
    follow(feed, &mut overview)?;
    let end = Instant::now() + FIRST_FIGURES_TIMEOUT;
    while overview.is_incomplete() && Instant::now() < end {
        feed.want(overview.chosen());
        if let Some(news) = feed.next(POLL_INTERVAL)? {
            overview.take(news);
        }
    }
    let screen = Screen {
        columns: COLUMNS,
        rows: usize::MAX,
        looks: Looks::Plain,
    };
    let mut text = screen.lines(&overview).join("\n");
    text.push('\n');
    print(&text)
}

/// Waits for the first figures. An upstream that the operator has named has to be among them.
fn follow(feed: &Feed, overview: &mut Overview) -> anyhow::Result<()> {
    let end = Instant::now() + FIRST_FIGURES_TIMEOUT;
    while !overview.has_figures() {
        match feed.next(end.saturating_duration_since(Instant::now()))? {
            Some(news) => overview.take(news),
            None if Instant::now() < end => {}
            None => bail!("the gateway sends no figures"),
        }
        if let Some(reason) = overview.trouble() {
            bail!("{reason}");
        }
    }
    if let Some(name) = overview.missing() {
        bail!("there is no upstream \"{name}\"");
    }
    Ok(())
}

/// Draws until the operator ends it.
fn watch(feed: &Feed, overview: &mut Overview, looks: Looks) -> anyhow::Result<()> {
    let mut terminal = Terminal::open()?;
    let mut drawn = None;
    let mut heard = Instant::now();
    loop {
        feed.want(overview.chosen());
        let size = terminal.size();
        if drawn != Some(size) {
            let screen = Screen {
                columns: size.0,
                rows: size.1,
                looks,
            };
            terminal.draw(&screen.lines(overview), size.1)?;
            drawn = Some(size);
        }
        if let Some(news) = feed.next(Duration::ZERO)? {
            if matches!(news, News::Gateway(_)) {
                heard = Instant::now();
            }
            overview.take(news);
            drawn = None;
            continue;
        }
        // A gateway or a network that is stuck does not end the connection.
        if overview.trouble().is_none() && heard.elapsed() > SILENCE {
            let silence = format!("none have come for {} s", SILENCE.as_secs());
            overview.take(News::Trouble(silence));
            drawn = None;
        }
        // Keys are answered at once, and figures within this time.
        let Some(key) = terminal.key(POLL_INTERVAL)? else {
            continue;
        };
        match key {
            Key::End => return Ok(()),
            Key::Order => overview.order = overview.order.next(),
            Key::OrderBy(order) => overview.order = order,
            Key::Reverse => overview.is_reversed = !overview.is_reversed,
            Key::Up => overview.choose_neighbour(-1),
            Key::Down => overview.choose_neighbour(1),
        }
        drawn = None;
    }
}
