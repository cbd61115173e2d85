//! `receiptd check-db`: are both files sound, and is the state what the journal says?

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use rusqlite::Connection;

use super::Failure;
use super::flags::ConfigFlags;
use super::output::counted;
use super::progress;
use super::setup::kept;
use crate::config::Settings;
use crate::journal;
use crate::journal::reader::Reader;
use crate::settle;
use crate::sqlite::copy::{Check, damage};
use crate::sqlite::{self, Access};
use crate::state::compare::settled_tables;
use crate::state::tables::{SCHEMA, cursor};

/// Differences, and sentences of SQLite about one file, that are printed.
const PRINTED_MAX: usize = 50;

/// Check both files, and that the state is what the journal says
///
/// Reads every page of both files, then settles the journal again into a temporary folder (set
/// TMPDIR for another one; it needs about the room of the state file) and compares every row. Works
/// beside a running receiver: what that has not settled yet is left out. Changes nothing.
///
/// Exits with 0 if all is well and with 1 if not. A difference does not mean that anything is lost:
/// the journal is the truth, and `receiptd rebuild` makes the state from it. After an upgrade that
/// understands more, or after a source was configured anew, differences are to be expected.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  receiptd check-db --db /data/receiptd.db")]
pub struct Args {
    /// The configuration file and the state file.
    #[command(flatten)]
    pub config: ConfigFlags,
}

/// Checks, and prints what was found.
///
/// # Errors
/// If a file cannot be opened or the check not be made. What it finds is no error but the answer 1.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let Settings { store, limits, .. } = kept(&args.config, env)?;
    let state = store.path;
    let journal = journal::path_beside(&state);
    let live = sqlite::open(&state, &SCHEMA, Access::Read)?;
    let reader = Reader::open(&journal)?;
    let mut findings = Findings { out, count: 0 };
    findings.integrity(&state, &live)?;
    findings.integrity(&journal, reader.connection())?;
    if findings.count > 0 {
        return findings.conclude(
            "a damaged state is made again by `receiptd rebuild`; a damaged \
             journal is replaced from a backup",
        );
    }
    sqlite::check_is_current(&live, &state, &SCHEMA)?;
    sqlite::check_is_current(reader.connection(), &journal, &journal::SCHEMA)?;
    // One snapshot for all that follows, while the receiver goes on.
    let snapshot = live.unchecked_transaction()?;
    let settled = Settled { live: &snapshot, reader: &reader, journal: &journal };
    match settled.through()? {
        Ok(through) => settled.compare(through, limits.settle_callbacks_max, &mut findings)?,
        Err(problem) => findings.add(&problem)?,
    }
    findings.conclude("`receiptd rebuild` makes the state from the journal again")
}

struct Settled<'a> {
    live: &'a Connection,
    reader: &'a Reader,
    journal: &'a Path,
}

impl Settled<'_> {
    /// How far the state has settled this journal, or why there is nothing to compare.
    fn through(&self) -> Result<Result<i64, String>, Failure> {
        let (journal_id, seq) = cursor(self.live)?;
        let last = self.reader.last_seq()?;
        Ok(match journal_id {
            Some(id) if id != self.reader.journal_id()? => {
                Err("the state was settled from another journal".to_owned())
            }
            Some(_) if seq > last => Err(format!(
                "the state has settled up to {seq}, but the journal ends at {last}: it is an older \
                 copy"
            )),
            _ => Ok(seq),
        })
    }

    fn compare(
        &self,
        through: i64,
        callbacks_max: usize,
        findings: &mut Findings<'_>,
    ) -> Result<(), Failure> {
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::new(Failure::IO, format!("no temporary folder: {error}")))?;
        let again = folder.path().join("again.db");
        let bar = progress::bar("settling");
        let show = |seq, last| progress::show(&bar, seq, last);
        let reached = settle::settle_afresh(&again, self.journal, through, callbacks_max, show);
        bar.finish_and_clear();
        let reached = reached?;
        if reached > through {
            return findings.add(&format!(
                "callbacks up to {reached} were pruned, but the state has settled only up to \
                 {through}"
            ));
        }
        let expected = sqlite::open(&again, &SCHEMA, Access::Read)?;
        for table in settled_tables()? {
            let mut result = Ok(());
            let rows = table.compare(&expected, self.live, &mut |difference| {
                if result.is_ok() {
                    result = findings.add(&difference.to_string());
                }
            })?;
            result?;
            findings.say(&format!("{}: {} compared", table.name, counted(rows, "row")))?;
        }
        let lag = self.reader.last_seq()? - through;
        if lag > 0 {
            findings.say(&match lag {
                1 => "the last callback is not settled yet".to_owned(),
                _ => format!("the last {lag} callbacks are not settled yet"),
            })?;
        }
        Ok(())
    }
}

struct Findings<'o> {
    out: &'o mut dyn Write,
    count: usize,
}

impl Findings<'_> {
    fn integrity(&mut self, path: &Path, connection: &Connection) -> Result<(), Failure> {
        match damage(connection, Check::Whole, PRINTED_MAX) {
            Ok(sentences) if sentences.is_empty() => {
                self.say(&format!("{}: sound", path.display()))
            }
            Ok(sentences) => sentences
                .iter()
                .try_for_each(|sentence| self.add(&format!("{}: {sentence}", path.display()))),
            // Damage can be such that even the check cannot go on.
            Err(error) => self.add(&format!("{}: {error}", path.display())),
        }
    }

    fn add(&mut self, finding: &str) -> Result<(), Failure> {
        self.count += 1;
        if self.count > PRINTED_MAX { Ok(()) } else { self.say(finding) }
    }

    fn say(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.out, "{line}").map_err(Failure::output)
    }

    fn conclude(mut self, hint: &str) -> Result<ExitCode, Failure> {
        match self.count {
            0 => {
                self.say("the state is what the journal says")?;
                Ok(ExitCode::SUCCESS)
            }
            count => {
                if count > PRINTED_MAX {
                    self.say(&format!("… and {} more", count - PRINTED_MAX))?;
                }
                self.say(&format!("{count} found; {hint}"))?;
                Ok(ExitCode::from(Failure::NO))
            }
        }
    }
}
