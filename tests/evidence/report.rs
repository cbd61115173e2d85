//! What was found, printed as it comes and kept as JSON for the table.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Promise;
use super::options::Options;

/// What trying a promise came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Whether the promise was held.
    pub held: bool,
    /// The figure for the table: `0 lost of 100,000 acknowledged over 100 cuts`.
    pub figure: String,
    /// Everything counted, by name.
    pub counts: Vec<(String, u64)>,
    /// The control: what was made unsafe, and whether that was caught. A promise that has none
    /// says in the text why no control is possible.
    pub control: Control,
    /// What went wrong, one line each; empty if held.
    pub problems: Vec<String>,
}

impl Found {
    /// Whether the promise was held, and the control says that this could have been seen.
    fn is_held(&self) -> bool {
        self.held && self.control.caught && self.problems.is_empty()
    }
}

/// The same attack on something that must not withstand it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Control {
    /// What was made unsafe, and what was seen.
    pub what: String,
    /// Whether it was caught.
    pub caught: bool,
}

/// Of one promise.
pub enum Verdict {
    /// It was tried.
    Found(Found),
    /// It was not, and why.
    Skipped(String),
}

/// A result as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    found: Found,
    rounds: u32,
    seed: u64,
    seconds: f64,
    release: bool,
    date: String,
    machine: String,
}

/// Follows a run.
pub struct Report {
    seed: u64,
    bounded: bool,
    rounds: Box<dyn Fn(&Promise) -> u32>,
    began: Instant,
    broken: Vec<&'static str>,
    skipped: Vec<&'static str>,
}

impl Report {
    /// Says what is about to run.
    pub fn new(options: &Options) -> Self {
        println!("{}; seed {}", machine(), options.seed);
        if cfg!(debug_assertions) {
            println!("this is a debug build: figures for the record come from --release");
        }
        let (rounds, bounded) = (options.rounds, options.bounded);
        Self {
            seed: options.seed,
            bounded,
            rounds: Box::new(move |promise| Options::rounds_by(rounds, bounded, promise)),
            began: Instant::now(),
            broken: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// A promise is about to be tried.
    pub fn begin(&mut self, promise: &Promise) {
        self.began = Instant::now();
        println!("\n== {} {}: {}", promise.number, promise.name, promise.claim);
        println!("   {} rounds, seed {}", (self.rounds)(promise), self.seed);
    }

    /// It was, or was skipped.
    pub fn end(&mut self, promise: &Promise, verdict: Verdict) {
        let found = match verdict {
            Verdict::Skipped(why) => {
                println!("\n== {} {}: SKIPPED, {why}", promise.number, promise.name);
                return self.skipped.push(promise.name);
            }
            Verdict::Found(found) => found,
        };
        let seconds = self.began.elapsed().as_secs_f64();
        for (name, count) in &found.counts {
            println!("   {name}: {count}");
        }
        let caught = if found.control.caught { "caught" } else { "NOT CAUGHT" };
        println!("   control {caught}: {}", found.control.what);
        for problem in &found.problems {
            println!("   PROBLEM: {problem}");
        }
        let is_held = found.is_held();
        println!(
            "   {}: {} ({seconds:.0} s)",
            if is_held { "held" } else { "NOT HELD" },
            found.figure
        );
        if !is_held {
            self.broken.push(promise.name);
        }
        self.keep(promise, found, seconds);
    }

    /// Bounded runs and debug builds leave the figures for the record alone.
    fn keep(&self, promise: &Promise, found: Found, seconds: f64) {
        if self.bounded || cfg!(debug_assertions) {
            return;
        }
        let date = receiptd::clock::Clock::system().now().to_string()[..10].to_owned();
        let (rounds, seed) = ((self.rounds)(promise), self.seed);
        let kept = Kept { found, rounds, seed, seconds, release: true, date, machine: machine() };
        let text = serde_json::to_string_pretty(&kept).expect("texts and numbers have a JSON form");
        fs::create_dir_all(folder()).expect("the target folder can be written");
        fs::write(folder().join(format!("{}.json", promise.name)), text)
            .expect("the target folder can be written");
    }

    /// Sums up.
    pub fn finish(self) -> ExitCode {
        println!();
        if !self.skipped.is_empty() {
            println!("skipped: {}", self.skipped.join(", "));
        }
        if self.broken.is_empty() {
            println!("every promise tried was held");
            return ExitCode::SUCCESS;
        }
        println!("NOT HELD: {}", self.broken.join(", "));
        ExitCode::FAILURE
    }
}

/// Prints what was kept, as the README's table.
pub fn table(promises: &[Promise]) -> ExitCode {
    println!("| # | promise | found | control | tried |\n|---|---|---|---|---|");
    let mut machines = BTreeSet::new();
    for promise in promises {
        let text = fs::read_to_string(folder().join(format!("{}.json", promise.name)));
        let Some(kept) = text.ok().and_then(|text| serde_json::from_str::<Kept>(&text).ok()) else {
            println!("| {} | {} | not run yet | | |", promise.number, promise.claim);
            continue;
        };
        println!(
            "| {} | {}{} | {} | {} | {} rounds, seed {}, {}, {} |",
            promise.number,
            promise.claim,
            if kept.found.is_held() { "" } else { ": **not held**" },
            kept.found.figure,
            kept.found.control.what,
            kept.rounds,
            kept.seed,
            time(kept.seconds),
            kept.date
        );
        machines.insert(kept.machine);
    }
    for machine in machines {
        println!("\nMachine: {machine}.");
    }
    ExitCode::SUCCESS
}

fn time(seconds: f64) -> String {
    if seconds < 120.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("evidence")
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {} {}", std::env::consts::OS, kernel.trim())
}
