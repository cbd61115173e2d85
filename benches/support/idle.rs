//! Memory: of a process that has nothing to do, and of one with 256 busy connections.

use std::error::Error;
use std::thread;
use std::time::Duration;

use super::database::Kept;
use super::load::{self, Target};
use super::options::Options;
use super::receipt::Ids;
use super::report::Report;
use super::server::{Bench, Memory};

const IDLE_FOR: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 256;
const IDLE_MIB_MAX: f64 = 15.0;
const BUSY_MIB_MAX: f64 = 64.0;

/// Starts a server, leaves it alone, loads it, and reads its memory at each step.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let server = bench.receiptd()?;
    thread::sleep(IDLE_FOR);
    let idle = server.memory()?;
    let target = Target {
        server: server.callbacks,
        connections: CONNECTIONS,
        reference: options.common.reference,
    };
    let mut ids = Ids::new(options.common.seed);
    let outcome = load::closed_loop(target, &mut ids, Duration::ZERO, options.common.measured())?;
    let busy = server.memory()?;
    server.wait_until_settled()?;
    let settled = server.memory()?;
    let kept = Kept::count(&server, &outcome)?;
    server.stop()?;
    print(idle, busy, settled);
    println!("  {kept}");
    judge(idle, settled.peak, report);
    kept.require("in the memory section", report);
    Ok(())
}

fn print(idle: Memory, busy: Memory, settled: Memory) {
    println!("\nmemory, MiB resident (peak so far)");
    let idle_for = IDLE_FOR.as_secs();
    println!("  {idle_for} s after the start: {:.1} ({:.1})", idle.resident, idle.peak);
    println!(
        "  at the end of a burst on {CONNECTIONS} connections: {:.1} ({:.1})",
        busy.resident, busy.peak
    );
    println!("  after it is settled: {:.1} ({:.1})", settled.resident, settled.peak);
}

/// The peak counts, not a lucky moment.
fn judge(idle: Memory, peak: f64, report: &mut Report) {
    let resident = idle.resident;
    let text = format!("resident when idle: {resident:.1} MiB (under {IDLE_MIB_MAX:.0} MiB)");
    report.require(text, resident < IDLE_MIB_MAX);
    let text = format!(
        "resident at {CONNECTIONS} connections, peak: {peak:.1} MiB (under {BUSY_MIB_MAX:.0} MiB)"
    );
    report.require(text, peak < BUSY_MIB_MAX);
}
