//! Promise 12: what is pruned is gone from the files.
//!
//! Callbacks full of canaries, in every column that can hold one and large enough to overflow their
//! pages, are kept, settled, moved about by later receipts, and pruned: beside a running receiver,
//! offline, or while somebody reads, who keeps the logs from being emptied and must be named. Then
//! every byte of every file of the folder is searched, while the receiver runs and after it.

use std::path::Path;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use rusqlite::Connection;

use super::Promise;
use super::report::{Control, Found};
use super::scan::{Secret, files};
use super::support::{Setup, open, receipt, receiptd, run as run_to_its_end};

/// What is promised.
pub const PROMISE: Promise = Promise {
    name: "pruned",
    number: 12,
    claim: "What is pruned is gone from the files",
    needs_root: false,
    needs: &[],
    rounds: (100, 6),
    run,
};

/// Notifications and messages with canaries in a round.
const SUBJECTS: usize = 60;

/// Who is there when it is pruned.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Receiver,
    Nobody,
    Reader,
}

#[derive(Default)]
struct Seen {
    callbacks: u64,
    files: u64,
    bytes: u64,
    left: u64,
    problems: Vec<String>,
}

fn run(rounds: u32, seed: u64) -> Found {
    let mut seen = Seen::default();
    for number in 0..rounds {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        chance.set_stream(u64::from(number));
        let beside = [Beside::Receiver, Beside::Nobody, Beside::Reader][number as usize % 3];
        seen.round(number, beside, &mut chance);
    }
    let counts = [
        ("callbacks with canaries", seen.callbacks),
        ("files searched", seen.files),
        ("bytes searched", seen.bytes),
        ("canaries left", seen.left),
    ];
    Found {
        held: seen.left == 0 && seen.callbacks > 0,
        figure: format!(
            "{} left of {} callbacks pruned in {rounds} rounds",
            seen.left, seen.callbacks
        ),
        counts: counts.map(|(name, count)| (name.to_owned(), count)).to_vec(),
        control: control(seed),
        problems: seen.problems,
    }
}

impl Seen {
    fn round(&mut self, number: u32, beside: Beside, chance: &mut ChaCha8Rng) {
        let canary = Secret::new(&format!("canary-{number}-{:016x}", chance.random::<u64>()));
        let setup = Setup::new();
        let server = setup.start();
        let bodies = bodies(&canary.text, chance);
        self.callbacks += bodies.len() as u64;
        for body in &bodies {
            let status = server.post(body);
            self.expect(status == 204, || format!("round {number}: answered {status}"));
        }
        server.settled();
        let before = self.hits(&canary, setup.folder.path());
        self.expect(before > 0, || "before pruning nothing was found, so nothing is tested".into());
        match beside {
            Beside::Receiver => self.prune(&setup, 0),
            Beside::Nobody => {
                server.stop();
                self.prune(&setup, 0);
                self.left_in(&canary, &setup, number, beside);
                return;
            }
            Beside::Reader => {
                let reader = open(&setup.state());
                reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").expect("a read");
                self.prune(&setup, 1);
                drop(reader);
                self.prune(&setup, 0);
            }
        }
        // What comes next overwrites nothing of it by chance: it must be gone already.
        self.left_in(&canary, &setup, number, beside);
        let status = server.post(receipt("afterwards"));
        self.expect(status == 204, || format!("round {number}: answered {status} afterwards"));
        server.settled();
        server.stop();
        self.left_in(&canary, &setup, number, beside);
    }

    fn prune(&mut self, setup: &Setup, code: i32) {
        let state = setup.state();
        let arguments = ["prune", "--older-than", "0s", "--db", state.to_str().expect("a path")];
        let ended = run_to_its_end(&mut receiptd(setup.folder.path(), &arguments));
        let is_right = ended.code == Some(code) && (code == 0 || ended.stderr.contains("reading"));
        self.expect(is_right, || format!("prune ended with {:?}: {}", ended.code, ended.stderr));
    }

