//! What is read from source texts, and which imports and circles it makes.

use crate::house::circles::{chain, circles};
use crate::house::graph::Crate;
use crate::house::source::{File, Module, read};

fn names(path: &str) -> Vec<String> {
    path.split("::").map(str::to_owned).collect()
}

fn bound(bound: &[(&str, &str)]) -> Vec<(String, Vec<String>)> {
    let bound = bound.iter();
    bound
        .map(|(name, path)| ((*name).to_owned(), names(path)))
        .collect()
}

fn paths(paths: &[&str]) -> Vec<Vec<String>> {
    paths.iter().map(|path| names(path)).collect()
}

fn crate_of(files: &[(&str, &str)]) -> Crate {
    let text_of = |file: &str| {
        let found = files.iter().find(|(name, _)| *name == file);
        found.map(|(_, text)| (*text).to_owned())
    };
    Crate::read("src/lib.rs", &text_of)
}

/// Each import of a file, with the names that are taken.
fn imports(files: &[(&str, &str)]) -> Vec<String> {
    let imports = crate_of(files).imports();
    let mut lines = vec![];
    for (file, from) in &imports {
        for (from, names) in from {
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            lines.push(format!("{file} -> {from}: {}", names.join(", ")));
        }
    }
    lines
}

#[test]
fn use_trees_bind_names() {
    let text = "
        use std::io;
        use crate::a::{self, b::{C, D as E}, f::*};
        use ::other::X;
        use super::{g::H as _, i::{self as j}};
        pub(crate) use self::k::L;
    ";
    let expected = Module {
        bound: bound(&[
            ("io", "std::io"),
            ("a", "crate::a"),
            ("C", "crate::a::b::C"),
            ("E", "crate::a::b::D"),
            ("_", "super::g::H"),
            ("j", "super::i"),
            ("L", "self::k::L"),
        ]),
        globs: vec![names("crate::a::f")],
        ..Module::default()
    };
    assert_eq!(read(text).unwrap(), expected);
}

#[test]
fn paths_are_read_wherever_they_stand() {
    let text = "
        #[derive(a::NotRead)]
        pub(in crate::not_read) struct S<T: crate::a::Trait>(crate::b::Field, Vec<T>);
        impl crate::c::Trait for S<crate::d::Argument> {
            fn f(&self) -> self::Returned {
                use crate::e::Inside;
                let super::Pattern { .. } = crate::g::call::<crate::h::Turbofish>(alone);
                ::other::f();
                <Self as crate::i::Trait>::f(self)
            }
        }
    ";
    let expected = Module {
        bound: bound(&[("Inside", "crate::e::Inside")]),
        paths: paths(&[
            "crate::a::Trait",
            "crate::b::Field",
            "crate::c::Trait",
            "crate::d::Argument",
            "self::Returned",
            "super::Pattern",
            "crate::g::call",
            "crate::h::Turbofish",
            "crate::i::Trait::f",
        ]),
        ..Module::default()
    };
    assert_eq!(read(text).unwrap(), expected);
}

