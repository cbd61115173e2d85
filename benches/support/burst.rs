//! The burst: as much as the server takes, receiptd and the yardstick in turn.

use std::error::Error;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::database::{self, Kept};
use super::load::{self, Outcome, Target};
use super::machine::Meter;
use super::options::Options;
use super::receipt::Ids;
use super::report::{Report, median, ms};
use super::server::{Bench, Memory, Server};

const WARM_UP: Duration = Duration::from_secs(1);
/// Above it the report says that its figures are rough.
const OTHERS_PERCENT_MAX: f64 = 5.0;

/// One run against one server.
struct Run {
    server: &'static str,
    connections: usize,
    outcome: Outcome,
    /// To the yardstick of the same round.
    ratio: f64,
    memory: Memory,
    settling: Option<Settling>,
    /// Of the processors, what neither generator nor server used.
    others_percent: f64,
}

/// What receiptd still had to do when the burst ended, and how it ended.
struct Settling {
    backlog: u64,
    took: Duration,
    kept: Kept,
}

impl Settling {
    fn per_second(&self) -> f64 {
        self.backlog as f64 / self.took.as_secs_f64()
    }
}

/// Runs all rounds and prints the table.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let mut runs = Vec::new();
    for round in 0..options.common.rounds {
        for &connections in &options.connections {
            runs.extend(run_round(options, bench, round, connections)?);
        }
    }
    print(options, bench, &runs);
    for &connections in &options.connections {
        judge(connections, &of(&runs, bench.subject(), connections), report);
    }
    Ok(())
}

/// Both servers once. Which goes first alternates, so that a drift of the machine favours neither.
fn run_round(
    options: &Options,
    bench: &Bench,
    round: u32,
    connections: usize,
) -> Result<[Run; 2], Box<dyn Error>> {
    let bare = || run_once(options, "bare hyper", bench.bare()?, round, connections);
    let ours = || run_once(options, bench.subject(), bench.receiptd()?, round, connections);
    let (bare, mut ours) = if round.is_multiple_of(2) {
        let bare = bare()?;
        (bare, ours()?)
    } else {
        let ours = ours()?;
        (bare()?, ours)
    };
    ours.ratio = ours.outcome.per_second() / bare.outcome.per_second();
    Ok([bare, ours])
}

fn run_once(
    options: &Options,
    name: &'static str,
    server: Server,
    round: u32,
    connections: usize,
) -> Result<Run, Box<dyn Error>> {
    let target =
        Target { server: server.callbacks, connections, reference: options.common.reference };
    let mut ids = Ids::new(options.common.seed);
    let meter = Meter::start(server.pid())?;
    let outcome = load::closed_loop(target, &mut ids, WARM_UP, options.common.measured())?;
    let others_percent = meter.others_percent()?;
    let settling = if server.settles() { Some(settle(&server, &outcome)?) } else { None };
    let memory = server.memory()?;
    if outcome.uncertain() > 0 {
        eprintln!("{} requests not answered 204\n{}", outcome.uncertain(), server.last_words());
    }
    server.stop()?;
    eprintln!(
        "round {}: {name}, {connections} connections: {:.0}/s, p99 {} ms; others took {others_percent:.0} %",
        round + 1,
        outcome.per_second(),
        ms(outcome.latency.quantile(990)),
    );
    Ok(Run { server: name, connections, outcome, ratio: 1.0, memory, settling, others_percent })
}

/// Lets the server finish what the burst left, then counts what it kept.
fn settle(server: &Server, outcome: &Outcome) -> Result<Settling, Box<dyn Error>> {
    let settled = database::notifications(server)?;
    let backlog = outcome.acknowledged.saturating_sub(settled);
    server.wait_until_settled()?;
    let took = outcome.sending_ended.elapsed();
    Ok(Settling { backlog, took, kept: Kept::count(server, outcome)? })
}

fn of<'a>(runs: &'a [Run], server: &str, connections: usize) -> Vec<&'a Run> {
    runs.iter().filter(|run| run.server == server && run.connections == connections).collect()
}

