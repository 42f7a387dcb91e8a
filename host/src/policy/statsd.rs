//! `statsd`: sends metrics of each request to a StatsD server. Source: Kong 3.9, `statsd`.

mod lines;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt;

use super::logs::Logs;
use super::logs::connection::{Datagrams, Kept, Server, failed, within};
use super::logs::document::Documents;
use super::logs::queue::{Entry, Queue, Sink};
use super::record::LogRecord;
use super::{DryRun, Policy};
use crate::dns::Resolver;
use crate::entity::plugin::Plugin;
use crate::entity::plugin::statsd::Config;
use crate::node;
use lines::Entities;

/// Limit to connect and to send. Source: Kong.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long an idle TCP connection is kept.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Sends metrics of each request.
#[derive(Debug)]
pub(super) struct Statsd {
    /// The ranges of statuses of requests that are told; all if there is none.
    statuses: Vec<(u16, u16)>,
    queue: Arc<Queue>,
}

impl Statsd {
    pub(super) fn new(
        config: Config,
        plugin: &Plugin,
        logs: &Logs,
        resolver: &Arc<Resolver>,
    ) -> Self {
        let ranges = config.allow_status_codes.iter().flatten();
        let ranges = ranges.filter_map(|range| {
            let (from, to) = range.split_once('-')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        });
        let statuses = ranges.collect();
        let limits = config.queue().into();
        let queue = logs.queue(plugin, limits, |documents| {
            let server = Server {
                host: config.host.clone(),
                port: config.port,
                resolver: Arc::clone(resolver),
            };
            Arc::new(StatsdSink {
                documents: Arc::clone(documents),
                machine: node::hostname(),
                datagrams: Datagrams::to(server.clone()),
                kept: Kept::default(),
                server,
                config,
            })
        });
        Self { statuses, queue }
    }
}

impl Policy for Statsd {
    fn dry_run(&self) -> DryRun {
        DryRun::Idle
    }

    fn record(&self, record: &LogRecord) {
        let status = record.status();
        let mut statuses = self.statuses.iter();
        let is_told = statuses.any(|(from, to)| (*from..=*to).contains(&status));
        if is_told || self.statuses.is_empty() {
            self.queue.push(record);
        }
    }

    fn records(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct StatsdSink {
    documents: Arc<Documents>,
    config: Config,
    /// The name of this machine.
    machine: String,
    server: Server,
    datagrams: Datagrams,
    kept: Kept,
}

impl StatsdSink {
    async fn send_stream(&self, lines: &[String]) -> io::Result<()> {
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        let mut stream = match self.kept.take(KEEPALIVE) {
            Some(stream) => stream,
            None => Box::new(within(TIMEOUT, self.server.connect()).await?),
        };
        within(TIMEOUT, stream.write_all(text.as_bytes())).await?;
        self.kept.put(stream);
        Ok(())
    }
}

/// Joins lines to datagrams of up to `most` bytes. A longer line is a datagram by itself.
fn pack(lines: Vec<String>, most: usize) -> Vec<String> {
    let mut packed: Vec<String> = Vec::new();
    for line in lines {
        match packed.last_mut() {
            Some(last) if last.len() + 1 + line.len() <= most => {
                last.push('\n');
                last.push_str(&line);
            }
            _ => packed.push(line),
        }
    }
    packed
}

impl Sink for StatsdSink {
    fn send<'a>(&'a self, batch: &'a [Entry]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let lines = batch.iter().flat_map(|entry| {
                let entities = Entities::of(&entry.record, &self.documents);
                lines::of(&self.config, &self.machine, &entry.record, &entities)
            });
            let lines: Vec<String> = lines.collect();
            let sent = if self.config.use_tcp {
                self.send_stream(&lines).await
            } else {
                let packed = pack(lines, self.config.udp_packet_size as usize);
                within(TIMEOUT, self.datagrams.send(&packed)).await
            };
            sent.map_err(failed(&self.server))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packing_keeps_all_lines_in_order_and_the_limit_where_it_can(
            lines in proptest::collection::vec("[a-z]{1,12}", 0..30), most in 0_usize..64,
        ) {
            let packed = pack(lines.clone(), most);
            for datagram in &packed {
                prop_assert!(datagram.len() <= most || !datagram.contains('\n'));
            }
            let unpacked: Vec<String> =
                packed.iter().flat_map(|datagram| datagram.split('\n')).map(str::to_owned).collect();
            prop_assert_eq!(unpacked, lines);
        }
    }
}
