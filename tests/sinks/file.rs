//! The file sink, and standard output: lines in real files and pipes.

use std::collections::BTreeSet;
use std::fs::{self, File as StdFile};
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use receiptd::change::Change;
use receiptd::clock::Timestamp;
use receiptd::config::settings::FileSink;
use receiptd::forward::event::Event;
use receiptd::forward::fault::Fault;
use receiptd::forward::file::File;
use receiptd::forward::stdout::Stdout;
use rustix::fs::{FallocateFlags, fallocate};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::servers::{Missing, run};
use crate::suite::{self, Held, Kind, Rejection};

#[test]
fn the_file_sink_passes_the_suite() {
    suite::passes::<Folder>();
}

/// A folder with the file in it, which can be away.
struct Folder {
    outer: TempDir,
    case: String,
}

impl Folder {
    fn path(&self) -> PathBuf {
        self.outer.path().join(&self.case)
    }

    fn away(&self) -> PathBuf {
        self.outer.path().join(format!("{}-away", self.case))
    }

    fn lines_file(&self) -> PathBuf {
        self.path().join("receipts.jsonl")
    }
}

impl Kind for Folder {
    const TYPE: &'static str = "file";

    fn start() -> Result<Self, Missing> {
        Ok(Self { outer: tempfile::tempdir().unwrap(), case: String::new() })
    }

    fn address(&self) -> Option<SocketAddr> {
        None
    }

    fn fresh(&mut self, case: &str) {
        case.clone_into(&mut self.case);
        fs::create_dir(self.path()).unwrap();
    }

    fn lines(&self, _through: SocketAddr) -> String {
        format!("path = {:?}\nfile_bytes_max = 8192", self.lines_file())
    }

    fn held(&mut self) -> Vec<Held> {
        // While a line is written it is not whole, and not held yet.
        let lines = lines_of(&self.lines_file());
        lines.iter().map(|line| Held::from_structured(line.as_bytes())).collect()
    }

    fn reject(&mut self) -> Rejection {
        fs::rename(self.path(), self.away()).unwrap();
        Rejection::Waits
    }

    fn accept(&mut self) {
        fs::rename(self.away(), self.path()).unwrap();
    }

    fn crash(&mut self) {
        self.reject();
    }

    fn start_again(&mut self) {
        self.accept();
    }
}

/// The renamed files of that one, in order.
fn renamed(path: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}.", path.file_name().unwrap().to_str().unwrap());
    let mut all: Vec<PathBuf> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix))
        .collect();
    all.sort();
    all
}

/// Every line in the renamed files and then in the file; what has no end yet is none.
fn lines_of(path: &Path) -> Vec<String> {
    let mut text = String::new();
    for file in renamed(path) {
        text.push_str(&fs::read_to_string(file).unwrap());
        assert!(text.ends_with('\n'), "a line is in one file alone");
    }
    text.push_str(&fs::read_to_string(path).unwrap_or_default());
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole].lines().map(str::to_owned).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

fn event(number: i64) -> Event {
    let at = Timestamp::from_unix_micros(number);
    let body = number.to_string();
    let change = Change::of_unrecognised(number, &"s".into(), at, body.as_bytes(), "a\nreason");
    Event::of(change, None, false)
}

fn sink(path: &Path, file_bytes_max: u64, files_max: Option<u32>) -> File {
    File::open(&FileSink { path: path.to_owned(), file_bytes_max, files_max }).unwrap()
}

fn ids(lines: &[String]) -> Vec<String> {
    let id = |line: &String| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("half: {line}"));
        event["id"].as_str().unwrap().to_owned()
    };
    lines.iter().map(id).collect()
}

