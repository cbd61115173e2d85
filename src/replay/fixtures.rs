//! Bodies from files and folders, byte for byte.
//!
//! - a `.json` file is one body, whatever bytes it holds;
//! - a `.jsonl` file is one body a line; a line without anything but white space is skipped;
//! - a folder is every such file in it and below, by path; other files are passed over. A folder
//!   that holds a `callbacks/` folder beside an `expected.jsonl` is a case, and only its
//!   `callbacks/` are replayed;
//! - a file named `expected.jsonl` is what a case should come to and is never replayed.
//!
//! Inside a folder, links to files are followed and links to folders are not: they may lead back up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a case should come to; never a callback.
pub const EXPECTED: &str = "expected.jsonl";

/// The folder of a case that holds its callbacks.
const CALLBACKS: &str = "callbacks";

/// One body, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixture {
    /// For messages: the file, with the line if it holds several bodies.
    pub name: String,
    /// The bytes of the body.
    pub body: Vec<u8>,
}

impl Fixture {
    /// A body of that name.
    pub fn new(name: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), body: body.into() }
    }
}

/// Why fixtures could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system says why.
    #[error("failed to read {path}: {error}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's own words.
        #[source]
        error: io::Error,
    },
    /// A file that was asked for by name is no fixture.
    #[error("{0} is neither a folder nor a .json or .jsonl file of callbacks")]
    NoFixture(PathBuf),
    /// A folder that was asked for by name holds nothing to replay.
    #[error("{0} holds no .json or .jsonl file of callbacks")]
    Empty(PathBuf),
}

/// The bodies at these paths, in the order of the paths.
///
/// # Errors
/// If one of them cannot be read, or holds nothing to replay: a test that replays nothing by
/// mistake would pass.
pub fn load<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Vec<Fixture>, LoadError> {
    let mut fixtures = Vec::new();
    for path in paths {
        let path = path.as_ref();
        if read(path, |path| fs::metadata(path))?.is_dir() {
            let before = fixtures.len();
            load_folder(path, &mut fixtures)?;
            if fixtures.len() == before {
                return Err(LoadError::Empty(path.to_owned()));
            }
        } else if is_named(path, EXPECTED) || !load_file(path, &mut fixtures)? {
            return Err(LoadError::NoFixture(path.to_owned()));
        }
    }
    Ok(fixtures)
}

fn load_folder(folder: &Path, fixtures: &mut Vec<Fixture>) -> Result<(), LoadError> {
    let mut paths = read(folder, |folder| {
        fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
    })?;
    paths.sort();
    let callbacks = folder.join(CALLBACKS);
    let is_case = paths.contains(&folder.join(EXPECTED)) && paths.contains(&callbacks);
    if is_case && is_folder(&callbacks)? {
        return load_folder(&callbacks, fixtures);
    }
    for path in paths {
        if is_folder(&path)? {
            load_folder(&path, fixtures)?;
        } else if !is_named(&path, EXPECTED) && path.is_file() {
            load_file(&path, fixtures)?;
        }
    }
    Ok(())
}

/// Whether the file was one of callbacks.
fn load_file(path: &Path, fixtures: &mut Vec<Fixture>) -> Result<bool, LoadError> {
    let name = path.display();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => fixtures.push(Fixture::new(name.to_string(), read(path, |p| fs::read(p))?)),
        Some("jsonl") => {
            let bytes = read(path, |path| fs::read(path))?;
            for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if !line.trim_ascii().is_empty() {
                    fixtures.push(Fixture::new(format!("{name}:{number}"), line));
                }
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn is_folder(path: &Path) -> Result<bool, LoadError> {
    read(path, |path| fs::symlink_metadata(path)).map(|metadata| metadata.is_dir())
}

fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|it| it == name)
}

fn read<T>(path: &Path, read: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, LoadError> {
    read(path).map_err(|error| LoadError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn bodies(path: &Path) -> Vec<Vec<u8>> {
        load([path]).unwrap().into_iter().map(|fixture| fixture.body).collect()
    }

    #[test]
    fn a_json_file_is_one_body_to_the_last_byte() {
        let body = b"\xef\xbb\xbf{\"a\":\n1}\r\n\n";
        let folder = folder_with(&[("a.json", body)]);
        assert_eq!(bodies(folder.path()), [body]);
    }

    #[test]
    fn a_jsonl_file_is_one_body_a_line_and_names_its_lines() {
        let folder = folder_with(&[("a.jsonl", b"one\r\n\n \t\ntwo")]);
        let fixtures = load([folder.path()]).unwrap();
        let path = folder.path().join("a.jsonl");
        let named = |line| format!("{}:{line}", path.display());
        assert_eq!(fixtures, [Fixture::new(named(1), "one"), Fixture::new(named(4), "two")]);
    }

    #[test]
    fn a_folder_is_read_by_path_without_expectations_and_other_files() {
        let folder = folder_with(&[
            ("b/2.json", b"b2"),
            ("b/1.json", b"b1"),
            ("a.json", b"a"),
            ("c.jsonl", b"c"),
            ("notes.md", b"no"),
            ("expected.jsonl", b"no"),
        ]);
        assert_eq!(bodies(folder.path()), [&b"a"[..], b"b1", b"b2", b"c"]);
    }

    #[test]
    fn of_a_case_only_its_callbacks_are_read() {
        let folder = folder_with(&[
            ("case/callbacks/1.json", b"yes"),
            ("case/other.json", b"no"),
            ("case/expected.jsonl", b"no"),
            ("no-case/callbacks/1.json", b"yes"),
            ("no-case/other.json", b"yes, too"),
        ]);
        assert_eq!(bodies(folder.path()), [&b"yes"[..], b"yes", b"yes, too"]);
    }

    #[test]
    fn replaying_nothing_is_an_error() {
        let folder = folder_with(&[("notes.md", b""), ("expected.jsonl", b""), ("e/f.md", b"")]);
        let load = |name: &str| load([folder.path().join(name)]).unwrap_err();
        assert!(matches!(load("notes.md"), LoadError::NoFixture(_)));
        assert!(matches!(load("expected.jsonl"), LoadError::NoFixture(_)));
        assert!(matches!(load("e"), LoadError::Empty(_)));
        assert!(matches!(load("missing"), LoadError::Io { .. }));
    }

    #[test]
    fn links_are_followed_to_files_and_not_to_folders() {
        let elsewhere = folder_with(&[("a.json", b"a")]);
        let folder = folder_with(&[("expected.jsonl", b"no")]);
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
        };
        link(&elsewhere.path().join("a.json"), "b.json");
        link(folder.path(), "callbacks");
        link(elsewhere.path(), "c.json");
        assert_eq!(bodies(folder.path()), [b"a"]);
    }
}
