//! Side by side: receiptd on three disks, the yardstick, and what one would write or pick instead.
//!
//! One generator drives all of them, one after the other, each on a fresh database. Apart from the
//! yardstick each answers after its commit, and what is in its database afterwards is counted
//! against what it acknowledged.

use std::error::Error;
use std::fs;
use std::io;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::alternatives::{Alternative, Prepared};
use super::options::Options;
use super::report::{Report, median, ms};
use super::server::Bench;
use super::trial::{self, Trial};
use super::{machine, slow_disk, svg};

/// What a run is made against.
enum Subject {
    Bare,
    Receiptd { fsync_delay: Duration },
    Alternative { name: &'static str, prepared: Result<Prepared, String> },
}

/// A subject and what came of it.
struct Series {
    subject: Subject,
    trials: Vec<Trial>,
    /// To the yardstick of the same round.
    ratios: Vec<f64>,
    /// Why there are no figures.
    missing: Option<String>,
}

/// Medians over the rounds, as the table and the picture have them.
pub struct Row {
    /// Of the server.
    pub name: String,
    /// Whether it is ours, or the yardstick, or something else.
    pub kind: Kind,
    /// The figures, or why there are none.
    pub figures: Result<Figures, String>,
}

/// How the picture colours a row.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Keeps nothing.
    Yardstick,
    /// receiptd.
    Ours,
    /// Something else.
    Other,
}

/// One row's figures.
pub struct Figures {
    /// 204s a second.
    pub per_second: f64,
    /// To the yardstick.
    pub ratio: f64,
    /// Callbacks a second that reached the state, where that is not the same commit.
    pub in_state_per_second: Option<f64>,
    /// 500, 990 and 999 of a thousand did not take longer.
    pub latencies: [Duration; 3],
    /// Peak of the whole tree.
    pub mebibytes: f64,
    /// Until the first 204.
    pub start: Duration,
    /// Rows there are, and rows there must be.
    pub kept: Option<(u64, u64)>,
}

/// Prepares what needs preparing, runs all rounds, prints the table and draws the picture.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let connections = options.connections.first().copied().unwrap_or(64);
    let mut series: Vec<Series> = subjects().into_iter().map(Series::new).collect();
    for round in 0..options.common.rounds as usize {
        run_round(options, bench, connections, round, &mut series)?;
    }
    let rows: Vec<Row> = series.iter().map(|one| one.row(bench)).collect();
    let seconds = options.common.measured().as_secs();
    let how = format!(
        "{connections} connections, {seconds} s, rounds: {}, medians; memory: peak",
        options.common.rounds
    );
    print(&rows, &how);
    series.iter().for_each(|one| one.judge(bench, report));
    if let Some(file) = &options.svg {
        let machine = machine::describe(&options.common.dir)?;
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        fs::write(file, svg::draw(&rows, &format!("{how}; {machine}; {date}")))?;
        println!("picture: {}", file.display());
    }
    Ok(())
}

fn subjects() -> Vec<Subject> {
    let delays = [0, 2, 10].map(Duration::from_millis);
    let mut all = vec![Subject::Bare];
    all.extend(delays.map(|fsync_delay| Subject::Receiptd { fsync_delay }));
    all.extend(Alternative::ALL.map(|one| {
        eprintln!("preparing {}", one.name());
        Subject::Alternative { name: one.name(), prepared: one.prepare() }
    }));
    all
}

/// All subjects once. Each round begins with another, so that a drift of the machine favours none.
fn run_round(
    options: &Options,
    bench: &Bench,
    connections: usize,
    round: usize,
    series: &mut [Series],
) -> Result<(), Box<dyn Error>> {
    let count = series.len();
    for n in 0..count {
        let one = &mut series[(round + n) % count];
        if one.missing.is_some() {
            continue;
        }
        match one.subject.run(options, bench, connections) {
            Ok(trial) => {
                trial::tell(&one.subject.name(bench), &trial);
                one.trials.push(trial);
            }
            // Of the yardstick and of receiptd there must be figures; what else fails is shown so.
            Err(error) if one.subject.kind() == Kind::Other => {
                eprintln!("{}: {error}", one.subject.name(bench));
                let why = error.to_string();
                one.missing = Some(why.lines().next().unwrap_or("it failed").to_owned());
            }
            Err(error) => return Err(error),
        }
    }
    let bare = series.iter().find(|one| matches!(one.subject, Subject::Bare));
    let bare = bare.and_then(|one| one.trials.last()).map_or(f64::NAN, Trial::per_second);
    for one in series.iter_mut().filter(|one| one.missing.is_none()) {
        one.ratios.extend(one.trials.last().map(|trial| trial.per_second() / bare));
    }
    Ok(())
}

