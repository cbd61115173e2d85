//! One instance per database, and only on file systems where that can be held.
//!
//! Each file of ours has one writing thread, on its only read-write connection. Two processes on
//! one database would break that without any error to show for it: both would settle, both would
//! number callbacks, and every count would be wrong. So whoever writes holds a [`Lock`] from before
//! it opens the files until after it has closed them.
//!
//! The lock is the kernel's (`flock`): it ends with the process, however that ends, so a file left
//! behind never has to be removed by hand, and what is written in it is for people only. It is
//! never removed, because between two processes that open and remove it both could believe they
//! hold it.
//!
//! On a network file system neither this lock nor SQLite's own, nor an fsync, can be relied on:
//! [`check_file_system`] refuses those.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The most that is read of what another process wrote about itself.
const DESCRIPTION_BYTES_MAX: u64 = 1024;

/// The right to write one database; ends when dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Why a database may not be written.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process writes it.
    #[error(
        "{lock} is held{by}: only one process may write a database; stop that one first",
        lock = path.display(),
        by = holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default()
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the other process says of itself, `pid 4711` first.
        holder: Option<String>,
    },
    /// The lock file could not be made or locked.
    #[error("failed to lock {path}: {error}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's own words.
        #[source]
        error: io::Error,
    },
    /// Locks and fsync cannot be relied on there.
    #[error(
        "{folder} is on {kind}, where file locks and fsync cannot be relied on: put the database \
         on a local disk, or set store.network_file_system = true if you know that they can \
         (some container sandboxes show local disks this way)",
        folder = folder.display()
    )]
    NetworkFileSystem {
        /// The folder of the database.
        folder: PathBuf,
        /// The file system.
        kind: &'static str,
    },
}

impl LockError {
    /// What the process that holds the lock says of itself, if that is why.
    pub fn holder(&self) -> Option<&str> {
        match self {
            Self::Held { holder, .. } => holder.as_deref(),
            Self::Io { .. } | Self::NetworkFileSystem { .. } => None,
        }
    }
}

impl Lock {
    /// Takes the right to write the database whose state file is at `state`, whether that exists
    /// already or not; its folder must.
    ///
    /// # Errors
    /// At once, without waiting, if another process (or another part of this one) holds it.
    pub fn acquire(state: &Path) -> Result<Self, LockError> {
        let path = lock_path(state);
        let wrap = |error| LockError::Io { path: path.clone(), error };
        // Not truncated: until the lock is ours, the text is another's.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(wrap)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { holder: read_holder(&mut file), path });
            }
            Err(TryLockError::Error(error)) => return Err(wrap(error)),
        }
        let lock = Self { file, path };
        lock.write("").map_err(|error| LockError::Io { path: lock.path.clone(), error })?;
        Ok(lock)
    }

    /// Writes beside the pid what others should know of this process, such as its admin address.
    ///
    /// # Errors
    /// Of the file system. The lock holds all the same.
    pub fn describe(&self, text: &str) -> io::Result<()> {
        self.write(text)
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let separator = if text.is_empty() { "" } else { ", " };
        self.file.set_len(0)?;
        (&self.file).rewind()?;
        writeln!(&self.file, "pid {}{separator}{text}", std::process::id())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nobody should be sent after a process that is gone. The lock ends with the file.
        let _ = self.file.set_len(0);
    }
}

