//! Side by side: receiptd on three disks, the yardstick, and what one would write or pick instead;
//! and how each changes once it has many notifications.
//!
//! One generator drives all of them, one after the other, each on a database of its own, fresh or
//! with so many notifications in it. Apart from the yardstick each answers after its commit, and
//! what is in its database afterwards is counted against what it acknowledged.

use std::error::Error;
use std::fs;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use tempfile::TempDir;

use super::alternatives::{Alternative, Prepared};
use super::options::Options;
use super::preload::Base;
use super::report::{Report, median, ms};
use super::server::Bench;
use super::trial::{self, Trial};
use super::{filled, machine, slow_disk, svg};

/// What a run is made against.
#[derive(Clone)]
enum Subject {
    Bare,
    Receiptd { fsync_delay: Duration },
    Alternative { name: &'static str, prepared: Rc<Result<Prepared, String>> },
}

/// A subject with so many notifications, and what came of it.
struct Series {
    subject: Subject,
    stored: u64,
    trials: Vec<Trial>,
    /// To the yardstick of the same round.
    ratios: Vec<f64>,
    /// To the same subject of the same round with nothing stored.
    of_empty: Vec<f64>,
    /// Why there are no figures.
    missing: Option<String>,
}

/// Medians over the rounds, as the table and the picture have them.
pub struct Row {
    /// Of the server.
    pub name: String,
    /// Notifications it had before.
    pub stored: u64,
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
    /// To the same server with nothing stored, where something was.
    pub of_empty: Option<f64>,
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

/// All of them on fresh databases: prints the table and draws the picture.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let series = subjects().into_iter().map(|subject| Series::new(subject, 0)).collect();
    let (rows, how) = run_rounds(options, bench, report, series)?;
    print("compare", &rows, &how);
    if let Some(file) = &options.svg {
        let machine = machine::describe(&options.common.dir)?;
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        fs::write(file, svg::draw(&rows, &format!("{how}; {machine}; {date}")))?;
        println!("picture: {}", file.display());
    }
    Ok(())
}

/// What keeps something, empty and with so many notifications; the disk is as it is.
pub fn run_stored(
    options: &Options,
    bench: &Bench,
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    let sizes = std::iter::once(0).chain(options.stored.iter().copied());
    let mut series = vec![Series::new(Subject::Bare, 0)];
    for subject in subjects().into_iter().filter(Subject::keeps_on_the_disk_as_it_is) {
        series.extend(sizes.clone().map(|stored| Series::new(subject.clone(), stored)));
    }
    let (rows, how) = run_rounds(options, bench, report, series)?;
    print("compare-stored", &rows, &how);
    Ok(())
}

/// Runs all rounds; the rows, and how they were measured.
fn run_rounds(
    options: &Options,
    bench: &Bench,
    report: &mut Report,
    mut series: Vec<Series>,
) -> Result<(Vec<Row>, String), Box<dyn Error>> {
    let connections = options.connections.first().copied().unwrap_or(64);
    for round in 0..options.common.rounds as usize {
        run_round(options, bench, connections, round, &mut series)?;
    }
    series.iter().for_each(|one| one.judge(bench, report));
    let seconds = options.common.measured().as_secs();
    let how = format!(
        "{connections} connections, {seconds} s, rounds: {}, medians; memory: peak",
        options.common.rounds
    );
    Ok((series.iter().map(|one| one.row(bench)).collect(), how))
}

fn subjects() -> Vec<Subject> {
    let delays = [0, 2, 10].map(Duration::from_millis);
    let mut all = vec![Subject::Bare];
    all.extend(delays.map(|fsync_delay| Subject::Receiptd { fsync_delay }));
    all.extend(Alternative::ALL.map(|one| {
        eprintln!("preparing {}", one.name());
        Subject::Alternative { name: one.name(), prepared: Rc::new(one.prepare()) }
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
        match one.subject.run(options, bench, connections, one.stored) {
            Ok(trial) => {
                trial::tell(&one.told(bench), &trial);
                one.trials.push(trial);
            }
            // Of the yardstick and of receiptd there must be figures; what else fails is shown so.
            Err(error) if one.subject.kind() == Kind::Other => {
                eprintln!("{}: {error}", one.told(bench));
                let why = error.to_string();
                one.missing = Some(why.lines().next().unwrap_or("it failed").to_owned());
            }
            Err(error) => return Err(error),
        }
    }
    let empty: Vec<(String, f64)> = series
        .iter()
        .filter(|one| one.stored == 0)
        .map(|one| (one.subject.name(bench), one.rate_of_last()))
        .collect();
    let rate_of = |wanted: &str| {
        empty.iter().find(|(name, _)| name == wanted).map_or(f64::NAN, |(_, rate)| *rate)
    };
    let bare = rate_of(&Subject::Bare.name(bench));
    for one in series.iter_mut().filter(|one| one.missing.is_none()) {
        let rate = one.rate_of_last();
        one.ratios.push(rate / bare);
        one.of_empty.push(rate / rate_of(&one.subject.name(bench)));
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

    fn keeps_on_the_disk_as_it_is(&self) -> bool {
        match self {
            Self::Bare => false,
            Self::Receiptd { fsync_delay } => fsync_delay.is_zero(),
            Self::Alternative { .. } => true,
        }
    }

    fn run(
        &self,
        options: &Options,
        bench: &Bench,
        connections: usize,
        stored: u64,
    ) -> Result<Trial, Box<dyn Error>> {
        let files = self.files(options, bench, stored)?;
        let server = match self {
            Self::Bare => bench.bare()?,
            Self::Receiptd { fsync_delay } => bench.receiptd_on(&files, *fsync_delay)?,
            Self::Alternative { prepared, .. } => {
                let prepared = prepared.as_ref().as_ref();
                bench.alternative(prepared.map_err(|why| io::Error::other(why.clone()))?, &files)?
            }
        };
        let load = trial::Load::Closed(options.common.measured());
        let trial = trial::run_beside(&options.common, server, connections, load, stored)?;
        if let Self::Receiptd { fsync_delay } = self {
            slow_disk::verify(&trial, *fsync_delay)?;
        }
        Ok(trial)
    }

    /// A folder with as much in it.
    fn files(
        &self,
        options: &Options,
        bench: &Bench,
        stored: u64,
    ) -> Result<Arc<TempDir>, Box<dyn Error>> {
        match (self, stored) {
            (_, 0) | (Self::Bare, _) => Ok(bench.files()?),
            (Self::Receiptd { .. }, _) => {
                Ok(Base::find_or_make(options, bench, stored)?.copy(bench)?)
            }
            (Self::Alternative { .. }, _) => {
                Ok(filled::Base::find_or_make(options, stored)?.copy(bench)?)
            }
        }
    }
}

impl Series {
    fn new(subject: Subject, stored: u64) -> Self {
        let missing = match &subject {
            Subject::Alternative { prepared, .. } => prepared.as_ref().as_ref().err().cloned(),
            _ => None,
        };
        let (trials, ratios, of_empty) = (Vec::new(), Vec::new(), Vec::new());
        Self { subject, stored, trials, ratios, of_empty, missing }
    }

    /// Its name for whoever waits.
    fn told(&self, bench: &Bench) -> String {
        let name = self.subject.name(bench);
        if self.stored == 0 { name } else { format!("{name}, {} stored", self.stored) }
    }

    fn rate_of_last(&self) -> f64 {
        self.trials.last().map_or(f64::NAN, Trial::per_second)
    }

    fn row(&self, bench: &Bench) -> Row {
        let figures = self.missing.clone().map_or_else(|| Ok(self.figures()), Err);
        let (name, kind) = (self.subject.name(bench), self.subject.kind());
        Row { name, stored: self.stored, kind, figures }
    }

    fn figures(&self) -> Figures {
        let trials = &self.trials;
        let figure = |read: fn(&Trial) -> f64| median(trials.iter().map(read)).unwrap_or(0.0);
        let kept: Vec<_> = trials.iter().filter_map(|trial| trial.kept).collect();
        let sum = |read: fn(&super::database::Kept) -> u64| kept.iter().map(read).sum::<u64>();
        Figures {
            per_second: figure(Trial::per_second),
            ratio: median(self.ratios.iter().copied()).unwrap_or(0.0),
            of_empty: median(self.of_empty.iter().copied()).filter(|_| self.stored > 0),
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
            trial::require_kept(&self.trials, &format!("by {}", self.told(bench)), report);
        }
    }
}

fn print(section: &str, rows: &[Row], how: &str) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "server",
        "stored before",
        "durable answers/s",
        "of bare hyper",
        "of empty",
        "in the state/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "memory MiB",
        "start ms",
        "kept of acknowledged",
    ]);
    for row in rows {
        let mut cells = vec![row.name.clone(), row.stored.to_string()];
        match &row.figures {
            Ok(figures) => cells.extend(figures.cells()),
            Err(_) => cells.push("not measured".to_owned()),
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{section}, {how}");
    println!("{table}");
    for row in rows {
        if let Err(why) = &row.figures {
            println!("  not measured: {}, {} stored: {why}", row.name, row.stored);
        }
    }
}

impl Figures {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![
            format!("{:.0}", self.per_second),
            format!("{:.3}", self.ratio),
            self.of_empty.map_or_else(String::new, |share| format!("{share:.2}")),
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
