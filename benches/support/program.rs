//! The life of a benchmark: another role, or the sections, the verdicts and the exit code.

use std::error::Error;
use std::process::ExitCode;

use super::common::Common;
use super::report::Report;
use super::server::{BARE_ROLE, Bench, STAND_IN_ROLE};
use super::{bare, machine, stand_in};

/// Whether it could be done.
pub type Done<T = ()> = Result<T, Box<dyn Error>>;

/// The exit code when there are no figures; 1 says that they are not good enough.
const CANNOT_MEASURE: u8 = 2;

/// Plays the role that the first argument names, or measures.
pub fn run(measure: impl FnOnce() -> Done<ExitCode>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let played = match arguments.first().map(String::as_str) {
        Some(BARE_ROLE) => bare::run(),
        Some(STAND_IN_ROLE) => stand_in::run(&arguments),
        _ => return measure().unwrap_or_else(|error| cannot(&*error)),
    };
    played.map_or_else(|error| cannot(&error), |()| ExitCode::SUCCESS)
}

fn cannot(error: &dyn Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(CANNOT_MEASURE)
}

/// Measures and judges.
pub fn measure(
    common: &Common,
    sections: impl FnOnce(&Bench, &mut Report) -> Done,
) -> Done<ExitCode> {
    if !common.under_bench() {
        // `cargo test --all-targets` runs this too, unoptimised; there is nothing to test.
        println!("measures under `cargo bench` only, or with --bench");
        return Ok(ExitCode::SUCCESS);
    }
    let bench = Bench::new(common)?;
    let mut report = Report::default();
    println!("{} in {}", machine::describe(&common.dir)?, common.dir.display());
    let measured = sections(&bench, &mut report);
    // What was found out before something failed is worth reading all the same.
    report.print();
    measured?;
    let failed = common.check && !report.is_good();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
