//! What the manual says, as far as it can be held to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use sentry::integrations::tracing::{BreadcrumbLayer, ErrorLayer, SpanLayer};
use sentry_tonic::SentryTracingLayer;
use tonic::{Code, Status};
use tracing::{Subscriber, error, info};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::registry::LookupSpan;

use crate::support::greeter::Scripted;
use crate::support::received::trace;
use crate::support::world::World;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The pages by the names of their modules; that of several has its text in the module.
fn pages() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual");
    let modules = read("src/manual/mod.rs");
    let names = modules
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.split([' ', ';']).next());
    let page = |name: &str| {
        let text = fs::read_to_string(folder.join(format!("{name}.md")));
        text.unwrap_or_else(|_| read(&format!("src/manual/{name}/mod.rs")))
    };
    names.map(|name| (name.to_owned(), page(name))).collect()
}

/// The anchors that rustdoc gives the headings of a text.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| {
        let line = line.strip_prefix("//! ").unwrap_or(line);
        let title = line.trim_start_matches('#').strip_prefix(' ')?;
        line.starts_with('#').then_some(title)
    });
    let anchor = |title: &str| {
        let kept = title.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c.to_ascii_lowercase()),
            _ => None,
        });
        kept.collect()
    };
    headings.map(anchor).collect()
}

/// What follows each `mark` in a text, as far as it is part of a link.
fn links<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    let is_end = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '#' | '/' | '.'));
    let after = text.split(mark).skip(1);
    after.map(move |rest| rest.split(is_end).next().unwrap_or_default())
}

#[test]
fn every_page_is_in_the_readme_and_the_crates_docs() {
    let (readme, docs) = (read("README.md"), read("src/lib.rs"));
    let listed = |text: &str, mark| -> BTreeSet<String> {
        let links = links(text, mark).map(|link| link.split(['/', '#']).next().unwrap().to_owned());
        links.collect()
    };
    let pages: BTreeSet<String> = pages().into_keys().collect();
    assert!(pages.len() > 9, "{pages:?}");
    assert_eq!(listed(&readme, "latest/sentry_tonic/manual/"), pages);
    assert_eq!(listed(&docs, "](manual::"), pages);
}

#[test]
fn the_readme_and_the_crates_docs_begin_with_the_same_program() {
    let block = |file, language| {
        let text = read(file).replace("//! ", "").replace("//!\n", "\n");
        let (_, block) = text.split_once(language).unwrap();
        let block = block.split_once("```").unwrap().0;
        let shown = block.lines().filter(|line| !line.starts_with("# "));
        shown.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        block("README.md", "```sh\n"),
        block("src/lib.rs", "```sh\n")
    );
    // That of the crate's docs is compiled: rustdoc hides the module that its services are in.
    let program = block("README.md", "```rust,ignore\n");
    assert_eq!(program, block("src/lib.rs", "```rust,no_run\n"));
    assert!(program.len() <= 30, "{} lines", program.len());
    assert!(read("README.md").lines().count() <= 150);
}

#[test]
fn links_into_the_manual_lead_to_a_heading() {
    let pages = pages();
    let docs = read("src/lib.rs");
    let leads = |page: &str, anchor: &str| match page {
        "" => anchors(&docs).contains(anchor),
        page => match pages.get(page) {
            Some(page) => anchors(page).contains(anchor),
            // One of several in a module.
            None => page.contains('/'),
        },
    };
    let mut seen = 0;
    let mut check = |text: &str, own: &str| {
        let of_pages = ["crate::manual::", "(manual::", "sentry_tonic/manual/"];
        let of_pages = of_pages.into_iter().flat_map(|mark| links(text, mark));
        let of_crate = links(text, "(crate#").map(|anchor| ("", anchor));
        let of_page = links(text, "(#").map(|anchor| (own, anchor));
        let of_pages = of_pages.filter_map(|link| {
            let (page, anchor) = link.split_once('#')?;
            Some((page.trim_end_matches("/index.html"), anchor))
        });
        for (page, anchor) in of_pages.chain(of_crate).chain(of_page) {
            assert!(leads(page, anchor), "{page}#{anchor}, of {own:?}");
            seen += 1;
        }
    };
    for (name, page) in &pages {
        check(page, name);
    }
    for file in [
        "src/lib.rs",
        "src/manual/mod.rs",
        "src/bridge/layer.rs",
        "src/send/transport.rs",
    ] {
        check(&read(file), "");
    }
    // Whose own anchors are others.
    let guides = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/migrating");
    let guides = fs::read_dir(guides).unwrap();
    let guides = guides.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let files = ["README.md", "RELIABILITY.md", "SECURITY.md"].map(read);
    for text in guides.chain(files) {
        check(&text.replace("(#", ""), "");
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn every_field_is_on_its_page() {
    let code = read("src/fields.rs");
    let code = code.split("#[cfg(test)]").next().unwrap();
    let page = &pages()["fields"];
    let constants = code.split(": &str = \"").skip(1);
    let names: Vec<&str> = constants
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        // Of a prefix, what follows is up to the application.
        let is_there = match name.ends_with('.') {
            true => page.contains(&format!("`{name}")),
            false => page.contains(&format!("`{name}`")),
        };
        assert!(is_there, "{name}");
    }
}

/// Methods of a type's own, as the public API has them: of these types, each is an option.
fn methods() -> BTreeSet<(String, String)> {
    const TYPES: [&str; 6] = [
        "SentryClientLayer",
        "SentryMakeSpan",
        "SentryServerLayer",
        "SentryTracingLayer",
        "TracePropagationInterceptor",
        "TraceTransport",
    ];
    let api = read("tests/public-api.txt");
    let mut own = "";
    let mut methods = BTreeSet::new();
    for line in api.lines() {
        if let Some(of) = line.strip_prefix("impl") {
            own = of.strip_prefix(" sentry_tonic::").unwrap_or_default();
        }
        let method = line.strip_prefix(&*format!("pub fn sentry_tonic::{own}::"));
        if let (true, Some(method)) = (TYPES.contains(&own), method) {
            let name = method.split(['(', '<']).next().unwrap();
            methods.insert((own.to_owned(), name.to_owned()));
        }
    }
    methods
}

#[test]
fn every_option_has_a_row_on_its_page() {
    let page = &pages()["options"];
    let mut told = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [option, of, what, default] = cells.as_slice() else {
            panic!("{row}")
        };
        assert!(!what.is_empty() && !default.is_empty(), "{row}");
        for link in of.split("](crate::").skip(1) {
            let (owner, name) = link.split(')').next().unwrap().split_once("::").unwrap();
            assert_eq!(*option, format!("`{name}`"));
            let is_new = told.insert((owner.to_owned(), name.to_owned()));
            assert!(is_new, "{row}");
        }
    }
    assert!(told.len() > 50, "{}", told.len());
    assert_eq!(told, methods());
}

