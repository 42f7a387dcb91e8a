use super::*;

#[test]
fn failures_are_logged_at_a_bounded_rate_with_their_number() {
    let start = Instant::now();
    let mut failures = Failures::default();
    let first = failures.note(start, "no disk", 2);
    assert_eq!(
        first.as_deref(),
        Some(
            "records cannot be sent: no disk (failures since the last such line: 1; records that \
             were given up: 2)"
        )
    );
    for second in 1..10 {
        let now = start + Duration::from_secs(second);
        assert_eq!(failures.note(now, "no disk", 1), None);
    }
    let next = failures.note(start + WARN_INTERVAL, "no disk", 1);
    assert_eq!(
        next.as_deref(),
        Some(
            "records cannot be sent: no disk (failures since the last such line: 10; records that \
             were given up: 10)"
        )
    );
}
