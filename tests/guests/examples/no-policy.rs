//! A component, but no balancer: it exports an interface of its own and nothing else.

wit_bindgen::generate!({
    inline: "
        package stranger:greeter@1.0.0;
        interface greet { hello: func() -> string; }
        world greeter { export greet; }
    ",
});

struct Greeter;

impl exports::stranger::greeter::greet::Guest for Greeter {
    fn hello() -> String {
        "hello".into()
    }
}

export!(Greeter);
