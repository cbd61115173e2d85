//! What the figures depend on beside the servers: the disk, and who else is using the processors;
//! and what a server takes of the machine, with all its children.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::report::{median, ms};

/// How many processors there are and how long the disk takes to make something durable.
pub fn describe(dir: &Path) -> io::Result<String> {
    let processors = std::thread::available_parallelism()?;
    Ok(format!("{processors} processors, fsync of 4 KiB {} ms", ms(fsync_time(dir)?)))
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

/// Between two looks at the memory.
const MEMORY_PACE: Duration = Duration::from_millis(500);

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
        let tree = tree(server)?.into_iter().filter_map(|pid| process(&pid.to_string(), 4).ok());
        let ours = process("self", 2)? + tree.sum::<u64>();
        Ok(Self { all: columns.iter().take(8).sum(), busy: columns.iter().take(3).sum(), ours })
    }
}

/// User and system time of one process: two columns, and two more for the children it has waited for.
fn process(pid: &str, columns: usize) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let times = after_name(&stat).skip(11).take(columns);
    Ok(times.filter_map(|one| one.parse::<u64>().ok()).sum())
}

/// The columns of `/proc/PID/stat` behind the name, which may hold anything and ends at the last `)`.
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

/// A process and all its descendants, parents first.
pub fn tree(root: u32) -> io::Result<Vec<u32>> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if let Some(parent) = after_name(&stat).nth(1).and_then(|one| one.parse().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    Ok(found)
}

/// The most memory that a process and its descendants held together, looked at twice a second.
///
/// The proportional set size: a page that several processes share counts once, so that a server of
/// many small processes is not made out larger than it is.
pub struct MemoryWatch {
    over: Arc<AtomicBool>,
    watcher: JoinHandle<f64>,
}

impl MemoryWatch {
    /// Begins.
    pub fn start(root: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let watcher = thread::spawn(move || {
            let mut peak = 0.0_f64;
            loop {
                let ends = is_over.load(Ordering::Relaxed);
                peak = peak.max(tree_mebibytes(root).unwrap_or(0.0));
                if ends {
                    return peak;
                }
                thread::park_timeout(MEMORY_PACE);
            }
        });
        Self { over, watcher }
    }

    /// Ends, with a last look; MiB.
    pub fn peak(self) -> f64 {
        self.over.store(true, Ordering::Relaxed);
        self.watcher.thread().unpark();
        self.watcher.join().expect("watching does not panic")
    }
}

fn tree_mebibytes(root: u32) -> io::Result<f64> {
    let proportional = |pid: &u32| -> Option<f64> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Ok(tree(root)?.iter().filter_map(proportional).sum::<f64>() / 1024.0)
}
