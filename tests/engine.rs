//! Inference servers as they are: llama.cpp's, three of them, which batch, stream and cache
//! prompts. What is asserted holds at any speed; `benches/engine` measures.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Engine, Events, Gateway, Generated, Setup, guest, patch_upstream, until};

const COMPLETIONS: &str = "/v1/completions";

/// A gateway with three servers, whose upstream `u` has this balancer. It keeps no connections:
/// after an answer that it has streamed, llama.cpp's server closes the connection and does not say
/// so, and a POST that is sent at that moment is not repeated.
fn with_engines(algorithm: &str) -> (Gateway, [Engine; 3]) {
    let gateway = Setup::new()
        .arg("--upstream-keepalive-pool-size", 0)
        .start();
    let engines = Engine::start_all(["a", "b", "c"]);
    gateway.balanced(&engines.each_ref().map(|engine| (engine.address, 100)));
    patch_upstream(&gateway, &settings(algorithm));
    (gateway, engines)
}

fn settings(algorithm: &str) -> Value {
    let config = match algorithm {
        // A token of the model is a byte.
        "token-load" => json!({"bytes_per_token": 1, "answer_tokens": 64}),
        _ => json!({}),
    };
    json!({"algorithm": algorithm, "pointsman": {"balancer_config": config}})
}

/// A prompt whose first `length` bytes are those of an assistant.
fn prompt(assistant: &str, length: usize, question: &str) -> String {
    let mut prompt = format!("{assistant} is what you are called. ");
    prompt += &"Be brief, and say what you do not know. ".repeat(length / 40 + 1);
    prompt.truncate(length);
    prompt + question
}

fn document(prompt: &str, tokens: usize) -> Value {
    json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": true})
}

fn ask(gateway: &Gateway, document: &Value) -> Generated {
    let events = Events::ask(gateway, COMPLETIONS, document, &[]);
    let whole = events.finish(Vec::new());
    whole.unwrap_or_else(|| panic!("an answer broke off"))
}

fn sum(engines: &[Engine], name: &str) -> u64 {
    engines.iter().map(|engine| engine.counted(name)).sum()
}

/// Waits until the gateway knows that all answers have ended.
fn until_idle(gateway: &Gateway) {
    until("all requests have ended", || {
        let page = gateway.admin("GET", "/metrics", &[]).expect(200).text();
        let mut rows = page.lines();
        rows.all(|row| !row.starts_with("pointsman_endpoint_in_flight{") || row.ends_with(" 0"))
    });
}

#[test]
fn answers_are_whole_with_each_balancer() {
    let (gateway, engines) = with_engines("round-robin");
    let mut tokens = 0;
    for algorithm in [
        "round-robin",
        "least-connections",
        "prefix-affinity",
        "token-load",
    ] {
        patch_upstream(&gateway, &settings(algorithm));
        thread::scope(|scope| {
            for number in 0..6_usize {
                let (gateway, length) = (&gateway, 10 + number);
                let prompt = prompt(["one", "two"][number % 2], 600, &number.to_string());
                scope.spawn(move || {
                    let whole = ask(gateway, &document(&prompt, length));
                    assert_eq!((whole.text.len(), whole.pieces), (length, length));
                    // A chat, and an answer that is not streamed.
                    let mut chat = document("", length);
                    chat["messages"] = json!([{"role": "user", "content": prompt}]);
                    let path = "/v1/chat/completions";
                    let events = Events::ask(gateway, path, &chat, &[]);
                    let whole = events.finish(Vec::new()).unwrap();
                    assert_eq!((whole.text.len(), whole.pieces), (length, length));
                    let mut at_once = document(&prompt, length);
                    at_once["stream"] = json!(false);
                    let body = ("application/json", at_once.to_string().into_bytes());
                    let proxy = gateway.proxy;
                    let answer = gateway.send(proxy, "POST", COMPLETIONS, &[], Some(body));
                    let answer = answer.expect(200).json();
                    let text = answer["choices"][0]["text"].as_str().unwrap();
                    assert_eq!(text.len(), length);
                });
                tokens += 3 * length as u64;
            }
        });
        let usage = gateway.admin("GET", &format!("/balancers/{algorithm}"), &[]);
        let usage = usage.expect(200).json()["usage"]["u"].clone();
        assert_eq!(
            (&usage["picks"], &usage["host_choices"]),
            (&json!(18), &json!(0)),
            "{usage}"
        );
    }
    // The servers have generated exactly what clients have received.
    assert_eq!(sum(&engines, "tokens_predicted_total"), tokens);
    assert!(
        engines
            .iter()
            .all(|engine| engine.counted("prompt_tokens_total") > 0)
    );
}