    fn left_in(&mut self, canary: &Secret, setup: &Setup, number: u32, beside: Beside) {
        for (path, bytes) in files(setup.folder.path()) {
            self.files += 1;
            self.bytes += bytes.len() as u64;
            let forms = canary.found_in(&bytes);
            self.left += forms.len() as u64;
            self.expect(forms.is_empty(), || {
                let name = path.file_name().unwrap_or_default().display();
                format!("round {number}, {beside:?}: {name} holds a canary as {forms:?}")
            });
        }
    }

    fn hits(&self, canary: &Secret, folder: &Path) -> usize {
        files(folder).iter().map(|(_, bytes)| canary.found_in(bytes).len()).sum()
    }

    fn expect(&mut self, is_so: bool, problem: impl FnOnce() -> String) {
        if !is_so && self.problems.len() < 20 {
            self.problems.push(problem());
        }
    }
}

/// Of every kind, the canary in every place, in pages' and in overflowing sizes.
fn bodies(canary: &str, chance: &mut ChaCha8Rng) -> Vec<String> {
    let mut bodies = Vec::new();
    for number in 0..SUBJECTS {
        let long = canary.repeat(chance.random_range(1..400));
        let id = format!("{canary}-{number}");
        let receipt_of = |status: &str, second: u32| {
            format!(
                r#"{{"id": "{id}", "reference": "{long}", "to": "{canary}@example.ca", "status": "{status}", "status_description": "{canary}", "provider_response": "{canary}", "created_at": "2026-11-22T10:00:00.000000Z", "completed_at": "2026-11-22T10:00:{second:02}.000000Z", "sent_at": null, "notification_type": "email", "template_id": "{canary}"}}"#
            )
        };
        match chance.random_range(0..5) {
            0 => bodies.push(format!(
                r#"{{"id": "{id}", "source_number": "{canary}", "destination_number": "{canary}", "message": "{long}", "date_received": "2026-11-22T10:00:00.000000Z"}}"#
            )),
            1 => bodies.push(format!("{long} is no JSON")),
            2 => bodies.push(format!(
                r#"{{"notification_id": "{id}", "complaint_id": "{canary}", "reference": "{long}", "to": "{canary}", "complaint_date": "2026-11-22T10:00:00.000000Z"}}"#
            )),
            _ => {
                for second in 1..chance.random_range(2..6) {
                    let status = if second % 2 == 0 { "delivered" } else { canary };
                    bodies.push(receipt_of(status, second));
                }
            }
        }
    }
    bodies
}

/// The same rows deleted as one would without knowing: no overwriting, no emptying of the log.
fn control(seed: u64) -> Control {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    chance.set_stream(u64::MAX);
    let canary = Secret::new(&format!("canary-control-{:016x}", chance.random::<u64>()));
    let setup = Setup::new();
    let server = setup.start();
    for body in bodies(&canary.text, &mut chance) {
        assert_eq!(server.post(body), 204);
    }
    server.settled();
    server.stop();
    let tables = [
        (setup.journal(), &["callback"][..]),
        (setup.state(), &["history_row", "message_history_row", "notification_row", "message_row"]),
    ];
    // Open until the end: closing the last connection would move the log into the file.
    let connections = tables.map(|(path, tables)| {
        let connection = Connection::open(path).expect("a database");
        let careless = "PRAGMA secure_delete = OFF; PRAGMA wal_autocheckpoint = 0";
        connection.execute_batch(careless).expect("pragmas");
        for table in tables {
            connection.execute_batch(&format!("DELETE FROM {table}")).expect("rows to delete");
        }
        connection
    });
    let all = files(setup.folder.path());
    let left = all.iter().filter(|(_, bytes)| !canary.found_in(bytes).is_empty()).count();
    drop(connections);
    Control {
        what: format!(
            "deleted with secure_delete off and the log left alone: canaries in {left} files"
        ),
        caught: left > 0,
    }
}
