//! Settling: the journal alone gives the state, in any order and however it is cut, after pruning
//! as before; and what is pruned is gone from the files.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use receiptd::callback::{Callback, Origin};
use receiptd::change::{Filter, OwedTo, What};
use receiptd::clock::{Clock, Timestamp};
use receiptd::journal::{self, SourceRow};
use receiptd::provider::{Dialect, Provider};
use receiptd::settle::prune::{Hands, Order, PruneError, Pruned, Work, prune};
use receiptd::settle::{open_beside, rebuild, settle};
use receiptd::sqlite::{self, Access, Durability};
use receiptd::state;
use rusqlite::{Connection, params};
use support::{Chance, Client, Setup, dump, open, receipt, rows};
use tempfile::TempDir;

const CASES: usize = 20;

/// The first second of every test's time.
const EPOCH: i64 = 1_764_000_000_000_000;

fn at(second: usize) -> Timestamp {
    Timestamp::from_unix_micros(EPOCH).plus_seconds(i64::try_from(second).unwrap())
}

/// Every body of every fixture, with the source it belongs to: one a provider, of its name.
fn fixtures() -> Vec<(Arc<str>, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut bodies = Vec::new();
    for provider in Provider::ALL {
        let source: Arc<str> = Arc::from(provider.as_str());
        for case in sorted(&root.join(provider.as_str())) {
            for file in sorted(&case.join("callbacks")) {
                let bytes = fs::read(&file).unwrap();
                if file.extension().is_some_and(|extension| extension == "jsonl") {
                    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                    bodies.extend(lines.map(|line| (Arc::clone(&source), line.to_vec())));
                } else {
                    bodies.push((Arc::clone(&source), bytes));
                }
            }
        }
    }
    assert!(bodies.len() > 100, "{}", bodies.len());
    bodies
}

