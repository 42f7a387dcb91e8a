use proptest::prelude::*;
use serde_json::json;

use super::super::feed::News;
use super::*;

fn overview(upstreams: usize) -> Overview {
    let mut overview = Overview::default();
    let names = (0..upstreams).map(|number| format!("u{number:02}"));
    let all: Vec<Value> = names
        .map(|name| {
            json!({
                "name": name, "rate": 2.0, "errors": 0.0, "p50": 1.0, "p99": 20.0,
                "balancer": "p2c", "available": 0, "addresses": 3, "in_flight": 4,
            })
        })
        .collect();
    overview.take(News::Gateway(json!({
        "node": { "version": "1", "hostname": "h\u{1b}[2J" },
        "revision": 7, "connections": 3, "memory": 10 << 20,
        "all": { "rate": 5.0, "errors": 0.0, "p50": 1.0, "p99": 12.0 },
        "routes": [], "upstreams": all,
    })));
    overview.take(News::Upstream(
        "u00".into(),
        json!({ "lanes": [
            { "address": "10.0.0.1:80", "weight": 100, "picks": 3.0, "ms": 2.5, "available": true },
            { "address": "10.0.0.2:80", "weight": 100, "picks": 1.0, "available": false,
              "last_probe": { "detail": "status 500" } },
        ] }),
    ));
    overview
}

fn screen(columns: usize, rows: usize) -> Screen {
    Screen {
        columns,
        rows,
        looks: Looks::Plain,
    }
}

#[test]
fn a_table_is_complete_and_has_no_control_characters() {
    let text = screen(120, usize::MAX).lines(&overview(2)).join("\n");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(!text.contains("q quit"), "{text}");
    for line in [
        "5.0 requests/s   0 errors/s   p50 1.00 ms   p99 12 ms",
        "u01                        2.0         0   1.00 ms     20 ms  no target of 3  4 in flight  p2c",
        "10.0.0.1:80                3.0   75.0%     100         0   2.50 ms         0  healthy",
        "10.0.0.2:80                1.0   25.0%     100         0         -         0  unhealthy: status 500",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
    }
}

#[test]
fn colours_are_closed_on_their_line() {
    let screen = Screen {
        looks: Looks::Coloured,
        ..screen(80, 24)
    };
    let lines = screen.lines(&overview(2));
    assert!(lines.iter().any(|line| line.contains("\x1b[7m")));
    for line in lines {
        let begun = line.matches("\x1b[").count();
        assert!(
            begun == 0 || (begun == 2 && line.ends_with("\x1b[0m")),
            "{line}"
        );
    }
}

#[test]
fn the_keys_fit_on_a_usual_terminal() {
    assert!(keys(&overview(0)).chars().count() <= 80);
}

#[test]
fn the_health_of_a_target_fits_on_a_usual_terminal() {
    let lines = screen(80, 60).lines(&overview(2));
    let of = |name: &str| {
        let line = lines.iter().find(|line| line.contains(name));
        line.map_or("", |line| line.as_str())
    };
    assert!(of("TARGET of").contains("HEALTH"), "{lines:?}");
    assert!(of("10.0.0.1:80").contains("healthy"), "{lines:?}");
    assert!(of("10.0.0.2:80").contains("unhealthy: status"), "{lines:?}");
}

proptest! {
    #[test]
    fn lines_fit_on_any_screen(columns in 0_usize..200, rows in 0_usize..80, upstreams in 0_usize..60) {
        let lines = screen(columns, rows).lines(&overview(upstreams));
        prop_assert!(lines.len() <= rows);
        prop_assert!(lines.iter().all(|line| line.chars().count() <= columns));
    }

    #[test]
    fn rooms_are_what_is_needed_or_a_fair_share(needs: [u8; 4], lines in 0_usize..100) {
        let needs = needs.map(usize::from);
        let rooms = rooms(&needs, lines);
        let taken: usize = rooms.iter().filter(|room| **room > 0).map(|room| room + 1).sum();
        prop_assert!(taken <= lines);
        prop_assert!(rooms.iter().zip(needs).all(|(room, need)| *room <= need));
        // A part is shown as soon as there is room for its head and a row.
        let needs_any = needs.iter().any(|need| *need > 0);
        prop_assert!(lines < MIN_PART_LINES || !needs_any || taken > 0);
    }
}