#[test]
fn many_at_once_are_each_one_line_in_files_of_their_size_of_which_the_newest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipts.jsonl");
    // A neighbour whose name begins alike, and one that looks like a number, are no files of ours.
    for other in ["receipts.jsonl.gz", "receipts.jsonl.1"] {
        fs::write(folder.path().join(other), "theirs\n").unwrap();
    }
    let all = Arc::new(sink(&path, 4_096, None));
    let few = sink(&folder.path().join("few"), 4_096, Some(2));
    block_on(async {
        let mut under_way = JoinSet::new();
        for number in 0..500 {
            let all = Arc::clone(&all);
            under_way.spawn(async move { all.send(&event(number)).await });
            few.send(&event(number)).await.unwrap();
        }
        while let Some(sent) = under_way.join_next().await {
            sent.unwrap().unwrap();
        }
    });
    for other in ["receipts.jsonl.gz", "receipts.jsonl.1"] {
        let other = folder.path().join(other);
        assert_eq!(fs::read_to_string(&other).unwrap(), "theirs\n");
        fs::remove_file(other).unwrap();
    }
    let lines = lines_of(&path);
    let distinct: BTreeSet<String> = ids(&lines).into_iter().collect();
    assert_eq!((lines.len(), distinct.len()), (500, 500));
    for file in renamed(&path) {
        let size = fs::metadata(&file).unwrap().len();
        assert!(size <= 4_096 && size > 3_000, "{}: {size}", file.display());
    }
    let names: Vec<PathBuf> = renamed(&path);
    assert_eq!(names[0], folder.path().join("receipts.jsonl.000001"));
    // In order, without a gap, up to the last: the old ones went.
    let few = folder.path().join("few");
    assert_eq!(renamed(&few).len(), 2);
    let kept = ids(&lines_of(&few));
    let last: Vec<String> = (0..500).map(|number| event(number).id()).collect();
    assert_eq!(kept, last[500 - kept.len()..]);
}

#[test]
fn a_line_longer_than_a_file_gets_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipts.jsonl");
    let sink = sink(&path, 10, None);
    block_on(async {
        for number in 0..3 {
            sink.send(&event(number)).await.unwrap();
        }
    });
    assert_eq!(renamed(&path).len(), 2);
    assert_eq!(ids(&lines_of(&path)), [0, 1, 2].map(|number| event(number).id()));
}