fn print(options: &Options, bench: &Bench, runs: &[Run]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "server",
        "connections",
        "requests/s",
        "ratio",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "RSS MiB",
        "peak MiB",
        "backlog",
        "settled/s",
        "others %",
    ]);
    for &connections in &options.connections {
        for server in ["bare hyper", bench.subject()] {
            table.add_row(row(server, connections, &of(runs, server, connections)));
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!(
        "\nburst, {} s, medians of {} rounds; max, memory and what others took of the processors: the worst",
        options.common.measured().as_secs(),
        options.common.rounds
    );
    println!("{table}");
    let others = runs.iter().map(|run| run.others_percent).fold(0.0, f64::max);
    if others > OTHERS_PERCENT_MAX {
        println!("  rough: others took up to {others:.0} % of the processors");
    }
    for kept in runs.iter().filter_map(|run| run.settling.as_ref()).map(|one| one.kept) {
        println!("  {kept}");
    }
}

fn row(server: &str, connections: usize, runs: &[&Run]) -> Vec<String> {
    let figure =
        |read: &dyn Fn(&Run) -> f64| median(runs.iter().map(|run| read(run))).unwrap_or(0.0);
    let latency = |per_mille| ms(p(runs, per_mille));
    let worst = |read: &dyn Fn(&Run) -> f64| runs.iter().map(|run| read(run)).fold(0.0, f64::max);
    let settling = |read: &dyn Fn(&Settling) -> f64| {
        let figures = runs.iter().filter_map(|run| run.settling.as_ref().map(read));
        median(figures).map_or_else(String::new, |figure| format!("{figure:.0}"))
    };
    vec![
        server.to_owned(),
        connections.to_string(),
        format!("{:.0}", figure(&|run| run.outcome.per_second())),
        format!("{:.2}", figure(&|run| run.ratio)),
        latency(500),
        latency(990),
        latency(999),
        ms(runs.iter().map(|run| run.outcome.latency.max()).max().unwrap_or_default()),
        format!("{:.1}", worst(&|run| run.memory.resident)),
        format!("{:.1}", worst(&|run| run.memory.peak)),
        settling(&|one| one.backlog as f64),
        settling(&Settling::per_second),
        format!("{:.0}", worst(&|run| run.others_percent)),
    ]
}

fn p(runs: &[&Run], per_mille: u64) -> Duration {
    median(runs.iter().map(|run| run.outcome.latency.quantile(per_mille))).unwrap_or_default()
}

fn judge(connections: usize, runs: &[&Run], report: &mut Report) {
    let ratio = median(runs.iter().map(|run| run.ratio)).unwrap_or(0.0);
    let at = format!("at {connections} connections");
    if connections == 64 {
        report.require(format!("ratio {at}: {ratio:.2} (0.40 or more)"), ratio >= 0.40);
        let p99 = p(runs, 990);
        let reached = p99 < Duration::from_millis(20);
        report.require(format!("p99 {at}: {} ms (under 20 ms)", ms(p99)), reached);
        let reached = p99 < Duration::from_millis(10);
        report.aim(format!("p99 {at}: {} ms (under 10 ms)", ms(p99)), reached);
        let p999 = p(runs, 999);
        let reached = p999 < Duration::from_millis(50);
        report.aim(format!("p99.9 {at}: {} ms (under 50 ms)", ms(p999)), reached);
    }
    report.aim(format!("ratio {at}: {ratio:.2} (0.50 or more)"), ratio >= 0.50);
    let uncertain: u64 = runs.iter().map(|run| run.outcome.uncertain()).sum();
    report.require(format!("not answered 204 {at}: {uncertain} (0)"), uncertain == 0);
    let whole = runs.iter().filter(|run| run.settling.as_ref().is_some_and(|one| one.kept.all()));
    let whole = whole.count();
    let of = runs.len();
    report.require(format!("runs {at} that kept everything: {whole} (all {of})"), whole == of);
}
