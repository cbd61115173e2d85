//! strace as the hand that breaks a system call: of one thread, on one file, by its number.
//!
//! strace counts only the calls it was asked to look at, so the Nth is the Nth of that thread on that
//! file and its log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::place::Running;
use super::support::{Receiptd, holds_within};

/// How long strace may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// strace's options for calls on a database file, its log and the log's index.
pub fn options(trace: &Path, file: &Path, call: &str, fault: &str) -> Vec<String> {
    let mut options = vec!["-ttt".to_owned(), "-o".to_owned(), trace.display().to_string()];
    for suffix in ["", "-wal", "-shm"] {
        options.extend(["-P".to_owned(), format!("{}{suffix}", file.display())]);
    }
    options.extend(["-e".to_owned(), format!("trace={call}")]);
    options.extend(["-e".to_owned(), format!("inject={call}:{fault}")]);
    options
}

/// That command as a child of ours, with strace as its companion.
pub fn traced(options: &[String], plain: &Command) -> Command {
    let mut command = Command::new("strace");
    command.arg("-D").args(options).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(folder) = plain.get_current_dir() {
        command.current_dir(folder);
    }
    command
}

/// Traces one thread of a running receiver from here on.
pub fn attach(receiver: &Receiptd, thread: &str, options: &[String]) -> Result<Running, String> {
    let tasks = PathBuf::from(format!("/proc/{}/task", receiver.pid()));
    let is_it = |task: &PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == thread)
    };
    // A thread gives itself its name once it runs, and on a busy machine that may be later than the
    // receiver says that it listens.
    let mut task = None;
    holds_within(PATIENCE, || {
        let entries = fs::read_dir(&tasks).into_iter().flatten().flatten();
        task = entries.map(|entry| entry.path()).find(is_it);
        task.is_some()
    });
    let task = task.ok_or_else(|| format!("there is no thread {thread}"))?;
    let id = task.file_name().unwrap_or_default();
    let mut strace = Command::new("strace");
    strace.args(options).arg("-p").arg(id);
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let tracer = Running::start(&mut strace)?;
    let is_traced = || {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    if holds_within(PATIENCE, is_traced) {
        Ok(tracer)
    } else {
        Err("strace did not attach".to_owned())
    }
}

/// When the first call was failed.
pub fn injected_at(trace: &str) -> Option<SystemTime> {
    let line = trace.lines().find(|line| line.contains("(INJECTED)"))?;
    let seconds: f64 = line.split(' ').find(|word| !word.is_empty())?.parse().ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
}

/// `+++ exited with 74 +++`
pub fn exit_code(trace: &str) -> Option<i32> {
    let (_, rest) = trace.rsplit_once("+++ exited with ")?;
    rest.split(' ').next()?.parse().ok()
}
