//! Free space, watched before it is gone, and a reserve to get out of a full disk.
//!
//! A WAL database that has filled its disk cannot help itself: even a DELETE needs room in the WAL.
//! So some bytes stand preallocated beside the journal. When space runs out they are given back,
//! which lets a checkpoint move and truncate the WAL; they are taken again once there is room.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The reserve beside a journal file.
pub fn reserve_path(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push("-reserve");
    PathBuf::from(name)
}

/// Bytes an unprivileged process may still write to the file system that holds `folder`.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The preallocated file.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    pub fn new(journal: &Path, bytes: u64) -> Self {
        Self { path: reserve_path(journal), bytes }
    }

    pub fn is_held(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|file| file.len() >= self.bytes)
    }

    /// Takes the space, unless it is held already; leaves nothing behind if there is no room.
    pub fn take(&self) -> io::Result<()> {
        if self.bytes == 0 || self.is_held() {
            return Ok(());
        }
        let result = File::create(&self.path).and_then(|file| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes)?;
            file.sync_all()
        });
        if result.is_err() {
            self.give_back();
        }
        result
    }

    pub fn give_back(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
