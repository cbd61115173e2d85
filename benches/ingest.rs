//! How fast receipts come in, beside a bare hyper server on the same machine in the same run.
//!
//! `cargo bench --bench ingest -- --help` tells what can be measured. This program is the load
//! generator and the judge; started again with a role as its first argument it is also the
//! yardstick. receiptd itself is the real binary, measured from outside like any process: over
//! its sockets, through `/proc`, and by reading the files it leaves.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement is there to be read")]

mod support;

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use support::options::{Options, Section};
use support::report::{Report, median, ms};
use support::server::{BARE_ROLE, Bench, STAND_IN_ROLE};
use support::{bare, burst, idle, stand_in, start, visible};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(BARE_ROLE) => bare::run()?,
        Some(STAND_IN_ROLE) => stand_in::run(&arguments)?,
        _ => return measure(&Options::parse()),
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let bench = Bench::new(options)?;
    let mut report = Report::default();
    print_machine(&options.dir)?;
    if options.wants(Section::Start) {
        start::run(options, &bench, &mut report)?;
    }
    if options.wants(Section::Idle) {
        idle::run(options, &bench, &mut report)?;
    }
    if options.wants(Section::Visible) {
        visible::run(options, &bench, &mut report)?;
    }
    if options.wants(Section::Burst) {
        burst::run(options, &bench, &mut report)?;
    }
    report.print();
    let failed = options.check && !report.is_good();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the figures depend on: processors, and how long the disk takes to make something durable.
fn print_machine(dir: &Path) -> io::Result<()> {
    let processors = std::thread::available_parallelism()?;
    let fsync = ms(fsync_time(dir)?);
    println!("{processors} processors; fsync after 4 KiB in {}: {fsync} ms", dir.display());
    Ok(())
}

fn fsync_time(dir: &Path) -> io::Result<Duration> {
    std::fs::create_dir_all(dir)?;
    let mut file: File = tempfile::tempfile_in(dir)?;
    let times = (0..100).map(|_| {
        let since = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        Ok(since.elapsed())
    });
    Ok(median(times.collect::<io::Result<Vec<_>>>()?).unwrap_or_default())
}