/// What Sentry gets of a call.
#[derive(Debug, PartialEq)]
struct Told {
    /// Operations and names.
    transactions: Vec<(String, String)>,
    events: usize,
    /// Of the last event.
    breadcrumbs: usize,
}

/// Of a call that says something, and then fails.
fn failed_call<S>(make: impl FnOnce(SentryTracingLayer) -> S) -> Told
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
{
    let world = World::subscribed(make(SentryTracingLayer::new()));
    world.run(async {
        let greeter = Scripted::new().say_hello(|_| async {
            info!("asking the store");
            error!("the store is gone");
            Err(Status::not_found("nobody"))
        });
        let failure = greeter.say_hello_once("a").await.unwrap_err();
        assert_eq!(failure.code(), Code::NotFound);
    });
    let received = world.received();
    // Those of others have no status.
    let transactions = received.transactions.iter();
    let mut transactions: Vec<_> = transactions
        .map(|of| (trace(of).op.unwrap(), of.name.clone().unwrap()))
        .collect();
    transactions.sort();
    let breadcrumbs = received.events.last().map(|event| event.breadcrumbs.len());
    Told {
        transactions,
        events: received.events.len(),
        breadcrumbs: breadcrumbs.unwrap_or_default(),
    }
}

/// The symptoms that the page on troubleshooting names come of the causes that it names.
#[test]
fn layers_of_sentry_tracing_beside_ours_tell_calls_twice_and_filters_hide_them() {
    let pair = |op: &str, name: &str| (op.to_owned(), name.to_owned());
    let call = pair("grpc.server", "/helloworld.Greeter/SayHello");
    let told = |transactions: &[&(String, String)], events, breadcrumbs| Told {
        transactions: transactions.iter().map(|&pair| pair.clone()).collect(),
        events,
        breadcrumbs,
    };
    let alone = failed_call(|layer| registry().with(layer));
    assert_eq!(alone, told(&[&call], 1, 1));

    let spans = || SpanLayer::new().with_filter(LevelFilter::INFO);
    let beside = pair("sentry_tonic::grpc.server", "grpc.server");
    let twice = failed_call(|layer| registry().with(spans()).with(layer));
    assert_eq!(twice, told(&[&call, &beside], 1, 1));
    // An error is told once, if that is not switched off.
    let errors = || ErrorLayer::new().with_filter(LevelFilter::ERROR);
    let once = failed_call(|layer| registry().with(errors()).with(layer));
    assert_eq!(once, told(&[&call], 1, 1));
    let after = ErrorLayer::new().with_filter(LevelFilter::ERROR);
    let once = failed_call(|layer| registry().with(layer).with(after));
    assert_eq!(once, told(&[&call], 1, 1));
    let twice = failed_call(|layer| {
        let layer = layer.deduplicate_errors(false);
        registry().with(errors()).with(layer)
    });
    assert_eq!(twice, told(&[&call], 2, 1));
    let outside = World::subscribed(registry().with(errors()).with(SentryTracingLayer::new()));
    outside.sync(|| error!("in no call"));
    assert_eq!(outside.received().events.len(), 2);
    let breadcrumbs = || BreadcrumbLayer::new().with_filter(LevelFilter::INFO);
    let twice = failed_call(|layer| registry().with(breadcrumbs()).with(layer));
    // And the error itself.
    assert_eq!(twice, told(&[&call], 1, 3));

    // One that names the application alone, and one without a `RUST_LOG`.
    for filter in ["it=info,man=info", "error"] {
        let hidden = failed_call(|layer| registry().with(EnvFilter::new(filter)).with(layer));
        assert_eq!(hidden.transactions, [], "{filter}");
        assert_eq!(hidden.events, 1, "{filter}");
    }
    for filter in ["it=info,man=info,sentry_tonic=info", "info"] {
        let seen = failed_call(|layer| registry().with(EnvFilter::new(filter)).with(layer));
        assert_eq!(seen, alone, "{filter}");
    }
    let page = &pages()["troubleshooting"];
    assert!(page.contains("`sentry_tonic::grpc.server`"));
}
