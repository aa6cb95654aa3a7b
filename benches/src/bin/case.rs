//! Does one work with one contestant, and says how often it allocated. Run by `cost`, with
//! and without callgrind.

use benches::contestant::Sampling;
use benches::{Error, in_process, setup, work::Work};

fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [contestant, sampling, work @ ..] = arguments.as_slice() else {
        return Err("usage: case <contestant> <sampling> <work>".into());
    };
    let contestant = contestant.parse()?;
    let sampling: Sampling = sampling.parse()?;
    let work = Work::from_arguments(work)?;
    let running = setup::set_up(contestant, sampling);
    let greeter = in_process::greeter(contestant, work);
    let runtime = in_process::runtime()?;
    println!(
        "{}",
        contestant.serve(
            greeter,
            in_process::Count {
                work,
                sampling,
                runtime
            }
        )
    );
    drop(running);
    Ok(())
}