/// What the platforms say when asked, and the apps say they sent, of the notifications and messages that the fixtures are about.
fn answers() -> Vec<(Arc<str>, Origin, Vec<u8>)> {
    let n = "740e5834-3a29-46b4-9a6f-16142fde533a";
    let m = "b51f638b-4295-46e0-a06e-cd41eee7c33b";
    let v2 = |status: &str, at: &str| {
        format!(
            r#"{{"id": "{n}", "status": "{status}", "type": "sms", "completed_at": {at}, "phone_number": "1", "template": {{"id": "t", "version": 2}}}}"#
        )
    };
    let bodies = [
        v2("sending", "null"),
        v2("delivered", r#""2017-05-14T12:15:33.000000Z""#),
        v2("permanent-failure", r#""2027-05-14T12:15:33.000000Z""#),
        format!(
            r#"{{"id": "{n}", "status": "sent", "notification_type": "sms", "updated_at": null}}"#
        ),
        format!(r#"{{"id": "{m}", "user_number": "1", "notify_number": "2", "content": "Hi"}}"#),
        r#"{"id": "only-asked-for", "status": "delivered", "type": "email"}"#.to_owned(),
        r#"{"notification_type": "sms", "source_number": "1"}"#.to_owned(),
        "no answer".to_owned(),
    ];
    let expected = [
        format!(r#"{{"id": "{n}", "reference": "a", "deadline": "2027-01-01T00:00:00Z"}}"#),
        format!(r#"{{"id": "{n}", "reference": "b"}}"#),
        r#"{"id": "never-heard-of"}"#.to_owned(),
        "nothing".to_owned(),
    ];
    let sources = Provider::ALL.into_iter().filter(|provider| *provider != Provider::Ajo);
    sources
        .flat_map(|provider| {
            let source: Arc<str> = Arc::from(provider.as_str());
            let entry = |origin, body: String| (Arc::clone(&source), origin, body.into_bytes());
            let polled = bodies.clone().map(|body| entry(Origin::Polled, body));
            let expected = expected.clone().map(|body| entry(Origin::Expected, body));
            polled.into_iter().chain(expected).collect::<Vec<_>>()
        })
        .collect()
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn dialects() -> HashMap<Arc<str>, Dialect> {
    Provider::ALL.into_iter().map(|p| (Arc::from(p.as_str()), p.into())).collect()
}

/// A journal: bodies by chance, some of them several times, a second apart.
fn journal_by_chance(chance: &mut Chance) -> Vec<Callback> {
    let mut bodies: Vec<_> = fixtures()
        .into_iter()
        .map(|(source, body)| (source, Origin::CalledBack, body))
        .chain(answers())
        .collect();
    let repeats: Vec<_> = (0..60).map(|_| bodies[chance.below(bodies.len())].clone()).collect();
    bodies.extend(repeats);
    chance.shuffle(&mut bodies);
    entries(bodies, at)
}

/// Callbacks of these bodies.
fn in_order(
    bodies: Vec<(Arc<str>, Vec<u8>)>,
    received_at: impl Fn(usize) -> Timestamp,
) -> Vec<Callback> {
    let called_back = |(source, body)| (source, Origin::CalledBack, body);
    entries(bodies.into_iter().map(called_back).collect(), received_at)
}

fn entries(
    bodies: Vec<(Arc<str>, Origin, Vec<u8>)>,
    received_at: impl Fn(usize) -> Timestamp,
) -> Vec<Callback> {
    (1..)
        .zip(bodies)
        .map(|(seq, (source, origin, body))| {
            let received_at = received_at(usize::try_from(seq).unwrap());
            Callback { seq, source, received_at, body, origin }
        })
        .collect()
}

fn memory() -> Connection {
    sqlite::open_in_memory(&state::tables::SCHEMA).unwrap()
}

/// A sink that is told everything.
fn everything() -> OwedTo {
    let filter = Filter::default();
    OwedTo { sink: Arc::from("all"), since: 0, filter, is_latest_only: false, wants_body: true }
}

/// The state that these callbacks settle into, in one batch.
fn settled(callbacks: &[Callback]) -> Connection {
    let connection = memory();
    settle(&connection, callbacks, &dialects(), &[everything()]).unwrap();
    connection
}

/// What people read, without where in the journal it came from.
fn public(connection: &Connection) -> Vec<String> {
    let mut all = rows(connection, "SELECT * FROM notification ORDER BY source, id");
    all.extend(rows(connection, "SELECT * FROM received_message ORDER BY source, id"));
    all.extend(rows(connection, "SELECT source, reason FROM unrecognised ORDER BY 1, 2"));
    all.extend(rows(connection, "SELECT * FROM expected ORDER BY source, id"));
    let kinds = "SELECT source, id, kind, count(*), sum(duplicate) FROM history
                 GROUP BY source, id, kind ORDER BY source, id, kind";
    all.extend(rows(connection, kinds));
    all
}

#[test]
fn any_cut_into_batches_gives_the_same_bytes() {
    let mut chance = Chance::new();
    for _ in 0..CASES {
        let callbacks = journal_by_chance(&mut chance);
        let whole = dump(&settled(&callbacks));
        let cut = memory();
        let mut rest = &callbacks[..];
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(1 + chance.below(rest.len().min(40)));
            settle(&cut, batch, &dialects(), &[everything()]).unwrap();
            rest = after;
        }
        assert_eq!(dump(&cut), whole);
    }
}

#[test]
fn the_changes_of_a_notification_lead_from_one_state_to_the_next_and_to_what_is_stored() {
    let mut chance = Chance::new();
    for _ in 0..CASES {
        let callbacks = journal_by_chance(&mut chance);
        let state = settled(&callbacks);
        let changes = rows(
            &state,
            "SELECT source, subject_id, what, json_extract(data, '$.status'),
                    json_extract(data, '$.previous.status')
             FROM change_row WHERE what NOT IN ('message', 'unrecognised') ORDER BY key",
        );
        let mut last: HashMap<String, String> = HashMap::new();
        for change in changes {
            let parts: Vec<&str> = change.split('|').collect();
            let [source, id, _, status, previous] = parts[..] else { panic!("{change}") };
            let before = last.insert(format!("{source}|{id}"), status.to_owned());
            assert_eq!(before.as_deref().unwrap_or("null"), previous, "{change}");
        }
        let stored = rows(&state, "SELECT source, id, status FROM notification");
        let stored: BTreeSet<String> = stored.into_iter().collect();
        let told = last.into_iter().map(|(subject, status)| format!("{subject}|{status}"));
        assert_eq!(told.collect::<BTreeSet<_>>(), stored);
        let ids = rows(
            &state,
            "SELECT count(*) - count(DISTINCT id) FROM change_row
                                WHERE what != 'unrecognised'",
        );
        assert_eq!(ids, ["0"], "no two changes share an id");
        let bodies = rows(&state, "SELECT count(*) FROM change_row WHERE body IS NULL");
        assert_eq!(bodies, ["0"]);
    }
}

#[test]
fn a_repeat_owes_nothing_and_neither_does_what_loses() {
    let gc: Arc<str> = Arc::from("gc-notify");
    let receipt = |status: &str, second: u8| {
        let completed_at = format!("2026-01-01T00:00:{second:02}.000000Z");
        support::receipt_of("n", status, &completed_at).into_bytes()
    };
    let bodies = [("delivered", 2), ("delivered", 2), ("sent", 1), ("permanent-failure", 3)];
    let bodies = bodies.map(|(status, second)| (Arc::clone(&gc), receipt(status, second)));
    let state = settled(&in_order(bodies.into(), at));
    let told =
        rows(&state, "SELECT status, json_extract(data, '$.previous.status') FROM change_row");
    assert_eq!(told, ["delivered|null", "permanent-failure|delivered"]);
}

#[test]
fn a_sink_is_owed_what_its_filter_lets_pass_and_nothing_from_before_it_was_configured() {
    let callbacks = in_order(fixtures(), at);
    let half = i64::try_from(callbacks.len() / 2).unwrap();
    let sink =
        |name: &str, since, filter| OwedTo { sink: Arc::from(name), since, filter, ..everything() };
    let words = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
    let owed_to = [
        sink("late", half, Filter::default()),
        sink("one", 0, Filter { sources: words(&["ajo"]), ..Filter::default() }),
        sink("texts", 0, Filter { kinds: Some(vec![What::Message]), ..Filter::default() }),
        sink("failed", 0, Filter { statuses: words(&["permanent-failure"]), ..Filter::default() }),
    ];
    let state = memory();
    settle(&state, &callbacks, &dialects(), &owed_to).unwrap();
    let of = |sink: &str, sql: &str| {
        let sql = format!(
            "SELECT DISTINCT {sql} FROM outbox_row AS o JOIN change_row AS c ON c.key = o.key
             WHERE sink = '{sink}' ORDER BY 1"
        );
        rows(&state, &sql)
    };
    let first: i64 = of("late", "min(c.key >> 14)")[0].parse().unwrap();
    assert!(first > half && first < half + 5, "{first}");
    assert_eq!(of("one", "source"), ["ajo"]);
    assert_eq!(of("texts", "c.what"), ["message"]);
    assert_eq!(
        of("failed", "c.what || ' ' || status")
            .into_iter()
            .filter(|line| line.starts_with("status"))
            .collect::<Vec<_>>(),
        ["status permanent-failure"]
    );
    assert!(of("failed", "c.what").len() > 1, "`statuses` says nothing of other kinds");
    let orphans = "SELECT count(*) FROM change_row AS c
        WHERE owed != (SELECT count(*) FROM outbox_row AS o WHERE o.key = c.key)";
    assert_eq!(rows(&state, orphans), ["0"]);
}

#[test]
fn any_order_gives_the_same_state() {
    let mut chance = Chance::new();
    let mut callbacks: Vec<_> = journal_by_chance(&mut chance)
        .into_iter()
        .map(|callback| (callback.source, callback.origin, callback.body))
        .collect();
    // All in one second: when something arrived first is a fact of the order.
    let expected = public(&settled(&entries(callbacks.clone(), |_| at(0))));
    for _ in 0..CASES {
        chance.shuffle(&mut callbacks);
        assert_eq!(public(&settled(&entries(callbacks.clone(), |_| at(0)))), expected);
    }
}

#[test]
fn a_repeated_callback_is_counted_once_and_changes_nothing_else() {
    let callbacks = in_order(fixtures(), at);
    let state = settled(&callbacks);
    let fields = "SELECT source, id, status, status_description, provider_response, reference,
        recipient, notification_type, template_id, template_version, created_at, sent_at,
        completed_at, complained_at, returned_at, receipts, first_received_at, last_received_at
        FROM notification ORDER BY source, id";
    let read = |state: &Connection| {
        (rows(state, fields), rows(state, "SELECT * FROM received_message ORDER BY source, id"))
    };
    let before = read(&state);
    let count = |sql: &str| state.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let events = count("SELECT count(*) FROM history");
    let duplicates = count("SELECT sum(duplicates) FROM notification");
    let of_notifications = count("SELECT count(*) FROM history WHERE kind <> 'received-message'");
    let again = callbacks.len();
    let repeats = in_order(fixtures(), |seq| at(seq + again));
    let repeats: Vec<_> = repeats
        .into_iter()
        .map(|callback| Callback { seq: callback.seq + again as i64, ..callback })
        .collect();
    settle(&state, &repeats, &dialects(), &[]).unwrap();
    assert_eq!(read(&state), before);
    assert_eq!(count("SELECT sum(duplicates) FROM notification"), duplicates + of_notifications);
    let sql = format!("SELECT count(*) FROM history WHERE duplicate AND seq > {again}");
    assert_eq!(count(&sql), events);
}

#[test]
fn every_event_of_an_array_has_its_row_in_the_history() {
    let body = br#"[
        {"requestId": "r1", "channel": "email", "channelContext": {"profileAddress": "a@example.ca"},
         "messageExecution": {"messageExecutionID": "U-1", "messageProfileID": "p1"},
         "messageDeliveryFeedback": {"feedbackStatus": {"value": "sent"}}},
        {"requestId": "r1", "channel": "email", "channelContext": {"profileAddress": "b@example.ca"},
         "messageExecution": {"messageExecutionID": "U-1", "messageProfileID": "p2"},
         "messageDeliveryFeedback": {"feedbackStatus": {"value": "delivered"}}},
        "not an event"]"#;
    let ajo: Arc<str> = Arc::from("ajo");
    let state = settled(&in_order(vec![(ajo, body.to_vec())], at));
    let history = rows(&state, "SELECT seq, id, status FROM history ORDER BY id");
    assert_eq!(history, ["1|p1|sent", "1|p2|delivered"]);
    let unrecognised = rows(&state, "SELECT seq, source FROM unrecognised");
    assert_eq!(unrecognised, ["1|ajo"], "what was not understood is not forgotten over the rest");
    // A source of the Notify family has no arrays.
    let notify: Arc<str> = Arc::from("gc-notify");
    let state = settled(&in_order(vec![(notify, body.to_vec())], at));
    assert_eq!(rows(&state, "SELECT count(*) FROM history"), ["0"]);
    assert_eq!(rows(&state, "SELECT count(*) FROM unrecognised"), ["1"]);
}

#[test]
fn a_source_nobody_knows_is_unrecognised_and_the_next_is_settled() {
    let unknown: Arc<str> = Arc::from("who-is-this");
    let known: Arc<str> = Arc::from("notify");
    let bodies = vec![
        (unknown, receipt("a").into_bytes()),
        (Arc::clone(&known), b"{".to_vec()),
        (known, receipt("b").into_bytes()),
    ];
    let state = settled(&in_order(bodies, at));
    assert_eq!(rows(&state, "SELECT source, id FROM notification"), ["notify|b"]);
    assert_eq!(rows(&state, "SELECT seq, source FROM unrecognised"), ["1|who-is-this", "2|notify"]);
}

/// Both files, in a folder.
struct Files {
    _folder: TempDir,
    state: PathBuf,
    journal: PathBuf,
}

impl Files {
    /// A journal file that holds these callbacks, and the state that belongs to it.
    fn holding(callbacks: &[Callback]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("receiptd.db");
        let files = Self { journal: journal::path_beside(&state), state, _folder: folder };
        files.append(callbacks);
        files.rebuild();
        files
    }

    fn append(&self, callbacks: &[Callback]) {
        let mut journal = self.journal();
        let transaction = journal.transaction().unwrap();
        for (name, dialect) in dialects() {
            SourceRow { name: name.to_string(), dialect }.remember(&transaction).unwrap();
        }
        for Callback { seq, source, received_at, body, origin } in callbacks {
            let row = params![seq, &**source, received_at.to_string(), body, origin.number()];
            transaction.execute("INSERT INTO callback VALUES (?1, ?2, ?3, ?4, ?5)", row).unwrap();
        }
        transaction.commit().unwrap();
    }

    fn rebuild(&self) {
        rebuild(&self.state, &self.journal, 50, &[], |_, _| {}).unwrap();
    }

    fn journal(&self) -> Connection {
        let access = Access::Write(Durability::Full);
        sqlite::open(&self.journal, &journal::SCHEMA, access).unwrap()
    }

    fn dump(&self) -> Vec<String> {
        dump(&open(&self.state))
    }

    fn prune(&self, before: Timestamp, bodies_only: bool) -> Pruned {
        let access = Access::Write(Durability::Full);
        let state = sqlite::open(&self.state, &state::tables::SCHEMA, access).unwrap();
        let mut hands = OwnHands { journal: self.journal(), state };
        let order = Order { before, bodies_only, now: before };
        prune(order, (&self.journal, &self.state), &mut hands, |_, _| {}).unwrap()
    }
}

struct OwnHands {
    journal: Connection,
    state: Connection,
}

impl Hands for OwnHands {
    fn on_journal(&mut self, work: Work) -> Result<i64, PruneError> {
        Ok(work(&mut self.journal)?)
    }

    fn on_state(&mut self, work: Work) -> Result<i64, PruneError> {
        Ok(work(&mut self.state)?)
    }
}

#[test]
fn a_rebuild_gives_the_same_bytes_as_settling() {
    let mut chance = Chance::new();
    let callbacks = journal_by_chance(&mut chance);
    let files = Files::holding(&callbacks);
    assert_eq!(files.dump(), dump(&settled(&callbacks)));
    // Twice is no different from once, and a damaged attempt of before is no hindrance.
    fs::write(files.state.with_extension("db-rebuilding"), "left behind").unwrap();
    files.rebuild();
    assert_eq!(files.dump(), dump(&settled(&callbacks)));
}

#[test]
fn pruned_bodies_change_no_state_not_even_after_a_rebuild() {
    let mut chance = Chance::new();
    for _ in 0..4 {
        let callbacks = journal_by_chance(&mut chance);
        let files = Files::holding(&callbacks);
        let whole = files.dump();
        let first = chance.below(callbacks.len());
        let second = first + chance.below(callbacks.len() - first);
        for kept_from in [first, second] {
            let pruned = files.prune(callbacks[kept_from].received_at, true);
            assert!(pruned.is_log_empty);
            assert_eq!(files.dump(), whole, "pruned before {kept_from}");
            let left = rows(&open(&files.journal), "SELECT count(*) FROM callback");
            assert_eq!(left, [(callbacks.len() - kept_from).to_string()]);
            fs::remove_file(&files.state).unwrap();
            files.rebuild();
            assert_eq!(files.dump(), whole, "rebuilt after pruning before {kept_from}");
        }
    }
}

#[test]
fn pruning_forgets_only_what_nothing_has_been_heard_of_since() {
    let mut chance = Chance::new();
    for _ in 0..4 {
        let callbacks = journal_by_chance(&mut chance);
        let files = Files::holding(&callbacks);
        let before = callbacks[chance.below(callbacks.len())].received_at;
        let alive = |view: &str| {
            let heard_of = format!(
                "SELECT * FROM {view} AS v WHERE EXISTS (SELECT 1 FROM history AS h
                 WHERE h.source = v.source AND h.id = v.id AND h.received_at >= '{before}'
                 AND (h.kind = 'received-message') = ('{view}' = 'received_message'))
                 OR '{view}' = 'notification' AND EXISTS (SELECT 1 FROM expected_row AS e
                 WHERE e.source = v.source AND e.id = v.id
                    AND (e.last_received_at >= '{before}' OR e.deadline >= '{before}'))
                 ORDER BY source, id"
            );
            rows(&open(&files.state), &heard_of)
        };
        let expected = (alive("notification"), alive("received_message"));
        files.prune(before, false);
        let sql = "SELECT * FROM notification ORDER BY source, id";
        assert_eq!(rows(&open(&files.state), sql), expected.0);
        let sql = "SELECT * FROM received_message ORDER BY source, id";
        assert_eq!(rows(&open(&files.state), sql), expected.1);
        let pruned = files.dump();
        fs::remove_file(&files.state).unwrap();
        files.rebuild();
        assert_eq!(files.dump(), pruned);
    }
}

#[test]
fn a_repeat_of_a_pruned_callback_is_still_a_duplicate() {
    let source: Arc<str> = Arc::from("notify");
    let body = receipt("a").into_bytes();
    let callback = |seq: i64, second| Callback {
        seq,
        source: Arc::clone(&source),
        received_at: at(second),
        body: body.clone(),
        origin: Origin::CalledBack,
    };
    let files = Files::holding(&[callback(1, 1)]);
    files.prune(at(100), true);
    files.append(&[callback(2, 200)]);
    files.rebuild();
    let counts = rows(&open(&files.state), "SELECT receipts, duplicates FROM notification");
    assert_eq!(counts, ["1|1"]);
}

#[test]
fn a_journal_restored_from_an_older_copy_can_still_be_pruned() {
    let callbacks = journal_by_chance(&mut Chance::new());
    let (older, _) = callbacks.split_at(callbacks.len() / 2);
    let files = Files::holding(older);
    let copy = files.journal.with_extension("copy");
    fs::copy(&files.journal, &copy).unwrap();
    files.append(&callbacks[older.len()..]);
    files.rebuild();
    let whole = files.dump();
    fs::copy(&copy, &files.journal).unwrap();
    drop(open_beside(&files.state, &files.journal, &Clock::system()).unwrap());
    files.prune(callbacks[older.len() / 2].received_at, true);
    assert_eq!(files.dump(), whole);
    fs::remove_file(&files.state).unwrap();
    files.rebuild();
    assert_eq!(files.dump(), whole);
}

/// The files in which these bytes stand.
fn files_with(folder: &Path, bytes: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let content = fs::read(file.path()).unwrap();
        if content.windows(bytes.len()).any(|window| window == bytes.as_bytes()) {
            found.insert(file.file_name().into_string().unwrap());
        }
    }
    found
}

/// Asks a running receiver to prune, as `receiptd prune` does.
fn ask_to_prune(setup: &Setup, key: Option<&str>, query: &str) -> support::Answer {
    let control = fs::read_to_string(setup.path("receiptd.db.control")).unwrap();
    let (url, real_key) = control.trim().split_once('\n').unwrap();
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let key = key.unwrap_or(real_key);
    Client::connect(address.parse().unwrap()).ask(format!(
        "POST /{path}?{query} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\
         content-length: 0\r\n\r\n"
    ))
}

#[test]
fn what_is_pruned_is_gone_from_every_file_while_the_receiver_runs() {
    let setup = Setup::new();
    let server = setup.start();
    let canaries = ["canary-in-an-address", "canary-in-a-text", "canary-not-interpreted"];
    for index in 0..200 {
        let id = format!("n{index}");
        let body = receipt(&id).replace("someone", "canary-in-an-address");
        assert_eq!(server.post(body.replacen('{', r#"{"x": "canary-not-interpreted", "#, 1)), 204);
        let message = "canary-in-a-text ".repeat(300);
        let text = format!(r#"{{"id": "{id}", "source_number": "1", "message": "{message}"}}"#);
        assert_eq!(server.post(text), 204);
    }
    server.settled();
    for canary in canaries {
        assert!(!files_with(setup.folder.path(), canary).is_empty(), "the control sees {canary}");
    }
    let past = "before=2020-01-01T00:00:00Z";
    let future = "before=2100-01-01T00:00:00Z";
    assert_eq!(ask_to_prune(&setup, Some("not the key"), future).status, 401);
    assert_eq!(ask_to_prune(&setup, None, "before=yesterday").status, 400);
    assert!(ask_to_prune(&setup, None, past).text().contains(r#""callbacks":0"#));
    let bodies = ask_to_prune(&setup, None, &format!("{future}&bodies_only")).text();
    assert!(
        bodies.contains(r#""callbacks":400"#) && bodies.contains(r#""subjects":0"#),
        "{bodies}"
    );
    assert_eq!(files_with(setup.folder.path(), "canary-not-interpreted"), BTreeSet::new());
    assert_eq!(support::count(&setup.state(), "notification"), 200);
    let all = ask_to_prune(&setup, None, future).text();
    assert!(all.contains(r#""subjects":400"#) && all.contains(r#""is_log_empty":true"#), "{all}");
    for canary in canaries {
        assert_eq!(files_with(setup.folder.path(), canary), BTreeSet::new(), "{canary}");
    }
    // It goes on as before.
    assert_eq!(server.post(receipt("later")), 204);
    server.settled();
    assert_eq!(support::count(&setup.state(), "notification"), 1);
}

#[test]
fn settling_from_the_start_is_warned_of_where_a_state_is_missing_and_not_at_a_first_start() {
    let setup = Setup::new();
    let warning = "settled from the journal";
    let server = setup.start();
    assert_eq!(server.post(receipt("a")), 204);
    server.settled();
    assert!(!server.stderr().contains(warning), "{}", server.stderr());
    server.stop();
    fs::remove_file(setup.state()).unwrap();
    let server = setup.start();
    server.settled();
    assert!(server.stderr().contains(warning), "{}", server.stderr());
}