/// The lock file of the database whose state file is at `state`. Through a symbolic link it is the
/// same one, or the two names would be two databases.
pub fn lock_path(state: &Path) -> PathBuf {
    let real = state.canonicalize().or_else(|_| {
        let folder = folder_of(state).canonicalize()?;
        Ok::<_, io::Error>(folder.join(state.file_name().unwrap_or_default()))
    });
    let mut name: OsString = real.unwrap_or_else(|_| state.to_owned()).into_os_string();
    name.push(".lock");
    PathBuf::from(name)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn read_holder(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.take(DESCRIPTION_BYTES_MAX).read_to_string(&mut text).ok()?;
    // It goes to a terminal, and anybody who may write the folder may have written it.
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then_some(text)
}

/// Refuses a database at `state` that would stand on a network file system, unless `allow`.
///
/// FUSE is not refused: behind it are as many local file systems as remote ones.
///
/// # Errors
/// [`LockError::NetworkFileSystem`], or the system's own if the folder cannot be looked at.
pub fn check_file_system(state: &Path, allow: bool) -> Result<(), LockError> {
    if allow {
        return Ok(());
    }
    let folder = folder_of(state);
    let stat = rustix::fs::statfs(folder)
        .map_err(|error| LockError::Io { path: folder.to_owned(), error: error.into() })?;
    match network_file_system(magic(&stat)) {
        Some(kind) => Err(LockError::NetworkFileSystem { folder: folder.to_owned(), kind }),
        None => Ok(()),
    }
}

/// The kernel's number of a file system: 32 bits, in a field whose width and sign differ between
/// architectures.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "only the low 32 bits mean anything, and a sign was extended from them"
)]
fn magic(stat: &rustix::fs::StatFs) -> u32 {
    stat.f_type as u32
}

/// The name of the network file system with that magic number, from Linux's `magic.h` and the
/// vendors' own headers.
fn network_file_system(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => Some("SMB"),
        0x0102_1997 => Some("9p"),
        0x00C3_6400 => Some("Ceph"),
        0x5346_414F | 0x6B41_4653 => Some("AFS"),
        0x7375_7245 => Some("Coda"),
        0x4750_4653 => Some("GPFS"),
        0x0BD0_0BD0 => Some("Lustre"),
        0x0116_1970 => Some("GFS2"),
        0x7461_636F => Some("OCFS2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_is_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("receiptd.db");
        let first = Lock::acquire(&state).unwrap();
        first.describe("admin http://127.0.0.1:9090").unwrap();
        let refused = Lock::acquire(&state).unwrap_err();
        let expected = format!("pid {}, admin http://127.0.0.1:9090", std::process::id());
        assert_eq!(refused.holder(), Some(&*expected));
        let text = refused.to_string();
        assert!(text.contains("receiptd.db.lock") && text.contains(&expected), "{text}");
    }

    #[test]
    fn a_lock_that_was_let_go_can_be_taken_again_and_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("receiptd.db");
        drop(Lock::acquire(&state).unwrap());
        assert_eq!(std::fs::read_to_string(lock_path(&state)).unwrap(), "");
        let again = Lock::acquire(&state).unwrap();
        let mode = std::fs::metadata(again.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_left_by_a_killed_process_does_not_stand_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("receiptd.db");
        std::fs::write(lock_path(&state), "pid 1, and a longer text than ours will be").unwrap();
        let lock = Lock::acquire(&state).unwrap();
        let text = std::fs::read_to_string(lock.path()).unwrap();
        assert_eq!(text, format!("pid {}\n", std::process::id()));
    }

    #[test]
    fn a_symbolic_link_to_the_database_is_the_same_database() {
        let folder = tempfile::tempdir().unwrap();
        let (state, link) = (folder.path().join("receiptd.db"), folder.path().join("link.db"));
        std::fs::write(&state, "").unwrap();
        std::os::unix::fs::symlink(&state, &link).unwrap();
        let _held = Lock::acquire(&state).unwrap();
        assert!(matches!(Lock::acquire(&link), Err(LockError::Held { .. })));
    }

    #[test]
    fn network_file_systems_are_named_and_local_ones_are_not() {
        for (magic, expected) in [
            (0x6969, Some("NFS")),
            (0xFF53_4D42, Some("SMB")),
            (0x0102_1997, Some("9p")),
            (0xEF53, None),      // ext4
            (0x5846_5342, None), // xfs
            (0x0102_1994, None), // tmpfs
            (0x794C_7630, None), // overlayfs
            (0x6573_5546, None), // FUSE
        ] {
            assert_eq!(network_file_system(magic), expected, "{magic:#x}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_and_not_a_local_disk() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("missing/receiptd.db");
        assert!(matches!(check_file_system(&state, false), Err(LockError::Io { .. })));
        assert!(check_file_system(&state, true).is_ok());
    }
}
