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
mod plan;
mod span_order;
mod spans;
mod times;
mod trees;
mod watchdog;
mod world;

use std::process::ExitCode;

const USAGE: &str = "differential run <first seed> <seeds> | seeds <seed>... | show <seed> | \
                     compare <file> <file>";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    match args.as_slice() {
        ["run", first, count] => {
            let (Some(first), Some(count)) = (number(first), number(count)) else {
                return usage();
            };
            trees::print(first..first + count);
        }
        ["seeds", seeds @ ..] => trees::print(seeds.iter().filter_map(|seed| number(seed))),
        ["show", seed] => {
            let Some(seed) = number(seed) else {
                return usage();
            };
            trees::show(seed);
        }
        ["compare", left, right] => return compare::files(left, right),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: {USAGE}");
    ExitCode::from(2)
}
