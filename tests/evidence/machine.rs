//! What the evidence needs of the machine: a folder, disks of its own, helpers in C, and that nothing
//! of it stays behind, whether a run ends well, is interrupted or is killed.
//!
//! The crate has no unsafe code, so the one system call without a safe wrapper, the ioctl that takes
//! an ext4 file system down, is a helper of ten lines that `cc` compiles when it is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

const PREFIX: &str = "receiptd-evidence-";

/// Something a promise cannot be tried without.
pub enum Need {
    /// A program, and the Debian package that has it.
    Program(&'static str, &'static str),
    /// Permission to mount.
    Mounts,
    /// Permission to trace.
    Traces,
}

impl Need {
    /// What is missing, and what to do about it.
    pub fn missing(&self) -> Option<String> {
        match self {
            Self::Program(program, package) => {
                let is_there =
                    succeeds(Command::new("sh").args(["-c", &format!("command -v {program}")]));
                (!is_there).then(|| format!("{program} is missing: apt install {package}"))
            }
            Self::Mounts => {
                Disk::tmpfs(1).err().map(|why| format!("mounting is not permitted: {why}"))
            }
            Self::Traces => {
                let may = succeeds(Command::new("strace").args(["-f", "-o", "/dev/null", "true"]));
                (!may).then(|| "tracing is not permitted here".to_owned())
            }
        }
    }
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said())) }
}

/// The folder of this run, made at the first call: what earlier runs left is removed then, and from
/// then on an interruption cleans up.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        remove_what_is_stale();
        let root = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&root).expect("the temporary folder can be written");
        clean_up_when_interrupted();
        root
    })
}

/// Removes the folder of this run; to be called last.
pub fn clean_up() {
    remove(root());
}

fn remove_what_is_stale() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(owner) = name.strip_prefix(PREFIX) else { continue };
        if !Path::new("/proc").join(owner).exists() {
            remove(&path);
        }
    }
}

/// Unmounts whatever is mounted below, which detaches its loop device too, and removes the folder.
fn remove(folder: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for mount in mounts.filter(|mount| Path::new(mount).starts_with(folder)) {
        succeeds(Command::new("umount").args(["-l", mount]));
    }
    let _ = fs::remove_dir_all(folder);
}

fn clean_up_when_interrupted() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async {
            let mut interrupted = signal(SignalKind::interrupt()).expect("signals can be heard");
            let mut terminated = signal(SignalKind::terminate()).expect("signals can be heard");
            tokio::select! { _ = interrupted.recv() => {}, _ = terminated.recv() => {} }
        });
        for child in children() {
            let _ = kill_process(child, Signal::KILL);
        }
        remove(root());
        std::process::exit(130);
    });
}

/// The processes this one has started.
fn children() -> Vec<Pid> {
    let us = std::process::id().to_string();
    let is_ours = |stat: &str| {
        // "pid (name) state ppid …", and a name may hold anything.
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(2)) == Some(&us)
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let pids = stats.filter(|stat| is_ours(stat));
    pids.filter_map(|stat| Pid::from_raw(stat.split(' ').next()?.parse().ok()?)).collect()
}

/// A file system of its own; unmounted and removed when dropped.
pub struct Disk {
    folder: tempfile::TempDir,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Tmpfs,
    Ext4,
}

impl Disk {
    /// In memory, of that size.
    pub fn tmpfs(mebibytes: u32) -> Result<Self, String> {
        let disk = Self::new(Kind::Tmpfs)?;
        let size = format!("size={mebibytes}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, PREFIX]).arg(disk.path()))?;
        Ok(disk)
    }

    /// An ext4 image of that size on a loop device. The kernel is told to write nothing back by
    /// itself for minutes: what nobody synced is not on the disk by chance.
    pub fn ext4(mebibytes: u64) -> Result<Self, String> {
        let disk = Self::new(Kind::Ext4)?;
        let image = fs::File::create(disk.image()).and_then(|file| file.set_len(mebibytes << 20));
        image.map_err(|error| format!("no image: {error}"))?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    fn new(kind: Kind) -> Result<Self, String> {
        let folder = tempfile::tempdir_in(root()).map_err(|error| error.to_string())?;
        let disk = Self { folder, kind };
        fs::create_dir(disk.path()).map_err(|error| error.to_string())?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&self) -> Result<(), String> {
        let mut mount = Command::new("mount");
        run(mount.args(["-o", "loop,commit=300"]).arg(self.image()).arg(self.path()))
    }

    /// Unmounts, which forgets every cached page, and mounts again, which replays the file system's
    /// own journal.
    pub fn mount_again(&self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(why) = run(Command::new("umount").arg(self.path())) {
            if Instant::now() > deadline {
                return Err(why);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        succeeds(Command::new("umount").arg("-l").arg(self.path()));
        if matches!(self.kind, Kind::Ext4) {
            let _ = fs::remove_file(self.image());
        }
    }
}

/// A power cut for one mounted ext4 file system.
pub struct Cutter(PathBuf);

impl Cutter {
    /// Compiles the helper.
    pub fn new() -> Result<Self, String> {
        compile("cut", CUT, &[]).map(Self)
    }

    /// From here on nothing reaches that disk, and what was not synced never has.
    pub fn cut(&self, disk: &Disk) -> Result<(), String> {
        run(Command::new(&self.0).arg(disk.path()))
    }
}

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const CUT: &str = r"
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
int main(int argc, char **argv) {
    uint32_t no_log_flush = 2;
    int disk = argc == 2 ? open(argv[1], O_RDONLY) : -1;
    if (disk < 0 || ioctl(disk, _IOR('X', 125, uint32_t), &no_log_flush) != 0) {
        perror(argc == 2 ? argv[1] : argv[0]);
        return 1;
    }
    return 0;
}
";

/// A library to be put before the system's (`LD_PRELOAD`) that claims every sync to be done: the
/// disk that lies.
pub fn lying_disk() -> Result<PathBuf, String> {
    compile("lie.so", LIE, &["-shared", "-fPIC"])
}

const LIE: &str = r"
int fsync(int file) { (void)file; return 0; }
int fdatasync(int file) { (void)file; return 0; }
";

fn compile(name: &str, source: &str, flags: &[&str]) -> Result<PathBuf, String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (out, text) = (root().join(name), root().join(format!("{name}.c")));
    fs::write(&text, source).map_err(|error| error.to_string())?;
    run(Command::new("cc")
        .args(["-O2", "-Wall", "-Werror"])
        .args(flags)
        .arg("-o")
        .args([&out, &text]))?;
    Ok(out)
}
