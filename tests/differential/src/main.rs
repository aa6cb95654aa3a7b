//! Makes random call trees, and prints what Sentry receives of them: see `run`.

mod apply;
mod calls;
mod choices;
mod compare;
mod cover;
mod envelopes;
mod generate;
mod headers;
mod ids;
mod line;
mod ops;
mod orders;
mod parts;
mod plan;
mod span_order;
mod spans;
mod times;
mod trees;
mod watchdog;
mod world;

use std::process::ExitCode;

use crate::trees::Family;

const USAGE: &str = "differential whole|parts run <first seed> <seeds> | seeds <seed>... | \
                     show <seed> | compare <file> <file>";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(&args).unwrap_or_else(|| {
        eprintln!("usage: {USAGE}");
        ExitCode::from(2)
    })
}

/// `None` for arguments that have no meaning.
fn run(args: &[&str]) -> Option<ExitCode> {
    let number = |text: &str| text.parse::<u64>().ok();
    let (family, args) = match args {
        ["whole", args @ ..] => (Family::Whole, args),
        ["parts", args @ ..] => (Family::Parts, args),
        _ => return None,
    };
    match args {
        ["run", first, count] => {
            let first = number(first)?;
            trees::print(family, first..first + number(count)?);
        }
        ["seeds", seeds @ ..] => trees::print(family, seeds.iter().filter_map(|seed| number(seed))),
        ["compare", left, right] => return Some(compare::files(family, left, right)),
        ["show", seed] => trees::show(family, number(seed)?),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}
