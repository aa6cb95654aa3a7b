//! The examples, run as a newcomer runs them, against what `examples/README.md` says of each.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::example::example;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn page() -> String {
    fs::read_to_string(folder().join("README.md")).unwrap()
}

/// What the page says of an example.
#[derive(Debug)]
struct Section<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Section<'a> {
    fn all(page: &'a str) -> Vec<Self> {
        let sections = page.split("\n## `").skip(1);
        let sections = sections.map(|section| section.split_once("`\n").unwrap());
        sections.map(|(name, text)| Self { name, text }).collect()
    }

    fn of(name: &str, page: &'a str) -> Self {
        let mut sections = Self::all(page).into_iter();
        sections.find(|section| section.name == name).unwrap()
    }

    /// The text between such fences.
    fn block(&self, language: &str) -> &'a str {
        let (_, block) = self.text.split_once(&format!("```{language}\n")).unwrap();
        block.split_once("```\n").unwrap().0
    }

    /// Each part of what it is said to print is in what it `printed`, one after the other.
    fn assert_printed(&self, printed: &str) {
        let printed = masked(printed);
        let mut rest = printed.as_str();
        for part in self.block("text").split("...\n") {
            let part = masked(part);
            assert!(!part.trim().is_empty());
            let at = rest.find(&part);
            let at = at.unwrap_or_else(|| panic!("{part}is not in this part of\n{printed}"));
            assert!(
                at == 0 || rest.as_bytes()[at - 1] == b'\n',
                "{part}{printed}"
            );
            rest = &rest[at + part.len()..];
        }
    }
}

/// A text without what differs from run to run.
fn masked(text: &str) -> String {
    let lines = text.lines().map(|line| {
        // Of a span, how long it took, and where it lies in its trace.
        let span = line.ends_with('|').then(|| line.get(..82)).flatten();
        let words = span.unwrap_or(line).split(' ').map(masked_word);
        let words: Vec<String> = words.collect();
        format!("{}\n", words.join(" ").trim_end())
    });
    lines.collect()
}

fn masked_word(word: &str) -> String {
    let bare = word.trim_end_matches([',', ']']);
    let end = &word[bare.len()..];
    let is_id = matches!(bare.len(), 16 | 32) && bare.chars().all(|c| c.is_ascii_hexdigit());
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if is_id {
        return format!("<id>{end}");
    }
    if let Some((file, line)) = bare.split_once(".rs:")
        && digits(line)
    {
        return format!("{file}.rs:<line>{end}");
    }
    match bare.strip_prefix("0.").or(bare.strip_prefix("127.0.0.1:")) {
        Some(rest) if digits(rest) => format!("<number>{end}"),
        _ => word.to_owned(),
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn run(name: &str) -> (Option<i32>, String, String) {
    said(&example(name).output().unwrap())
}

/// Of what it says on standard error, too.
fn assert_as_the_page_says(name: &str) {
    let (code, printed, errors) = run(name);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{printed}");
    Section::of(name, &page()).assert_printed(&printed);
}

/// Of one in which a handler panics, which Rust tells on standard error.
fn assert_panics_as_the_page_says(name: &str) {
    let (code, printed, errors) = run(name);
    assert_eq!(code, Some(0), "{printed}{errors}");
    assert_eq!(errors.matches("panicked at").count(), 1, "{errors}");
    Section::of(name, &page()).assert_printed(&printed);
}

#[test]
fn each_example_is_on_the_page() {
    let page = page();
    let files = fs::read_dir(folder()).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let files: BTreeSet<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let sections = Section::all(&page);
    let names: Vec<&str> = sections.iter().map(|section| section.name).collect();
    let set: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(set, files);
    assert_eq!(names.len(), set.len(), "{names:?}");
    for section in sections {
        let name = section.name;
        let command = format!("cargo run --example {name}");
        assert!(section.block("sh").starts_with(&command), "{section:?}");
        assert!(!section.block("text").is_empty());
        assert!(
            section
                .text
                .contains(&format!("Copy from [`{name}.rs`]({name}.rs)")),
            "{section:?}"
        );
        // And in the overview.
        assert!(
            page.contains(&format!("\n| [`{name}`](#{name}) | ")),
            "{name}"
        );
    }
}

#[test]
fn each_file_that_the_page_names_is_there() {
    let page = page();
    let links = page.split("](").skip(1);
    let links = links.map(|link| link.split_once(')').unwrap().0);
    for link in links.filter(|link| !link.starts_with('#') && !link.contains("://")) {
        assert!(folder().join(link).exists(), "{link}");
    }
}

#[test]
fn axum_tells_of_calls_and_lets_requests_pass() {
    assert_as_the_page_says("axum");
}

#[test]
fn capture_policy_chooses_the_events() {
    assert_as_the_page_says("capture_policy");
}

#[test]
fn otel_has_both_agree() {
    assert_as_the_page_says("otel");
}

#[test]
fn people_are_told_without_their_secrets() {
    assert_as_the_page_says("people");
}

#[test]
fn per_service_has_options_of_each() {
    assert_as_the_page_says("per_service");
}

#[test]
fn quickstart_shows_all_of_it() {
    assert_panics_as_the_page_says("quickstart");
}

#[test]
fn streaming_waits_for_the_end_of_streams() {
    assert_as_the_page_says("streaming");
}

#[test]
fn trace_layer_is_listened_to() {
    assert_panics_as_the_page_says("trace_layer");
}

#[cfg(unix)]
#[test]
fn a_client_calls_a_server() {
    let page = page();
    let server = crate::processes::Server::start("gallery", "", "1", None);
    let listens = format!(
        "listening on {}\n",
        server.uri.strip_prefix("http://").unwrap()
    );
    Section::of("server", &page).assert_printed(&listens);
    let section = Section::of("client", &page);
    // As on the page, but for the port.
    let (_, arguments) = section.block("sh").trim_end().split_once(" -- ").unwrap();
    let arguments = arguments.split(' ');
    let mut client = example("client");
    client.args(arguments.map(|argument| match argument {
        "http://127.0.0.1:50051" => server.uri.as_str(),
        argument => argument,
    }));
    let (code, printed, errors) = said(&client.output().unwrap());
    assert_eq!(code, Some(0), "{printed}{errors}");
    section.assert_printed(&printed);
    server.stop("-TERM");
}

/// Those that `support/stage.rs` runs.
const STAGED: [&str; 6] = [
    "axum",
    "capture_policy",
    "people",
    "per_service",
    "streaming",
    "trace_layer",
];

#[test]
fn an_example_fails_where_sentry_receives_nothing() {
    for name in STAGED {
        // Nobody listens there.
        let proxy = "http://127.0.0.1:1";
        let output = example(name).env("http_proxy", proxy).output().unwrap();
        let (code, printed, errors) = said(&output);
        assert_eq!(code, Some(1), "{printed}{errors}");
        let said = format!("{name}: Sentry should have received\n");
        let (_, missing) = errors.split_once(&said).unwrap();
        assert!(!printed.contains(missing.trim_end()), "{printed}");
        // Otherwise it has.
        let (_, printed, _) = run(name);
        assert!(printed.ends_with(missing.strip_suffix('\n').unwrap()));
    }
}

#[test]
fn an_example_says_that_it_takes_no_arguments() {
    for name in STAGED {
        let output = example(name).arg("--json").output().unwrap();
        let expected = format!("{name}: unknown argument \"--json\", usage: {name}\n");
        assert_eq!(said(&output), (Some(1), String::new(), expected));
    }
}
