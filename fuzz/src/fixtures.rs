//! The files that `receiptd replay` reads: bodies, and what they should come to.
//!
//! The input is the content of a file. Whatever it is:
//! - a `.json` file is one body, to the byte;
//! - a `.jsonl` file is its lines that are not blank, in their order, each named by its number;
//! - expectations that can be read are each of a notification of its own, all missing where nothing
//!   was settled; a line that cannot be read is named by its number, and is there.

use std::collections::HashSet;
use std::fs;

use receiptd::replay::expect::{Difference, differences, parse};
use receiptd::replay::fixtures::{LoadError, load};
use tempfile::TempDir;

thread_local! {
    static FOLDER: TempDir = tempfile::tempdir().unwrap();
}

/// Checks one file.
pub fn check(data: &[u8]) {
    FOLDER.with(|folder| {
        let path = folder.path().join("body.json");
        fs::write(&path, data).unwrap();
        let bodies = load([&path]).unwrap();
        assert_eq!(bodies.len(), 1);
        assert_eq!(bodies[0].body, data);
        fs::remove_file(&path).unwrap();
        check_lines(folder, data);
    });
    if let Ok(text) = std::str::from_utf8(data) {
        check_expectations(text);
    }
}

fn check_lines(folder: &TempDir, data: &[u8]) {
    let path = folder.path().join("bodies.jsonl");
    fs::write(&path, data).unwrap();
    let bodies = load([&path]).unwrap();
    let mut expected = Vec::new();
    for (number, line) in (1..).zip(data.split(|byte| *byte == b'\n')) {
        if !line.iter().all(|byte| b" \t\r\x0c".contains(byte)) {
            let body = line.strip_suffix(b"\r").unwrap_or(line);
            expected.push((format!("{}:{number}", path.display()), body.to_vec()));
        }
    }
    let read: Vec<_> = bodies.into_iter().map(|fixture| (fixture.name, fixture.body)).collect();
    assert_eq!(read, expected);
    let of_folder = load([folder.path()]);
    assert_eq!(matches!(of_folder, Err(LoadError::Empty(_))), expected.is_empty());
}

fn check_expectations(text: &str) {
    match parse(text) {
        Ok(expected) => {
            assert_eq!(expected.len(), text.lines().filter(|line| !line.trim().is_empty()).count());
            let missing = differences(&expected, &[]);
            let ids: HashSet<&str> = missing
                .iter()
                .map(|difference| match difference {
                    Difference::Missing { id } => id.as_str(),
                    other => panic!("nothing was settled, but {other}"),
                })
                .collect();
            assert_eq!(ids.len(), expected.len());
        }
        Err(wrong) => {
            assert!((1..=text.lines().count()).contains(&wrong.line), "{wrong}");
            assert!(!wrong.problem.is_empty());
        }
    }
}
