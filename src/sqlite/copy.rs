//! Copying a database while others write it, and looking for damage.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

/// Pages copied between two looks at the progress.
const PAGES_AT_ONCE: i32 = 2_048;

/// Copies the whole database behind `source` into the file at `to`, which must be empty or new. The
/// copy is the database as it is at one moment, and durable once this returns. `progress` is told
/// how many pages are done, and how many there are.
///
/// All of it happens inside one read transaction. Without that, each commit of another connection
/// would make SQLite start the copy again from the first page: beside a busy writer, for ever.
pub fn copy(
    source: &Connection,
    to: &Path,
    mut progress: impl FnMut(i64, i64),
) -> rusqlite::Result<()> {
    let snapshot = source.unchecked_transaction()?;
    // The snapshot is taken by the first read, not by BEGIN.
    super::user_version(&snapshot)?;
    let mut target = Connection::open(to)?;
    {
        let backup = Backup::new(&snapshot, &mut target)?;
        loop {
            let step = backup.step(PAGES_AT_ONCE)?;
            let at = backup.progress();
            progress((at.pagecount - at.remaining).into(), at.pagecount.into());
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // The snapshot is ours already, so it can only be the target.
                _ => return Err(busy()),
            }
        }
    }
    snapshot.finish()?;
    target.close().map_err(|(_, error)| error)
}

fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
        Some("somebody else has the copy open".to_owned()),
    )
}

/// How closely to look for damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Every page, but not whether indexes agree with their tables.
    Quick,
    /// Everything.
    Whole,
}

/// What SQLite finds wrong with the file, at most `sentences_max` things; empty if it is sound.
pub fn damage(
    connection: &Connection,
    check: Check,
    sentences_max: usize,
) -> rusqlite::Result<Vec<String>> {
    let pragma = match check {
        Check::Quick => "quick_check",
        Check::Whole => "integrity_check",
    };
    let mut statement = connection.prepare(&format!("PRAGMA {pragma}({sentences_max})"))?;
    let sentences: Result<Vec<String>, _> = statement.query_map([], |row| row.get(0))?.collect();
    let mut sentences = sentences?;
    sentences.retain(|sentence| sentence != "ok");
    Ok(sentences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{Access, Durability, Schema, open};

    const SCHEMA: Schema = Schema {
        what: "test",
        application_id: 7,
        migrations: &["CREATE TABLE t (x BLOB NOT NULL) STRICT;"],
    };

    fn count(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_copy_is_of_one_moment_though_every_step_sees_another_commit() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from.db"), folder.path().join("to.db"));
        let writer = open(&from, &SCHEMA, Access::Write(Durability::Normal)).unwrap();
        let pages_at_once = i64::from(PAGES_AT_ONCE);
        writer
            .execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                 INSERT INTO t SELECT zeroblob(4000) FROM n",
                [4 * pages_at_once],
            )
            .unwrap();
        let source = open(&from, &SCHEMA, Access::Read).unwrap();
        let mut steps = 0;
        copy(&source, &to, |_, _| {
            steps += 1;
            assert!(steps < 20, "the copy starts again with every commit");
            writer.execute("INSERT INTO t VALUES (zeroblob(4000))", []).unwrap();
        })
        .unwrap();
        assert!(steps > 3, "only {steps} commits came between");
        let copied = open(&to, &SCHEMA, Access::Checkpoint).unwrap();
        assert_eq!(count(&copied), 4 * pages_at_once);
        assert_eq!(damage(&copied, Check::Whole, 10).unwrap(), Vec::<String>::new());
        assert_eq!(count(&source), 4 * pages_at_once + steps);
    }

    #[test]
    fn a_page_of_nonsense_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let writer = open(&path, &SCHEMA, Access::Write(Durability::Normal)).unwrap();
        writer.execute("INSERT INTO t VALUES (zeroblob(20000))", []).unwrap();
        writer.close().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096..8192].fill(0xAB);
        std::fs::write(&path, bytes).unwrap();
        let connection = open(&path, &SCHEMA, Access::Read).unwrap();
        assert!(damage(&connection, Check::Whole, 10).map_or(true, |found| !found.is_empty()));
    }
}