#[test]
fn a_prompt_goes_to_the_engine_that_has_its_beginning_cached() {
    const LENGTH: u64 = 1200;
    let (gateway, engines) = with_engines("prefix-affinity");
    for algorithm in ["prefix-affinity", "token-load"] {
        patch_upstream(&gateway, &settings(algorithm));
        let mut places = BTreeSet::new();
        for number in 0..12 {
            let assistant = format!("{number} of {algorithm}");
            let turn = |question: &str| {
                let prompt = prompt(&assistant, LENGTH as usize, question);
                let answer = ask(&gateway, &document(&prompt, 2));
                until_idle(&gateway);
                answer
            };
            let before = sum(&engines, "prompt_tokens_cached_total");
            let first = turn("What is that?");
            // No assistant begins as another one does.
            assert!(first.cached < 64, "{first:?}");
            let mut cached = first.cached;
            for question in ["And why?", "How is that?"] {
                let later = turn(question);
                assert_eq!(later.engine, first.engine, "{assistant}");
                assert!(later.cached >= LENGTH && later.computed < 64, "{later:?}");
                cached += later.cached;
            }
            // So the servers count, too.
            let after = sum(&engines, "prompt_tokens_cached_total");
            assert_eq!(after - before, cached, "{assistant}");
            places.insert(first.engine);
        }
        // Prompts are spread over several servers.
        assert!(places.len() > 1, "{algorithm}: {places:?}");
    }
}

#[test]
fn events_pass_as_they_come_and_their_times_are_known() {
    // Long enough that the server still generates when the first event is here.
    const LENGTH: usize = 1500;
    let (gateway, engines) = with_engines("round-robin");
    gateway.upload("streams", guest("streams")).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "streams"}));
    let logged = |start: &str| {
        let logs = gateway.admin("GET", "/balancers/streams/logs", &[]);
        let logs = logs.expect(200).json();
        let lines = logs["data"].as_array().unwrap().iter().rev();
        let mut lines = lines.filter_map(|line| line["message"].as_str());
        let line = lines.find_map(|line| line.strip_prefix(start));
        line.map(|line| serde_json::from_str::<Value>(line).unwrap())
    };
    // What the balancer is told at a pick for the last position: in flight, unanswered, times to
    // the first byte and between chunks, of the first position.
    let load = || {
        gateway
            .get_with("/health", &[("x-position", "2")])
            .expect(200);
        let columns = logged("load ").unwrap();
        [0, 1, 2, 3].map(|column| columns[column][0].as_u64().unwrap())
    };
    let ask = |tokens| {
        let document = document(&prompt("it", 600, "?"), tokens);
        Events::ask(&gateway, COMPLETIONS, &document, &[("x-position", "0")])
    };
    let place = ask(1).finish(Vec::new()).unwrap().engine;
    let engine = engines.iter().find(|engine| engine.name == place).unwrap();
    until_idle(&gateway);
    let [.., first_byte, _] = load();
    assert!(first_byte > 0);

    // A server that is stopped has a request, and has not begun to answer it.
    engine.signal("STOP");
    thread::scope(|scope| {
        let asked = scope.spawn(|| ask(LENGTH));
        until("the request is in flight", || load()[..2] == [1, 1]);
        engine.signal("CONT");
        let mut events = asked.join().unwrap();
        let first = events.next().unwrap();
        // The first event is here, and others are not generated yet.
        engine.signal("STOP");
        assert_eq!(load()[..2], [1, 0]);
        engine.signal("CONT");
        assert_eq!(engine.counted("requests_processing"), 1);
        let whole = events.finish(vec![first]).unwrap();
        assert_eq!(whole.pieces, LENGTH);
    });
    until_idle(&gateway);
    let [.., gap] = load();
    assert!(gap > 0);
    let ended = logged("ended ").unwrap();
    assert_eq!((&ended[0], &ended[1]), (&json!("Complete"), &json!(200)));
    let [first_byte, took, bytes] = [2, 3, 4].map(|field| ended[field].as_u64().unwrap());
    assert!(first_byte < took && bytes > LENGTH as u64, "{ended}");

    // A client that leaves frees the server, which generates no more for it.
    let mut events = ask(4000);
    assert!(events.next().is_some());
    drop(events);
    until("the server has no request", || {
        engine.counted("requests_processing") == 0
    });
    until("the balancer hears of it", || {
        logged("ended ").unwrap()[0] == "Client"
    });
    assert!(engine.counted("tokens_predicted_total") < 4000);
}

#[test]
fn a_killed_engine_breaks_off_only_what_it_was_answering() {
    const LENGTH: usize = 2000;
    let (gateway, mut engines) = with_engines("least-connections");
    let prompt = prompt("it", 200, "?");
    let (document, later) = (document(&prompt, LENGTH), document(&prompt, 40));
    let streams: Vec<(Events, Value)> = (0..6)
        .map(|_| {
            let mut events = Events::ask(&gateway, COMPLETIONS, &document, &[]);
            let first = events.next().unwrap();
            (events, first)
        })
        .collect();
    // The last one has only begun.
    let victim = streams[5].1["model"].as_str().unwrap().to_owned();
    let killed = engines.iter_mut().find(|engine| engine.name == victim);
    killed.unwrap().kill();

    // New requests are answered by others at once, while these still stream.
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let whole = ask(&gateway, &later);
                assert_eq!(whole.pieces, 40);
                assert_ne!(whole.engine, victim);
            });
        }
    });
    for (number, (events, first)) in streams.into_iter().enumerate() {
        let place = first["model"].as_str().unwrap().to_owned();
        match events.finish(vec![first]) {
            Some(whole) => assert!(whole.pieces == LENGTH && number < 5, "{number}"),
            // The client sees that its answer is not whole.
            None => assert_eq!(place, victim, "{number}"),
        }
    }
}
