//! What the app says it sent: into the journal, and out of it again.
//!
//! An app that tells us what it sent can be told what it never heard of. It says so through the journal,
//! like everything that the state knows: so a callback that came before is matched as well as one that
//! comes later, and a rebuild knows it again.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::callback::{Expected, Origin};
use crate::clock::Timestamp;
use crate::journal::{Acknowledgement, Entry, Journal, Refused};
use crate::provider::Reason;

/// What the app may say at once.
pub const EXPECTED_MAX: usize = 1_000;

/// Entries of it that wait in the journal's queue at once: what they may add to the wait of a callback
/// is one such commit.
const WAITING_MAX: usize = 64;

/// Keeps what the app says it sent through `source`; once this returns it is durable. The caller knows
/// that it is the app who says so, and says no more than [`EXPECTED_MAX`] at once.
///
/// # Errors
/// If the journal refuses some of it: then some may be kept, and saying it again does no harm.
pub async fn expect(
    journal: &Journal,
    source: &Arc<str>,
    now: Timestamp,
    expected: &[Expected],
) -> Result<(), Refused> {
    let entry = |expected: &Expected| {
        let body = serde_json::to_vec(expected).expect("text and times are JSON");
        let (source, body, origin) = (Arc::clone(source), Bytes::from(body), Origin::Expected);
        Entry { source, received_at: now, body, origin }
    };
    append_all(journal, expected, entry).await
}

/// Appends an entry for each of these, few at a time, and waits until they are durable.
pub(super) async fn append_all<T>(
    journal: &Journal,
    all: &[T],
    entry: impl Fn(&T) -> Entry,
) -> Result<(), Refused> {
    let mut waiting = Vec::with_capacity(WAITING_MAX);
    for one in all {
        if waiting.len() == WAITING_MAX {
            all_kept(&mut waiting).await?;
        }
        let appended = match journal.append(entry(one)) {
            // It may be ours that fill it.
            Err(Refused::QueueFull) if !waiting.is_empty() => {
                all_kept(&mut waiting).await?;
                journal.append(entry(one))
            }
            appended => appended,
        };
        waiting.push(appended?);
    }
    all_kept(&mut waiting).await
}

/// Waits until each of these is durable.
async fn all_kept(waiting: &mut Vec<oneshot::Receiver<Acknowledgement>>) -> Result<(), Refused> {
    for told in waiting.drain(..) {
        told.await.unwrap_or(Err(Refused::Closed))?;
    }
    Ok(())
}

