use super::*;

fn module(path: &str) -> Module {
    path.split("::")
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What a file of `a::b` names, with the names that are imported.
fn named(source: &str) -> Vec<(String, Option<String>)> {
    let scan = scan(source, &module("a::b"), "own");
    let named = scan.named.into_iter();
    named
        .map(|named| (named.path.join("::"), named.import))
        .collect()
}

fn paths(source: &str) -> Vec<String> {
    named(source).into_iter().map(|(path, _)| path).collect()
}

/// The arrows of a crate of these files, as `from -> to`.
fn arrows(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, source).unwrap();
    }
    let arrows = graph(folder.path(), "own").arrows;
    let shown = arrows
        .iter()
        .map(|arrow| format!("{} -> {}", arrow.from.join("::"), arrow.to.join("::")));
    shown.collect()
}

#[test]
fn a_use_tree_names_each_of_its_leaves() {
    let source = "pub(crate) use crate::{c::{self, d::E as F, *}, g};\nuse std::io;";
    let expected = [
        ("crate::c", Some("c")),
        ("crate::c::d::E", Some("F")),
        ("crate::c", None),
        ("crate::g", Some("g")),
        ("std::io", Some("io")),
    ];
    let expected = expected.map(|(path, name)| (path.to_owned(), name.map(str::to_owned)));
    assert_eq!(named(source), expected);
}

#[test]
fn paths_within_code_are_named_and_those_of_visibility_are_not() {
    let source = "
        pub(in crate::a) fn f<'a>(x: &'a super::super::X) -> impl Sized + use<> {
            let quote = '\\''; let letter = 'a';
            crate::c::call::<self::Y>(x); super::z!(); self.w()
        }";
    let expected = ["super::super::X", "crate::c::call", "self::Y", "super::z"];
    assert_eq!(paths(source), expected);
}

#[test]
fn comments_and_literals_name_nothing() {
    let source = "
        //! [`x`](crate::x)
        /* use crate::y; /* */ use crate::y; */
        const S: &str = \"use crate::z; \\\" crate::z::z\";
        const R: &str = r#\"\" use crate::z;\"#;
        const B: &[u8] = b\"crate::z::z\"; const C: char = '\"';
        use crate::r#mod;";
    assert_eq!(paths(source), ["crate::mod"]);
}

#[test]
fn what_is_for_tests_alone_is_left_out() {
    let source = "
        #[cfg(test)]
        #[expect(lint, reason = \"x\")]
        mod tests { use crate::x; mod more { use super::super::y; } }
        #[cfg(test)]
        pub(crate) mod apart;
        #[cfg(test)]
        use crate::{p, q};
        struct S {
            #[cfg(test)]
            field: crate::r::R,
            other: crate::s::S,
        }
        #[cfg(test)]
        fn f<A, B>() -> crate::t::T { crate::t::T }
        #[cfg(any(test, fuzzing))]
        use crate::u;";
    assert_eq!(paths(source), ["crate::s::S", "crate::u"]);
    let scan = scan(source, &module("a"), "own");
    assert_eq!(scan.tests, [module("a::apart")]);
    let files = [
        ("lib.rs", ""),
        ("a.rs", "#[cfg(test)] mod tests;"),
        ("a/tests.rs", "use crate::c;"),
        ("a/tests/deep.rs", "use crate::c;"),
        ("c.rs", ""),
    ];
    assert_eq!(arrows(&files), Vec::<String>::new());
}

#[test]
fn a_path_leads_to_the_module_that_has_it() {
    let files = [
        ("lib.rs", "pub use d::D;"),
        ("main.rs", "use own::d; fn main() { own::a::b::go() }"),
        ("a.rs", "mod b; mod e; use e::E; pub struct A;"),
        // Its parent's own, its parent's import, its own, another crate's.
        (
            "a/b.rs",
            "use super::A; use super::E; use self::x; use std::d;",
        ),
        (
            "a/e.rs",
            "mod inner { use super::super::b::X; } use crate::D;",
        ),
        ("d.rs", "use crate::a::E;"),
    ];
    let expected = [
        "a::b -> a",
        "a::b -> a::e",
        "a::e -> a::b",
        "a::e -> d",
        "a -> a::e",
        "d -> a",
        " -> d",
        "main -> d",
        "main -> a::b",
    ];
    assert_eq!(arrows(&files), expected);
}
