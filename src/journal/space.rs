//! Free space, watched before it is gone, and a reserve to get out of a full disk.
//!
//! A WAL database that has filled its disk cannot help itself: even a DELETE needs room in the WAL.
//! So some bytes stand preallocated beside the journal. When space runs out they are given back,
//! which lets a checkpoint move and truncate the WAL; they are taken again once there is room.
//!
//! What was pruned leaves the files as large as they were: the pages that it gave back are written again
//! before the file grows. So the journal's free pages count as space too. But what is written goes
//! through the logs first, and the state may grow, so half of the minimum must be free indeed.

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

/// Where there is space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// Bytes that are free in the file system.
    pub free: u64,
    /// Bytes of the journal's file that hold nothing.
    pub in_file: u64,
}

impl Space {
    /// Whether callbacks can be accepted, where `min` bytes are to be free, and after that there must be
    /// `reserve` bytes to be taken.
    pub fn is_enough(self, min: u64, reserve: u64) -> bool {
        let Self { free, in_file } = self;
        free.saturating_add(in_file) >= min.saturating_add(reserve)
            && free >= (min / 2).saturating_add(reserve)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_pages_count_as_space_if_half_of_the_minimum_and_the_reserve_are_free_without_them() {
        for (free, in_file, reserve, is_enough) in [
            (64, 0, 0, true),
            (63, 0, 0, false),
            (63, 1, 0, true),
            (32, 32, 0, true),
            (32, 31, 0, false),
            (31, 1_000, 0, false),
            (32, 1_000, 8, false),
            (40, 32, 8, true),
            (40, 31, 8, false),
            (72, 0, 8, true),
            (71, 0, 8, false),
            (u64::MAX, 0, 0, true),
        ] {
            let space = Space { free, in_file };
            assert_eq!(space.is_enough(64, reserve), is_enough, "{space:?} {reserve}");
        }
    }
}