/// Reads what was kept.
pub(super) fn read(body: &[u8]) -> Result<Expected, Reason> {
    let expected: Expected =
        serde_json::from_slice(body).map_err(|_| "not what an app says it sent")?;
    if expected.id.is_empty() {
        return Err("what an app says it sent has no id".into());
    }
    Ok(expected)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::super::overdue::say_overdue;
    use super::*;
    use crate::journal;
    use crate::state::expected::Overdue;

    /// A journal with so many places in its queue.
    struct Running {
        journal: Journal,
        writer: journal::Writer,
        runtime: tokio::runtime::Runtime,
        _folder: tempfile::TempDir,
    }

    fn running(queue_callbacks_max: usize) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let options = journal::Options { queue_callbacks_max, ..journal::Options::small() };
        let path = folder.path().join("receiptd.callbacks.db");
        let (journal, writer, telling) = journal::start(&path, options, Box::new(|_| {})).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.spawn(telling);
        Running { journal, writer, runtime, _folder: folder }
    }

    /// Keeps the writer busy until what is given back is dropped.
    fn hold(journal: &Journal) -> mpsc::Sender<()> {
        let (is_busy, busy) = mpsc::channel();
        let (free, is_free) = mpsc::channel::<()>();
        let held = journal.clone();
        std::thread::spawn(move || {
            held.on_writer(move |_| {
                is_busy.send(()).unwrap();
                let _ = is_free.recv();
                Ok(())
            })
        });
        busy.recv().unwrap();
        free
    }

    fn source() -> Arc<str> {
        Arc::from("passport")
    }

    fn said(count: usize) -> Vec<Expected> {
        let one = |number| Expected { id: format!("n{number}"), reference: None, deadline: None };
        (0..count).map(one).collect()
    }

    fn now() -> Timestamp {
        Timestamp::from_unix_micros(7)
    }

    #[test]
    fn what_finds_the_queue_full_is_refused_at_once_and_kept_when_it_is_said_again() {
        let Running { journal, writer, runtime, .. } = running(1);
        let free = hold(&journal);
        // A callback has the one place in the queue.
        let first = Entry::called_back(source(), now(), Bytes::from("{}"));
        let first = journal.append(first).unwrap();
        let say = || runtime.block_on(expect(&journal, &source(), now(), &said(1)));
        assert_eq!(say(), Err(Refused::QueueFull));
        drop(free);
        assert_eq!(runtime.block_on(first).unwrap(), Ok(1));
        assert_eq!(say(), Ok(()));
        journal.close();
        writer.join();
    }

    #[test]
    fn few_wait_in_the_queue_at_once_and_all_are_durable_once_it_returns() {
        let Running { journal, writer, runtime, .. } = running(1_000);
        let free = hold(&journal);
        let saying = journal.clone();
        let saying = runtime.spawn(async move {
            expect(&saying, &source(), now(), &said(2 * WAITING_MAX + 2)).await
        });
        let began = Instant::now();
        while journal.waiting() < WAITING_MAX {
            assert!(began.elapsed() < Duration::from_secs(15), "{} wait", journal.waiting());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!saying.is_finished());
        assert_eq!(journal.waiting(), WAITING_MAX);
        drop(free);
        assert_eq!(runtime.block_on(saying).unwrap(), Ok(()));
        let all = i64::try_from(2 * WAITING_MAX + 2).unwrap();
        assert_eq!(journal.progress().committed(), all);
        journal.close();
        writer.join();
    }

    #[test]
    fn more_than_the_queue_holds_is_kept_and_what_is_not_kept_is_said_to_be_refused() {
        let Running { journal, writer, runtime, .. } = running(3);
        let say = |count| runtime.block_on(expect(&journal, &source(), now(), &said(count)));
        assert_eq!(say(40), Ok(()));
        assert_eq!(journal.progress().committed(), 40);
        journal.progress().fail();
        assert_eq!(say(2), Err(Refused::Latched));
        assert_eq!(journal.progress().committed(), 40);
        journal.close();
        writer.join();
    }

    #[test]
    fn what_is_overdue_is_durable_once_it_is_said() {
        let Running { journal, writer, runtime, .. } = running(8);
        let overdue = Overdue {
            source: "passport".into(),
            id: "n".into(),
            reference: None,
            deadline: None,
            since: now(),
            status: None,
            key: 8,
            subject: None,
        };
        runtime.block_on(say_overdue(&journal, now(), &[overdue.clone(), overdue])).unwrap();
        assert_eq!(journal.progress().committed(), 2);
        journal.close();
        writer.join();
    }

    #[test]
    fn what_is_said_is_read_back_and_only_an_id_is_needed() {
        let whole = Expected {
            id: "n".into(),
            reference: Some("r".into()),
            deadline: Some(Timestamp::from_unix_micros(7)),
        };
        let least = Expected { id: "n".into(), reference: None, deadline: None };
        for expected in [whole, least.clone()] {
            assert_eq!(read(&serde_json::to_vec(&expected).unwrap()), Ok(expected));
        }
        assert_eq!(read(br#"{"id": "n", "a_later_key": 1}"#), Ok(least));
        for wrong in ["", "[]", "{}", r#"{"id": ""}"#, r#"{"id": "n", "deadline": "soon"}"#] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
