use proptest::prelude::*;

use super::*;

fn limits(batch: usize, entries: usize) -> QueueLimits {
    QueueLimits {
        batch,
        entries,
        coalescing: Duration::from_secs(1),
        ..QueueLimits::FIXED
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_batch_is_due_when_it_is_whole_or_its_first_entry_has_waited() {
    let start = Instant::now();
    let mut buffer = Buffer::new(limits(3, 10));
    assert_eq!(buffer.due(start), Due::Never);
    buffer.push('a', start);
    buffer.push('b', start + SECOND / 2);
    assert_eq!(buffer.due(start + SECOND / 2), Due::At(start + SECOND));
    assert_eq!(buffer.due(start + SECOND), Due::Now);
    // A wait of less than 50 milliseconds is left out.
    assert_eq!(
        buffer.due(start + Duration::from_millis(949)),
        Due::At(start + SECOND)
    );
    assert_eq!(buffer.due(start + Duration::from_millis(951)), Due::Now);
    buffer.push('c', start + SECOND / 2);
    buffer.push('d', start + SECOND / 2);
    assert_eq!(buffer.due(start + SECOND / 2), Due::Now);
    assert_eq!(buffer.take(), ['a', 'b', 'c']);
    assert_eq!(
        buffer.due(start + SECOND / 2),
        Due::At(start + SECOND * 3 / 2)
    );
    buffer.finish();
    assert_eq!(buffer.due(start + SECOND / 2), Due::Now);
    assert_eq!(buffer.take(), ['d']);
}

#[test]
#[expect(clippy::expect_used, reason = "a test may fail by panicking")]
fn connections_are_bounded_although_the_concurrency_is_not() {
    let queue = |concurrency: i64| {
        let queue = serde_json::json!({
            "max_batch_size": 10, "max_coalescing_delay": 1, "max_entries": 10_000,
            "max_bytes": null, "max_retry_time": 60, "initial_retry_delay": 0.01,
            "max_retry_delay": 60, "concurrency_limit": concurrency,
        });
        let queue: queue::Queue = serde_json::from_value(queue).expect("the settings of a queue");
        QueueLimits::from(queue)
    };
    let (one, unlimited) = (queue(1), queue(-1));
    assert_eq!((one.batch, one.at_a_time), (10, 1));
    assert_eq!((unlimited.batch, unlimited.at_a_time), (1, 64));
}

#[test]
fn a_batch_of_one_is_due_at_once() {
    let start = Instant::now();
    let mut buffer = Buffer::new(limits(1, 10));
    assert!(buffer.push('a', start));
    assert_eq!(buffer.due(start), Due::Now);
}

#[test]
fn a_full_buffer_drops_its_oldest_entry_and_says_so_once() {
    let now = Instant::now();
    let mut buffer = Buffer::new(limits(1, 10));
    for number in 0..8 {
        buffer.push(number, now);
    }
    assert_eq!(buffer.take_notices(), []);
    for number in 8..14 {
        buffer.push(number, now);
    }
    assert_eq!(buffer.take_notices(), [Notice::Near, Notice::Full]);
    assert_eq!((buffer.len(), buffer.dropped()), (10, 4));
    assert_eq!(buffer.take(), [4]);
    buffer.sent();
    buffer.sent();
    assert_eq!(buffer.take_notices(), [Notice::Resumed]);
    while buffer.len() > 8 {
        buffer.take();
    }
    buffer.push(14, now);
    assert_eq!(buffer.take_notices(), [Notice::Near]);
}

fn weigh_all(buffer: &mut Buffer<(u64, bool)>) {
    let new: Vec<_> = buffer
        .unweighed()
        .map(|(number, (bytes, _))| (number, *bytes))
        .collect();
    for (number, bytes) in new {
        buffer.weigh(number, bytes, |entry| entry.1 = true);
    }
}

#[test]
fn bytes_are_bounded_and_an_entry_larger_than_the_buffer_is_refused() {
    let now = Instant::now();
    let mut buffer = Buffer::new(QueueLimits {
        bytes: Some(10),
        ..limits(100, 100)
    });
    for bytes in [4, 11, 5, 3] {
        buffer.push((bytes, false), now);
    }
    weigh_all(&mut buffer);
    assert_eq!(buffer.take_notices(), [Notice::TooLong(11), Notice::Full]);
    assert_eq!(buffer.dropped(), 2);
    assert_eq!(buffer.take(), [(5, true), (3, true)]);
}

proptest! {
    #[test]
    fn entries_leave_in_their_order_and_each_is_taken_dropped_or_waiting(
        steps in proptest::collection::vec((0_u8..4, 0_u64..8), 1..200),
        batch in 1_usize..5, entries in 1_usize..12, bytes in proptest::option::of(1_u64..30),
    ) {
        let now = Instant::now();
        let mut buffer = Buffer::new(QueueLimits { bytes, ..limits(batch, entries) });
        let (mut pushed, mut taken) = (0_u64, Vec::new());
        for (step, weight) in steps {
            match step {
                0 | 1 => {
                    // The number of the entry with its weight.
                    buffer.push((pushed * 8 + weight, false), now);
                    pushed += 1;
                }
                2 => taken.extend(buffer.take()),
                _ => {
                    let new: Vec<_> =
                        buffer.unweighed().map(|(number, (value, _))| (number, value % 8)).collect();
                    for (number, weight) in new {
                        buffer.weigh(number, weight, |entry| entry.1 = true);
                    }
                    if let Some(most) = bytes {
                        let waiting: u64 =
                            buffer.entries.iter().map(|entry| entry.value.0 % 8).sum();
                        prop_assert!(waiting <= most);
                    }
                }
            }
            prop_assert!(buffer.len() <= entries);
            let weighed = buffer.entries.iter().take(buffer.weighed);
            prop_assert_eq!(buffer.bytes, weighed.map(|entry| entry.bytes).sum::<u64>());
            prop_assert_eq!(pushed, taken.len() as u64 + buffer.len() as u64 + buffer.dropped());
        }
        prop_assert!(taken.is_sorted_by_key(|(value, _)| value / 8));
    }

    #[test]
    fn pauses_double_up_to_the_longest_until_the_time_is_over(
        first in 1_u64..5_000, longest in 1_u64..60_000, time in 0_u64..100_000,
        failed in 1_u32..80, elapsed in 0_u64..200_000,
    ) {
        let limits = QueueLimits {
            first_delay: Duration::from_millis(first),
            longest_delay: Duration::from_millis(longest),
            retry_time: Duration::from_millis(time),
            ..QueueLimits::FIXED
        };
        let pause = limits.pause(failed, Duration::from_millis(elapsed));
        let doubled = u128::from(first) << (failed - 1).min(64);
        let expected = (time > 0 && elapsed <= time).then(|| doubled.min(longest.into()));
        prop_assert_eq!(pause.map(|pause| pause.as_millis()), expected);
    }
}
