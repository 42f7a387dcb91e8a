use proptest::prelude::*;

use super::*;

thread_local! {
    /// Labels that this thread has read, however often.
    pub(super) static LABELS_READ: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn labels(line: &str) -> Vec<(String, String)> {
    let sample = Sample::of_line(line).unwrap();
    let labels = sample.labels();
    labels
        .map(|(name, value)| (name.to_owned(), value.into_owned()))
        .collect()
}

fn selector(name: &str, labels: &[(&str, &str)], aggregation: Aggregation) -> Selector {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Selector {
        name: name.to_owned(),
        labels: labels.iter().map(owned).collect(),
        aggregation,
    }
}

fn read(selectors: &[Selector], text: &str) -> Result<Vec<Option<f64>>, TextError> {
    let mut reading = Reading::new(selectors);
    reading.read(text.as_bytes())?;
    reading.finish()
}

#[test]
fn samples_are_read_in_every_form() {
    for (line, name, value) in [
        ("a 1", "a", 1.0),
        ("  a\t-1.5e3  ", "a", -1500.0),
        (
            "vllm:num_requests_waiting{model_name=\"m\"} 3.0",
            "vllm:num_requests_waiting",
            3.0,
        ),
        ("a{} 1 1395066363000", "a", 1.0),
        ("a{b=\"}\",} +Inf", "a", f64::INFINITY),
        ("a{ b = \"x\" , c=\"y\" } -Inf -3", "a", f64::NEG_INFINITY),
        (
            "a_bucket{le=\"0.5\"} 7 # {trace_id=\"x\"} 0.4",
            "a_bucket",
            7.0,
        ),
        ("a 7 1.5 # {trace_id=\"x\"} 0.4", "a", 7.0),
        ("a 1\r", "a", 1.0),
    ] {
        let sample = Sample::of_line(line).unwrap();
        assert_eq!((sample.name, sample.value), (name, value), "{line}");
    }
    assert!(Sample::of_line("a NaN").unwrap().value.is_nan());
    for wrong in [
        "",
        " ",
        "# HELP a b",
        "#",
        "a",
        "a{",
        "a{}",
        "a{b}1",
        "a{b=1} 1",
        "a{b=\"x} 1",
        "a{b=\"x\\\"} 1",
        "a{b=\"x\"c=\"y\"} 1",
        "a{,} 1",
        "1a 1",
        "a x",
        "a 1 x",
        "a 1 2 3",
        "a.b 1",
        "ä 1",
        "{a=\"b\"} 1",
    ] {
        assert_eq!(Sample::of_line(wrong), None, "{wrong:?}");
    }
}

#[test]
fn labels_are_read_without_their_escapes() {
    let line = r#"a{path="C:\\x\n\"q\"",b="\d",c=""} 1"#;
    let expected = [("path", "C:\\x\n\"q\""), ("b", "\\d"), ("c", "")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(labels(line), expected);
    assert!(labels("a 1").is_empty());
    assert!(labels("a{ } 1").is_empty());
}

#[test]
fn several_samples_become_one_value() {
    let text = "# TYPE running gauge\nrunning{engine=\"0\",model=\"m\"} 3\nrunning{engine=\"1\",model=\"m\"} 5\n\
                running{engine=\"2\",model=\"n\"} NaN\nrunning_total 9\nother garbage here\ntotal 2 1\nrunning 10";
    let all = [
        selector("running", &[("model", "m")], Aggregation::Sum),
        selector("running", &[("model", "m")], Aggregation::Min),
        selector("running", &[("model", "m")], Aggregation::Max),
        selector("running", &[("model", "m")], Aggregation::Avg),
        selector(
            "running",
            &[("model", "m"), ("engine", "1")],
            Aggregation::Sum,
        ),
        selector("running", &[("model", "n")], Aggregation::Sum),
        selector("running", &[("model", "")], Aggregation::Sum),
        selector("running", &[], Aggregation::Sum),
        selector("total", &[], Aggregation::Avg),
        selector("absent", &[], Aggregation::Sum),
    ];
    let found = read(&all, text).unwrap();
    let expected = [
        Some(8.0),
        Some(3.0),
        Some(5.0),
        Some(4.0),
        Some(5.0),
        None,
        Some(10.0),
        Some(18.0),
        Some(2.0),
        None,
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_labels_of_a_sample_are_read_once_for_all_selectors() {
    let sample = Sample::of_line(r#"a{c="1",b="x\\y",c="2",d="3"} 1"#).unwrap();
    let before = LABELS_READ.get();
    assert_eq!(sample.values_of(&["b", "c", "e"]), ["x\\y", "1", ""]);
    assert_eq!(LABELS_READ.get() - before, 4);
    let several = ["1", "2", "1"].map(|value| selector("a", &[("c", value)], Aggregation::Sum));
    let found = read(&several, "a{b=\"0\",c=\"1\"} 5\n").unwrap();
    assert_eq!(found, [Some(5.0), None, Some(5.0)]);
    // Twice for each label: to find the end of the labels, and to read their values.
    assert_eq!(LABELS_READ.get() - before, 8);
}

#[test]
fn a_text_that_cannot_be_used_says_why() {
    let a = [selector("a", &[], Aggregation::Sum)];
    assert_eq!(read(&a, "b 1\na x\n"), Err(TextError::Malformed(2)));
    assert_eq!(read(&a, "\na"), Err(TextError::Malformed(2)));
    let long = format!("b 1\nb{{c=\"{}\"}} 1\n", "x".repeat(MAX_LINE_BYTES));
    assert_eq!(read(&a, &long), Err(TextError::LongLine(2)));
    assert_eq!(read(&a, long.trim_end()), Err(TextError::LongLine(2)));
    assert_eq!(
        read(&a, &"\n".repeat(MAX_TEXT_LINES + 1)),
        Err(TextError::TooManyLines)
    );
    let line = format!("{}\n", "#".repeat(MAX_LINE_BYTES - 1));
    let most = line.repeat(MAX_TEXT_BYTES / MAX_LINE_BYTES);
    assert_eq!(read(&a, &most), Ok(vec![None]));
    assert_eq!(read(&a, &format!("{most}\n")), Err(TextError::TooManyBytes));
    assert!(TextError::TooManyBytes.to_string().contains("4 MiB"));
}

proptest! {
    #[test]
    fn any_sample_is_read_as_it_was_written(
        name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", value: f64, time in prop::option::of(any::<i64>()),
        labels in prop::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,8}", "[a-c\"\\\\\n{},= ä]{0,8}"), 0..4),
    ) {
        let written = labels.iter().map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{name}=\"{value}\"")
        });
        let written = written.collect::<Vec<_>>().join(",");
        let time = time.map_or(String::new(), |time| format!(" {time}"));
        let line = format!("{name}{{{written}}} {value}{time}");
        let sample = Sample::of_line(&line).unwrap();
        prop_assert_eq!(sample.name, name);
        prop_assert!(sample.value == value || (sample.value.is_nan() && value.is_nan()));
        let read = sample.labels().map(|(name, value)| (name.to_owned(), value.into_owned()));
        prop_assert_eq!(read.collect::<Vec<_>>(), labels);
    }

    #[test]
    fn any_text_is_read_alike_however_it_is_split(
        text in "([a-b](\\{[a-c\"=,]{0,6}\\}|\\{c=\"[x-z]\"\\})? ?[0-9]{0,2}( 1)?\n?){0,8}", size in 1_u8..9,
    ) {
        super::fuzzing::exposition(&[&[size], text.as_bytes()].concat());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        super::fuzzing::exposition(&bytes);
    }
}
