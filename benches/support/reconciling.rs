//! A full reconcile: everything that a platform shows is asked for, once when all of it is news and once
//! when none of it is.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::platform::Platform;
use super::program::Done;
use super::receipt::{SOURCE, bearer_sha256};
use super::report::Report;
use super::server::{Bench, JOURNAL_FILE, Server};

const KEY: &str = "bench-26785a09-ab16-4eb0-8407-a37497a57506-3d844edf-8d35-48ac-975b-e847b4f122b0";

/// What a round may take, for 100,000.
const ROUND_MAX: Duration = Duration::from_secs(60);
const RESIDENT_MIB_MAX: f64 = 100.0;
/// When it is given up.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Between two looks whether it is over.
const LOOK: Duration = Duration::from_millis(10);

/// What a round came to.
struct Round {
    took: Duration,
    requests: u64,
    /// Of the whole process, in MiB.
    peak: f64,
    /// In the journal, after it.
    entries: i64,
}

/// Runs both rounds.
pub fn run(shown: u64, bench: &Bench, report: &mut Report) -> Done {
    let files = bench.files()?;
    let key = files.path().join("api-key");
    fs::write(&key, KEY)?;
    fs::set_permissions(&key, Permissions::from_mode(0o600))?;
    let journal = files.path().join(JOURNAL_FILE);
    println!("\nreconcile, {shown} notifications shown on pages of 250, over loopback");
    let platform = Platform::start(shown)?;
    let first = {
        let server = bench.receiptd_of(&files, &configuration(&platform, &key))?;
        round(server, &platform, &journal)?
    };
    tell("first round, all of it news", &first);
    // As if it had never been asked: everything down to the horizon is.
    let notes = Connection::open(&journal)?;
    notes.execute_batch("DELETE FROM upstream; DELETE FROM upstream_round;")?;
    drop(notes);
    let platform = platform.not_asked_yet()?;
    let second = {
        let server = bench.receiptd_of(&files, &configuration(&platform, &key))?;
        round(server, &platform, &journal)?
    };
    tell("second round, nothing new", &second);
    for (name, round) in [("first", &first), ("second", &second)] {
        let (took, peak) = (round.took, round.peak);
        let max = ROUND_MAX.as_secs();
        let text = format!("{name} round: {:.1} s (under {max} s)", took.as_secs_f64());
        report.require(text, took < ROUND_MAX);
        let text = format!(
            "resident in the {name} round: {peak:.0} MiB at most (under {RESIDENT_MIB_MAX} MiB)"
        );
        report.require(text, peak < RESIDENT_MIB_MAX);
        let entries = round.entries;
        let text = format!("in the journal after the {name} round: {entries} ({shown})");
        report.require(text, u64::try_from(entries) == Ok(shown));
    }
    Ok(())
}

fn configuration(platform: &Platform, key: &Path) -> String {
    let (sha256, address) = (bearer_sha256(), platform.address);
    format!(
        "[[source]]\nname = \"{SOURCE}\"\nprovider = \"gc-notify\"\n\
         [[source.token]]\nlabel = \"bench\"\nsha256 = \"{sha256}\"\n\
         [source.upstream]\nbase_url = \"http://{address}\"\napi_key_file = \"{}\"\n\
         every = \"1d\"\nrequests_per_minute_max = 60000\n",
        key.display()
    )
}

/// Waits for the round that a receiver begins when it has started; then it is stopped.
fn round(server: Server, platform: &Platform, journal: &Path) -> Done<Round> {
    let admin = server.admin().ok_or("no admin address")?;
    let since = Instant::now();
    while last_success(admin)? == 0.0 {
        if since.elapsed() > PATIENCE {
            return Err(format!("no round has succeeded\n{}", server.last_words()).into());
        }
        thread::sleep(LOOK);
    }
    let took = platform.first_asked().ok_or("the platform was not asked")?.elapsed();
    let peak = server.memory()?.peak;
    server.stop()?;
    let entries =
        Connection::open(journal)?
            .query_row("SELECT count(*) FROM callback", [], |row| row.get(0))?;
    Ok(Round { took, requests: platform.asked(), peak, entries })
}

fn last_success(admin: SocketAddr) -> Done<f64> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let series = "receiptd_reconcile_last_success_timestamp_seconds{";
    // It is there once the platform is about to be asked.
    let Some(line) = page.lines().find(|line| line.starts_with(series)) else { return Ok(0.0) };
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

fn tell(what: &str, round: &Round) {
    let Round { took, requests, peak, entries } = round;
    println!(
        "  {what}: {:.1} s, {requests} requests, {peak:.0} MiB resident at most, {entries} entries",
        took.as_secs_f64()
    );
}