#[test]
fn of_macros_paths_alone_are_read() {
    let text = "
        crate::a::call! { x: crate::b::C, [d::E::<crate::f::G>::new(), {h::i!(1 + j)}] }
        macro_rules! made { ($x:ident) => { use crate::k::{L, M}; $crate::n::O::$x('a', \"p::q\") } }
    ";
    let expected = Module {
        paths: paths(&[
            "crate::a::call",
            "crate::b::C",
            "d::E",
            "crate::f::G",
            "h::i",
            "crate::k",
            "crate::n::O",
        ]),
        ..Module::default()
    };
    assert_eq!(read(text).unwrap(), expected);
}

#[test]
fn code_for_tests_does_not_count() {
    let text = "
        #[cfg(test)]
        use crate::a::A;
        #[cfg(all(test, feature = \"x\"))]
        mod tests { use crate::b::B; }
        #[cfg(test)]
        mod properties;
        #[cfg(not(test))]
        use crate::c::C;
        #[cfg(any(test, feature = \"x\"))]
        use crate::d::D;
        #[cfg(any(doc, doctest))]
        mod pages {}
        struct S { #[cfg(test)] a: crate::e::E, b: crate::f::F }
        impl S {
            #[cfg(test)]
            fn g(&self) { crate::g::g() }
            fn h(&self) {
                #[cfg(test)]
                crate::h::h();
                #[cfg(all(test, unix))]
                let _ = crate::i::i();
            }
        }
    ";
    let expected = Module {
        inline: vec![("pages".to_owned(), Module::default())],
        files: vec![File {
            name: "properties".to_owned(),
            path: None,
            is_for_tests: true,
        }],
        bound: bound(&[("C", "crate::c::C"), ("D", "crate::d::D")]),
        paths: paths(&["crate::f::F"]),
        ..Module::default()
    };
    assert_eq!(read(text).unwrap(), expected);
}

#[test]
fn a_facade_has_modules_and_exports_only() {
    let is_facade = |text| read(text).unwrap().is_facade;
    assert!(is_facade(
        "//! Docs.\n mod a; pub mod b {} pub use self::a::A; #[cfg(test)] mod tests;"
    ));
    assert!(!is_facade("//! Docs."));
    assert!(!is_facade("mod a; use self::a::A;"));
    assert!(!is_facade("mod a { struct A; }"));
    assert!(!is_facade("mod a; pub type A = a::B;"));
}

#[test]
fn names_lead_through_facades_to_the_files_that_define_them() {
    let found = imports(&[
        ("src/lib.rs", "mod a; mod b; pub use self::b::Renamed;"),
        ("src/a/mod.rs", "mod one; pub use self::one::One;"),
        (
            "src/a/one.rs",
            "use crate::Renamed; use crate::b; pub struct One(b::deep::Deep);",
        ),
        (
            "src/b/mod.rs",
            "mod deep; mod two; pub use self::{deep::*, two::Two as Renamed}; pub use crate::a::One;",
        ),
        ("src/b/deep/mod.rs", "mod three; pub use self::three::Deep;"),
        ("src/b/deep/three.rs", "use crate::b::One;"),
        ("src/b/two.rs", "use crate::b::*; use std::io::Error;"),
    ]);
    assert_eq!(
        found,
        [
            "src/a/mod.rs -> src/a/one.rs: One",
            "src/a/one.rs -> src/b/deep/three.rs: Deep",
            "src/a/one.rs -> src/b/two.rs: Two",
            "src/b/deep/mod.rs -> src/b/deep/three.rs: Deep",
            "src/b/deep/three.rs -> src/a/one.rs: One",
            "src/b/mod.rs -> src/a/one.rs: One",
            "src/b/mod.rs -> src/b/deep/three.rs: Deep",
            "src/b/mod.rs -> src/b/two.rs: Two",
            "src/b/two.rs -> src/a/one.rs: One",
            "src/b/two.rs -> src/b/deep/three.rs: Deep",
            "src/lib.rs -> src/b/two.rs: Two",
        ]
    );
}

#[test]
fn paths_begin_at_modules_around_them() {
    let found = imports(&[
        (
            "src/lib.rs",
            "mod a; #[path = \"../other/b.rs\"] mod b; pub type Error = b::Error;",
        ),
        (
            "src/a.rs",
            "
            use crate::b as renamed;
            use crate::b::*;
            mod inner {
                use super::*;
                mod innermost { fn f() { super::super::super::b::y(); self::own(); } }
                mod file;
                fn f() { renamed::z!(); let a = 1; super::g(a) }
            }
            fn g(_: crate::Error) {}
            ",
        ),
        ("src/a/inner/file.rs", "use super::super::g;"),
        ("src/../other/b.rs", "pub struct X;"),
    ]);
    assert_eq!(
        found,
        [
            "src/a.rs -> src/../other/b.rs: *, b, y, z",
            "src/a.rs -> src/lib.rs: Error",
            "src/a/inner/file.rs -> src/a.rs: g",
            "src/lib.rs -> src/../other/b.rs: Error",
        ]
    );
}

#[test]
#[should_panic(expected = "src/a/mod.rs has no Absent")]
fn a_name_that_a_facade_does_not_export_is_an_error() {
    imports(&[
        ("src/lib.rs", "mod a; mod b;"),
        ("src/a/mod.rs", "mod one; pub use self::one::One;"),
        ("src/a/one.rs", ""),
        ("src/b.rs", "use crate::a::Absent;"),
    ]);
}

#[test]
fn files_of_tests_are_known() {
    let read = crate_of(&[
        ("src/lib.rs", "mod a; #[cfg(test)] mod models;"),
        ("src/a/mod.rs", "#[cfg(all(test, unix))] mod properties;"),
        ("src/a/properties.rs", ""),
        ("src/models.rs", ""),
    ]);
    let test_files: Vec<&str> = read.test_files.iter().map(|file| &**file).collect();
    assert_eq!(test_files, ["src/a/properties.rs", "src/models.rs"]);
    let facades: Vec<&str> = read.facades().into_iter().collect();
    assert_eq!(facades, ["src/a/mod.rs", "src/lib.rs"]);
}

#[test]
fn circles_are_printed_with_the_names_that_close_them() {
    let imports = crate_of(&[
        ("src/lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
        ("src/a.rs", "use crate::e::E;"),
        ("src/b.rs", "use crate::c::{C, f}; use crate::a::A;"),
        ("src/c.rs", "use crate::d; use crate::e::E;"),
        ("src/d.rs", "use crate::b::B; use crate::c::C;"),
        ("src/e.rs", ""),
    ])
    .imports();
    let chains = circles(&imports).into_iter();
    let chains: Vec<String> = chains.map(|circle| chain(&imports, &circle)).collect();
    assert_eq!(
        chains,
        [
            "src/b.rs\n  -> src/c.rs: C, f\n  -> src/d.rs: d\n  -> src/b.rs: B",
            "src/c.rs\n  -> src/d.rs: d\n  -> src/c.rs: C",
        ]
    );
}