impl Subject {
    fn name(&self, bench: &Bench) -> String {
        match self {
            Self::Bare => "bare hyper, keeps nothing".to_owned(),
            Self::Receiptd { fsync_delay } if fsync_delay.is_zero() => bench.subject().to_owned(),
            Self::Receiptd { fsync_delay } => {
                format!("{}, fsync +{} ms", bench.subject(), fsync_delay.as_millis())
            }
            Self::Alternative { name, .. } => (*name).to_owned(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Bare => Kind::Yardstick,
            Self::Receiptd { .. } => Kind::Ours,
            Self::Alternative { .. } => Kind::Other,
        }
    }

    fn run(
        &self,
        options: &Options,
        bench: &Bench,
        connections: usize,
    ) -> Result<Trial, Box<dyn Error>> {
        let server = match self {
            Self::Bare => bench.bare()?,
            Self::Receiptd { fsync_delay } => bench.receiptd_on(&bench.files()?, *fsync_delay)?,
            Self::Alternative { prepared, .. } => {
                let prepared = prepared.as_ref().map_err(|why| io::Error::other(why.clone()))?;
                bench.alternative(prepared)?
            }
        };
        let trial = trial::run(
            &options.common,
            server,
            connections,
            trial::Load::Closed(options.common.measured()),
        )?;
        if let Self::Receiptd { fsync_delay } = self {
            slow_disk::verify(&trial, *fsync_delay)?;
        }
        Ok(trial)
    }
}

impl Series {
    fn new(subject: Subject) -> Self {
        let missing = match &subject {
            Subject::Alternative { prepared: Err(why), .. } => Some(why.clone()),
            _ => None,
        };
        Self { subject, trials: Vec::new(), ratios: Vec::new(), missing }
    }

    fn row(&self, bench: &Bench) -> Row {
        let figures = self.missing.clone().map_or_else(|| Ok(self.figures()), Err);
        Row { name: self.subject.name(bench), kind: self.subject.kind(), figures }
    }

    fn figures(&self) -> Figures {
        let trials = &self.trials;
        let figure = |read: fn(&Trial) -> f64| median(trials.iter().map(read)).unwrap_or(0.0);
        let kept: Vec<_> = trials.iter().filter_map(|trial| trial.kept).collect();
        let sum = |read: fn(&super::database::Kept) -> u64| kept.iter().map(read).sum::<u64>();
        Figures {
            per_second: figure(Trial::per_second),
            ratio: median(self.ratios.iter().copied()).unwrap_or(0.0),
            in_state_per_second: (self.subject.kind() == Kind::Ours)
                .then(|| figure(Trial::in_state_per_second)),
            latencies: [500, 990, 999].map(|per_mille| trial::latency(trials, per_mille)),
            mebibytes: figure(|trial| trial.mebibytes),
            start: median(trials.iter().map(|trial| trial.start)).unwrap_or(Duration::MAX),
            kept: (!kept.is_empty())
                .then(|| (sum(|one| one.notifications), sum(|one| one.acknowledged))),
        }
    }

    /// Ours must keep everything; of the others it is only told.
    fn judge(&self, bench: &Bench, report: &mut Report) {
        if let Subject::Receiptd { .. } = self.subject {
            trial::require_kept(&self.trials, &format!("by {}", self.subject.name(bench)), report);
        }
    }
}

fn print(rows: &[Row], how: &str) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "server",
        "durable answers/s",
        "of bare hyper",
        "in the state/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "memory MiB",
        "start ms",
        "kept of acknowledged",
    ]);
    for row in rows {
        let mut cells = vec![row.name.clone()];
        match &row.figures {
            Ok(figures) => cells.extend(figures.cells()),
            Err(_) => cells.push("not measured".to_owned()),
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\ncompare, {how}");
    println!("{table}");
    for row in rows {
        if let Err(why) = &row.figures {
            println!("  not measured: {}: {why}", row.name);
        }
    }
}

impl Figures {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![
            format!("{:.0}", self.per_second),
            format!("{:.3}", self.ratio),
            match (self.in_state_per_second, self.kept) {
                (Some(rate), _) => format!("{rate:.0}"),
                (None, Some(_)) => "the same".to_owned(),
                (None, None) => "nothing".to_owned(),
            },
        ];
        cells.extend(self.latencies.map(ms));
        cells.push(format!("{:.1}", self.mebibytes));
        cells.push(ms(self.start));
        cells.push(match self.kept {
            Some((there, acknowledged)) => format!("{there} of {acknowledged}"),
            None => "nothing kept".to_owned(),
        });
        cells
    }
}
