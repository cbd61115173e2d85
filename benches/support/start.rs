//! From the start of the process to readiness and to the first 204; and the binary's size.

use std::error::Error;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::options::Options;
use super::receipt::{Ids, Request};
use super::report::{Report, median, ms};
use super::server::{Bench, status_of};

const STARTS: u32 = 10;
const READY_MAX: Duration = Duration::from_millis(100);
/// Between two questions whether it is ready.
const PACE: Duration = Duration::from_micros(500);
/// After this a server is not slow but broken.
const PATIENCE: Duration = Duration::from_secs(10);
const BINARY_MIB_MAX: f64 = 15.0;

/// Starts the server so many times on fresh files.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let mut ids = Ids::new(options.common.seed);
    let starts = (0..STARTS)
        .map(|_| start_once(options, bench, &mut ids))
        .collect::<io::Result<Vec<(Duration, Duration)>>>()?;
    let ready = median(starts.iter().map(|(ready, _)| *ready)).unwrap_or_default();
    let answered = median(starts.iter().map(|(_, answered)| *answered)).unwrap_or_default();
    let mebibytes = fs::metadata(bench.binary())?.len() as f64 / f64::from(1 << 20);
    println!("\nstart, medians of {STARTS}, from the start of the process");
    println!("  until /readyz is 200: {} ms", ms(ready));
    println!("  until the first 204: {} ms", ms(answered));
    println!("  binary: {mebibytes:.1} MiB");
    report.require(format!("ready after: {} ms (under 100 ms)", ms(ready)), ready < READY_MAX);
    let text = format!("binary: {mebibytes:.1} MiB (under {BINARY_MIB_MAX:.0} MiB)");
    report.require(text, mebibytes < BINARY_MIB_MAX);
    Ok(())
}

/// Time until ready and until a receipt is acknowledged, both since the start of the process.
fn start_once(options: &Options, bench: &Bench, ids: &mut Ids) -> io::Result<(Duration, Duration)> {
    let server = bench.receiptd()?;
    let until = Instant::now() + PATIENCE;
    while !server.is_ready() {
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "/readyz never said 200"));
        }
        thread::sleep(PACE);
    }
    let ready = server.spawned.elapsed();
    let mut request = Request::new(server.callbacks, options.common.reference);
    request.renew(ids);
    let status = status_of(server.callbacks, request.bytes(), PATIENCE)?;
    let answered = server.spawned.elapsed();
    if status != 204 {
        return Err(io::Error::other(format!("the first receipt was answered {status}")));
    }
    server.stop()?;
    Ok((ready, answered))
}
