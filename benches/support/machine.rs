//! What the figures depend on beside the servers: the disk, and who else is using the processors.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::report::{median, ms};

/// Says how many processors there are and how long the disk takes to make something durable.
pub fn print(dir: &Path) -> io::Result<()> {
    let processors = std::thread::available_parallelism()?;
    let fsync = ms(fsync_time(dir)?);
    println!("{processors} processors; fsync after 4 KiB in {}: {fsync} ms", dir.display());
    Ok(())
}

fn fsync_time(dir: &Path) -> io::Result<Duration> {
    fs::create_dir_all(dir)?;
    let mut file: File = tempfile::tempfile_in(dir)?;
    let times = (0..100).map(|_| {
        let since = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        Ok(since.elapsed())
    });
    Ok(median(times.collect::<io::Result<Vec<_>>>()?).unwrap_or_default())
}

/// Watches how much of the processors goes to neither the generator nor the server. What others
/// take makes even the ratio rough: it is taken from whoever happens to run then.
pub struct Meter {
    server: u32,
    before: Ticks,
}

/// Processor time since the machine started, in the kernel's ticks. Interrupts are in neither
/// sum: whom they are charged to depends on the kernel.
struct Ticks {
    all: u64,
    busy: u64,
    ours: u64,
}

impl Meter {
    /// Begins, with the server's process id.
    pub fn start(server: u32) -> io::Result<Self> {
        Ok(Self { server, before: Ticks::now(server)? })
    }

    /// The others' share of all processors since then, in percent.
    pub fn others_percent(&self) -> io::Result<f64> {
        let (now, before) = (Ticks::now(self.server)?, &self.before);
        let others = (now.busy - before.busy).saturating_sub(now.ours - before.ours);
        Ok(100.0 * others as f64 / (now.all - before.all).max(1) as f64)
    }
}

impl Ticks {
    fn now(server: u32) -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        let columns: Vec<u64> =
            line.split_whitespace().filter_map(|one| one.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; then guests, who are in user.
        let ours = process("self")? + process(&server.to_string())?;
        Ok(Self { all: columns.iter().take(8).sum(), busy: columns.iter().take(3).sum(), ours })
    }
}

/// User and system time of one process. Its name, which may hold anything, ends at the last `)`.
fn process(pid: &str) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let columns = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    Ok(columns.skip(11).take(2).filter_map(|one| one.parse::<u64>().ok()).sum())
}
