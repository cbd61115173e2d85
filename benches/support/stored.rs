//! Whether it slows down as the tables grow: the burst and the sustained run on databases that hold
//! many notifications, beside an empty one in the same round.

use std::error::Error;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::options::Options;
use super::preload::Base;
use super::report::{Report, median, ms};
use super::server::{Bench, Server};
use super::trial::{self, Trial};

const CONNECTIONS: usize = 64;
const READY_MAX: Duration = Duration::from_millis(100);

/// The two loads, and what share of the empty rate is aimed at.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    Burst,
    Sustained,
}

impl Load {
    const ALL: [Self; 2] = [Self::Burst, Self::Sustained];

    fn name(self) -> &'static str {
        match self {
            Self::Burst => "burst",
            Self::Sustained => "sustained",
        }
    }

    fn share_min(self) -> f64 {
        match self {
            Self::Burst => 0.9,
            Self::Sustained => 0.6,
        }
    }

    /// What is compared with the empty database: of a burst the answers, of a sustained load what
    /// came into the state, the time it took afterwards included.
    fn rate(self, trial: &Trial) -> f64 {
        match self {
            Self::Burst => trial.per_second(),
            Self::Sustained => trial.in_state_per_second(),
        }
    }

    fn lasting(self, options: &Options) -> Duration {
        match self {
            Self::Burst => options.common.measured(),
            Self::Sustained => options.sustained(),
        }
    }
}

/// All runs of one load on databases of one size.
struct Series {
    load: Load,
    stored: u64,
    trials: Vec<Trial>,
    /// To the empty database of the same round.
    shares: Vec<f64>,
    /// To the yardstick of the same round.
    ratios: Vec<f64>,
}

/// Makes the databases, then runs all rounds.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let sizes = std::iter::once(0).chain(options.stored.iter().copied());
    let mut series: Vec<Series> = Load::ALL
        .into_iter()
        .flat_map(|load| sizes.clone().map(move |stored| (load, stored)))
        .map(|(load, stored)| {
            let (trials, shares, ratios) = (Vec::new(), Vec::new(), Vec::new());
            Series { load, stored, trials, shares, ratios }
        })
        .collect();
    for _ in 0..options.common.rounds {
        let bare = trial::bare(&options.common, bench, CONNECTIONS)?;
        let mut empty = f64::NAN;
        for one in &mut series {
            let server = start(options, bench, one.stored)?;
            let load = trial::Load::Closed(one.load.lasting(options));
            let trial = trial::run_beside(&options.common, server, CONNECTIONS, load, one.stored)?;
            trial::tell(&format!("{}, {} stored", one.load.name(), one.stored), &trial);
            // The empty one comes first of each load.
            let rate = one.load.rate(&trial);
            empty = if one.stored == 0 { rate } else { empty };
            one.shares.push(rate / empty);
            one.ratios.push(trial.per_second() / bare);
            one.trials.push(trial);
        }
    }
    print(options, &series);
    series.iter().for_each(|one| judge(one, report));
    Ok(())
}

fn start(options: &Options, bench: &Bench, stored: u64) -> Result<Server, Box<dyn Error>> {
    let files = match stored {
        0 => bench.files()?,
        _ => Base::find_or_make(options, bench, stored)?.copy(bench)?,
    };
    Ok(bench.receiptd_on(&files, Duration::ZERO)?)
}

fn print(options: &Options, series: &[Series]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "stored before",
        "load",
        "acknowledged/s",
        "of empty",
        "of bare hyper",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "memory MiB",
        "start ms",
        "lag s",
    ]);
    for one in series {
        table.add_row(row(one));
    }
    for column in table.column_iter_mut().filter(|column| column.index != 1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let (burst, sustained) = (options.common.measured().as_secs(), options.sustained().as_secs());
    println!(
        "\nstored, {CONNECTIONS} connections, burst {burst} s, sustained {sustained} s, medians of {}",
        options.common.rounds
    );
    println!("{table}");
    series.iter().for_each(|one| trial::print_kept(&one.trials));
}

fn row(one: &Series) -> Vec<String> {
    let trials = &one.trials;
    let figure = |read: fn(&Trial) -> f64| median(trials.iter().map(read)).unwrap_or(0.0);
    vec![
        one.stored.to_string(),
        one.load.name().to_owned(),
        format!("{:.0}", figure(Trial::per_second)),
        format!("{:.2}", middle(&one.shares)),
        format!("{:.2}", middle(&one.ratios)),
        ms(trial::latency(trials, 500)),
        ms(trial::latency(trials, 990)),
        ms(trial::latency(trials, 999)),
        format!("{:.1}", figure(|trial| trial.mebibytes)),
        ms(start_time(trials)),
        format!("{:.2}", trial::lag(trials).as_secs_f64()),
    ]
}

fn middle(figures: &[f64]) -> f64 {
    median(figures.iter().copied()).unwrap_or(0.0)
}

fn start_time(trials: &[Trial]) -> Duration {
    median(trials.iter().map(|trial| trial.start)).unwrap_or(Duration::MAX)
}

fn judge(one: &Series, report: &mut Report) {
    let when = format!("{} with {} stored", one.load.name(), one.stored);
    if one.stored > 0 {
        let (share, min) = (middle(&one.shares), one.load.share_min());
        report.aim(format!("{when}: {share:.2} of empty ({min:.1} or more)"), share >= min);
    }
    if one.stored > 0 && one.load == Load::Burst {
        let took = start_time(&one.trials);
        let text = format!("first 204 with {} stored: {} ms (under 100 ms)", one.stored, ms(took));
        report.aim(text, took < READY_MAX);
    }
    trial::require_kept(&one.trials, &when, report);
}