#[test]
fn half_a_line_that_a_crash_left_is_gone_and_what_is_not_ours_stays() {
    let whole = [String::from_utf8(event(1).structured()).unwrap(), "\n".to_owned()].concat();
    let half = &whole[..whole.len() / 2];
    for (left, stays) in [
        ("", ""),
        (&*whole, &*whole),
        (half, ""),
        ("{", ""),
        (&whole[..whole.len() - 1], ""),
        (&*format!("{whole}{half}"), &*whole),
        (&*format!("{whole}{}", half.repeat(3_000)), &*whole),
        (&*format!("{whole}{{\"theirs\": 1}}"), &*format!("{whole}{{\"theirs\": 1}}\n")),
        (&*format!("{whole}a\nb"), &*format!("{whole}a\nb\n")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipts.jsonl");
        fs::write(&path, left).unwrap();
        block_on(sink(&path, 1 << 30, None).send(&event(2))).unwrap();
        let after = String::from_utf8(event(2).structured()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{stays}{after}\n"), "{left:.60}");
    }
}

#[test]
fn a_file_that_begins_with_something_else_is_not_touched() {
    for theirs in ["SQLite format 3\0", "{\"theirs\": 1}\n", "a\nb", "\n"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipts.jsonl");
        fs::write(&path, theirs).unwrap();
        let fault = block_on(sink(&path, 4_096, Some(1)).send(&event(1))).unwrap_err();
        assert!(matches!(fault, Fault::Passing { .. }), "it may be moved away: {fault:?}");
        assert_eq!(fault.why(), "the file holds something else than changes");
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
        assert!(renamed(&path).is_empty());
    }
}

#[test]
fn a_missing_folder_is_named_as_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none/receipts.jsonl");
    let fault = block_on(sink(&path, 4_096, None).send(&event(1))).unwrap_err();
    assert_eq!(fault.why(), "failed to open the file: its folder does not exist");
}

#[test]
fn a_file_that_is_moved_away_or_emptied_is_made_anew_and_a_second_writer_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipts.jsonl");
    let first = sink(&path, 1 << 20, None);
    block_on(async {
        first.send(&event(1)).await.unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        first.send(&event(2)).await.unwrap();
        assert_eq!(ids(&lines_of(&path)), [event(2).id()]);
        StdFile::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        first.send(&event(3)).await.unwrap();
        assert_eq!(ids(&lines_of(&path)), [event(3).id()]);

        let second = sink(&path, 1 << 20, None);
        let fault = second.send(&event(4)).await.unwrap_err();
        assert!(fault.why().contains("locked by another sink or receiver"), "{fault}");
        drop(first);
        let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
        while second.send(&event(4)).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "the lock ends with its holder");
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(ids(&lines_of(&path)), [3, 4].map(|number| event(number).id()));
    let fault = block_on(sink(folder.path(), 1 << 20, None).send(&event(5))).unwrap_err();
    assert!(
        matches!(&fault, Fault::Passing { why, .. } if why.contains("a folder or a device")),
        "{fault}"
    );
}

#[test]
fn on_a_full_disk_nothing_is_half_written_and_with_room_again_it_goes_on() {
    if !rustix::process::geteuid().is_root() {
        crate::support::say("left out: a full disk needs root, to mount one");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
    run(std::process::Command::new("mount").args(mount).arg(folder.path()));
    let (path, ballast) = (folder.path().join("receipts.jsonl"), folder.path().join("ballast"));
    // All but one page, so that a line or two fit and the next is cut short.
    let file = StdFile::create(&ballast).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 56 << 10).unwrap();
    let sink = sink(&path, 1 << 20, None);
    let (kept, full) = block_on(async {
        let mut kept = Vec::new();
        loop {
            let next = event(i64::try_from(kept.len()).unwrap());
            match sink.send(&next).await {
                Ok(()) => kept.push(next.id()),
                Err(fault) => return (kept, fault),
            }
        }
    });
    let held = ids(&lines_of(&path));
    let tail = fs::read(&path).unwrap();
    fs::remove_file(&ballast).unwrap();
    drop(file);
    let after = block_on(sink.send(&event(1_000)));
    let at_last = ids(&lines_of(&path));
    drop(sink);
    run(std::process::Command::new("umount").arg("--lazy").arg(folder.path()));
    assert!(matches!(&full, Fault::Passing { why, .. } if why.contains("storage")), "{full:?}");
    assert!(!kept.is_empty());
    assert_eq!(held, kept);
    assert!(tail.ends_with(b"\n"), "what was cut short is taken back");
    after.unwrap();
    assert_eq!(at_last, [kept, vec![event(1_000).id()]].concat());
}

// --- standard output -----------------------------------------------------------------------------

#[test]
fn standard_output_gets_a_line_for_each_event_and_a_reader_that_went_away_stops_it() {
    let (reader, writer) = std::io::pipe().unwrap();
    let sink = Stdout::to(writer).unwrap();
    let mut reader = BufReader::new(reader);
    block_on(async {
        for number in 0..3 {
            sink.send(&event(number)).await.unwrap();
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert_eq!(ids(&[line]), [event(number).id()]);
        }
        drop(reader);
        let fault = sink.send(&event(3)).await.unwrap_err();
        assert!(matches!(fault, Fault::Gone { .. }), "{fault:?}");
        assert_eq!(fault.why(), "nobody reads standard output any more");
    });
}

/// Takes so many bytes at once, and now and then none.
struct Grudging {
    taken: Arc<std::sync::Mutex<Vec<u8>>>,
    calls: usize,
}

impl Write for Grudging {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(7) {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(100);
        self.taken.lock().unwrap().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_was_cut_short_is_finished_before_the_next() {
    let taken = Arc::default();
    let sink = Stdout::to(Grudging { taken: Arc::clone(&taken), calls: 0 }).unwrap();
    let mut passing = 0;
    block_on(async {
        for number in 0..20 {
            while let Err(fault) = sink.send(&event(number)).await {
                assert!(matches!(fault, Fault::Passing { .. }), "{fault:?}");
                passing += 1;
            }
        }
    });
    assert!(passing > 0);
    let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
    let mut lines = ids(&text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.dedup();
    assert_eq!(lines, (0..20).map(|number| event(number).id()).collect::<Vec<_>>());
}
