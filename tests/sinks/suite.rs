//! One suite that every kind of sink passes, against its real server and the real `receiptd`.
//!
//! A kind is one file beside this one. It implements [`Kind`] (start the server, name a destination,
//! read what it holds, refuse) and calls [`passes`] in a test; network faults are the proxy's affair
//! ([`crate::proxy`]), so a kind has none of its own. The suite starts the server once and runs each
//! case with a receiver and a destination of its own:
//!
//! | case | is |
//! |---|---|
//! | `accept` | nothing goes wrong: each change arrives once |
//! | `reject` | the server refuses for a time, for good or not, as the kind says |
//! | `slow` | answers are late but in time; then none come at all until an attempt is given up |
//! | `cut` | the server accepts, and the connection dies before its answer is through |
//! | `down` | nobody listens for a while; then the server crashes and comes back |
//! | `restart` | the receiver is killed again and again with changes under way |
//!
//! In each, callbacks about several notifications with several statuses are posted, and in the end
//! what the destination holds is held against the history in the state file: every change is there,
//! with the id that follows from its callback alone; repeats are equal; those of one notification
//! came in order; the data is what the public table says.

#![allow(dead_code, reason = "which kinds there are depends on the features")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use receiptd::callback::Fingerprint;
use receiptd::change::{ChangeId, What};
use rusqlite::Connection;
use serde_json::Value;

use crate::proxy::{Proxy, Weather};
use crate::servers::{Missing, or_left_out};
use crate::support::{
    PATH, PATIENCE, Receiptd, SOURCE, Setup, TOKEN, holds_within, open, post, receipt_of, rows,
};

/// Notifications of one round.
const NOTIFICATIONS: usize = 12;

/// The statuses of each, each newer than the one before.
const STATUSES: [(&str, &str); 3] = [
    ("sent", "2026-11-22T10:00:01.000000Z"),
    ("temporary-failure", "2026-11-22T10:00:02.000000Z"),
    ("delivered", "2026-11-22T10:00:03.000000Z"),
];

/// How long the proxy holds each piece of bytes back in the case `slow`.
const LATE: Duration = Duration::from_millis(25);

/// How long the receiver tries for, beyond which the suite gives up on it.
const DELIVERY: Duration = Duration::from_secs(60);

/// What the destination keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Every event, in the order in which it came, repeats too unless the server drops them.
    Events,
    /// Of each notification its last state, and no ids.
    States,
}

/// What follows when the server refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The changes are parked: it would never take them.
    Parks,
    /// They wait until it takes them.
    Waits,
}

/// One event, or one state, that the destination holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The id of the event; empty with [`Keeps::States`].
    pub id: String,
    /// The id of the notification.
    pub subject: String,
    /// The data of the event, or the columns of the row.
    pub data: Value,
}

impl Held {
    /// From a CloudEvents event in structured mode, whose attributes must be as documented.
    pub fn from_structured(event: &[u8]) -> Self {
        let mut event: Value = serde_json::from_slice(event).expect("an event is JSON");
        for (attribute, expected) in [
            ("specversion", "1.0"),
            ("type", "receiptd.status"),
            ("source", &format!("/receiptd/{SOURCE}")),
            ("datacontenttype", "application/json"),
        ] {
            assert_eq!(event[attribute], *expected, "{attribute}");
        }
        let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{name}")).to_owned();
        let (id, subject) = (text("id"), text("subject"));
        Self { id, subject, data: event["data"].take() }
    }
}

/// What the suite must know of a kind of sink. A value is a running server.
pub trait Kind: Sized {
    /// `type` in the configuration.
    const TYPE: &'static str;

    /// What a destination keeps.
    const KEEPS: Keeps = Keeps::Events;

    /// Starts the server, in a temporary folder, on a free port, and waits until it answers.
    ///
    /// # Errors
    /// If it is not installed.
    fn start() -> Result<Self, Missing>;

    /// Where it listens; `None` if there is no network between it and the receiver.
    fn address(&self) -> Option<SocketAddr>;

    /// Makes a destination (a queue, a stream, a schema …) to which nothing was ever sent. From here
    /// on everything is about it. `case` is a word of lower-case letters, another one each time.
    fn fresh(&mut self, case: &str);

    /// The lines of `[[sink]]` for this destination, but for `name`, `type`, the attempts and the
    /// pauses; the server is reached at `through`.
    fn lines(&self, through: SocketAddr) -> String;

    /// Everything the destination holds, in the order in which it came.
    fn held(&mut self) -> Vec<Held>;

    /// From now on the server refuses what is sent to the destination …
    fn reject(&mut self) -> Rejection;

    /// … until now.
    fn accept(&mut self);

    /// The server ends as in a crash …
    fn crash(&mut self);

    /// … and starts again with the same files on the same port. Waits until it answers.
    fn start_again(&mut self);
}

/// Runs every case against a server of that kind, unless it is missing.
pub fn passes<K: Kind>() {
    let Some(mut server) = or_left_out(K::TYPE, K::start()) else { return };
    accept(&mut Case::new(&mut server, "accept"));
    reject(&mut Case::new(&mut server, "reject"));
    if server.address().is_some() {
        slow(&mut Case::new(&mut server, "slow"));
        cut(&mut Case::new(&mut server, "cut"));
    }
    down(&mut Case::new(&mut server, "down"));
    restart(&mut Case::new(&mut server, "restart"));
}

/// Nothing goes wrong.
fn accept<K: Kind>(case: &mut Case<'_, K>) {
    case.post_round("a");
    case.all_arrived();
    case.assert_no_repeats();
}

/// The server refuses, and takes what comes after.
fn reject<K: Kind>(case: &mut Case<'_, K>) {
    let rejection = case.server.reject();
    case.post_round("refused");
    match rejection {
        Rejection::Waits => {
            case.eventually("a change waits", |case| case.outbox("standing = 1") > 0);
            case.server.accept();
            case.post_round("taken");
            case.all_arrived();
            assert_eq!(case.outbox("standing = 3"), 0, "nothing is parked");
        }
        Rejection::Parks => {
            let all = NOTIFICATIONS * STATUSES.len();
            case.eventually("all are parked", |case| case.outbox("standing = 3") == all);
            let unsaid = case.outbox("standing = 3 AND coalesce(error, '') = ''");
            assert_eq!(unsaid, 0, "each says why");
            assert_eq!(case.server.held(), [], "what is refused is not held");
            case.server.accept();
            case.parked.extend(case.expected().into_values().flatten().map(|change| change.id));
            case.post_round("taken");
            case.all_arrived();
            assert_eq!(case.outbox("standing = 3"), all, "what is parked stays so");
        }
    }
}

/// Late answers, then none.
fn slow<K: Kind>(case: &mut Case<'_, K>) {
    case.proxy().set(Weather::Slow(LATE));
    case.post_round("late");
    case.all_arrived();
    case.proxy().set(Weather::Stall);
    case.post_round("stalled");
    case.eventually("an attempt is given up", |case| case.outbox("standing = 1") > 0);
    case.proxy().set(Weather::Pass);
    case.all_arrived();
}

/// The server accepts, and nobody hears of it.
fn cut<K: Kind>(case: &mut Case<'_, K>) {
    case.post_round("before");
    case.all_arrived();
    for round in ["x", "y"] {
        let id = case.id(round, 7);
        case.proxy().cut_answers_to(&id, 2);
        case.post_round(round);
        case.eventually("the answers are lost", |case| case.proxy().cuts_left() == 0);
        case.all_arrived();
    }
}

/// Nobody there; then a crash of the server.
fn down<K: Kind>(case: &mut Case<'_, K>) {
    case.post_round("before");
    case.all_arrived();
    if case.proxy.is_some() {
        case.proxy().set(Weather::Refuse);
        case.post_round("refused");
        case.eventually("a change waits", |case| case.outbox("standing = 1") > 0);
        case.proxy().set(Weather::Pass);
        case.all_arrived();
    }
    case.server.crash();
    case.post_round("crashed");
    case.eventually("a change waits", |case| case.outbox("standing = 1") > 0);
    case.server.start_again();
    case.all_arrived();
}

/// The receiver is killed with changes on their way, and some of them stuck.
fn restart<K: Kind>(case: &mut Case<'_, K>) {
    for round in ["a", "b", "c"] {
        case.post_round(round);
        case.restart_receiver();
    }
    if case.proxy.is_some() {
        case.proxy().set(Weather::Stall);
        case.post_round("stuck");
        case.receiver().settled();
        case.restart_receiver();
        case.proxy().set(Weather::Pass);
    }
    case.all_arrived();
}

/// One receiver with one sink, and the destination behind it.
struct Case<'s, K> {
    server: &'s mut K,
    name: &'static str,
    setup: Setup,
    receiver: Option<Receiptd>,
    proxy: Option<Proxy>,
    /// Ids of changes that must not arrive.
    parked: BTreeSet<String>,
}

/// A change that must arrive.
#[derive(Clone, Debug)]
struct Expected {
    id: String,
    status: String,
    previous: Option<String>,
}

impl<'s, K: Kind> Case<'s, K> {
    fn new(server: &'s mut K, name: &'static str) -> Self {
        let kind = K::TYPE;
        #[expect(clippy::print_stderr, reason = "shown with the failure of a test")]
        {
            eprintln!("{kind}: {name}");
        }
        server.fresh(name);
        let proxy = server.address().map(Proxy::to);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let lines = server.lines(proxy.as_ref().map_or(nowhere, Proxy::address));
        let mut setup = Setup::new();
        setup.sources.push_str(&format!(
            "[[sink]]\nname = \"suite\"\ntype = \"{kind}\"\nattempt_ms_max = 2000\n\
             backoff_ms_min = 20\nbackoff_ms_max = 200\n{lines}\n"
        ));
        let receiver = Some(setup.start());
        Self { server, name, setup, receiver, proxy, parked: BTreeSet::new() }
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("there is a network between")
    }

    fn receiver(&self) -> &Receiptd {
        self.receiver.as_ref().expect("it runs")
    }

    /// `kill -9`, and a new process on the same files.
    fn restart_receiver(&mut self) {
        self.receiver.take().expect("it runs").kill();
        self.receiver = Some(self.setup.start());
    }

    fn id(&self, round: &str, notification: usize) -> String {
        format!("{}-{round}-{notification:03}", self.name)
    }

    /// The statuses of several notifications, one status after the other.
    fn post_round(&self, round: &str) {
        let mut client = self.receiver().connect();
        for (status, completed_at) in STATUSES {
            for notification in 0..NOTIFICATIONS {
                let id = self.id(round, notification);
                let request = post(PATH, TOKEN, receipt_of(&id, status, completed_at));
                assert_eq!(client.ask(request).status, 204, "{}", self.receiver().stderr());
            }
        }
    }

    fn state(&self) -> Connection {
        open(&self.setup.state())
    }

    /// Rows of the outbox of which that is so.
    fn outbox(&self, filter: &str) -> usize {
        let sql = format!("SELECT count(*) FROM outbox_row WHERE {filter}");
        let count: i64 = self.state().query_row(&sql, [], |row| row.get(0)).unwrap();
        usize::try_from(count).unwrap()
    }

    fn eventually(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let held = holds_within(DELIVERY, || is_so(self));
        assert!(held, "{}: not within {DELIVERY:?}: {what}\n{}", self.name, self.describe());
    }

    fn describe(&self) -> String {
        let sql = "SELECT standing, attempts, error, count(*) FROM outbox_row GROUP BY 1, 2, 3";
        format!("{:#?}\n{}", rows(&self.state(), sql), self.receiver().stderr())
    }

    /// What the history says, by notification, in order: every status posted is newer than the one
    /// before, so each made a change.
    fn expected(&self) -> BTreeMap<String, Vec<Expected>> {
        let state = self.state();
        let mut statement = state
            .prepare(
                "SELECT n.id, h.fingerprint, h.status FROM history_row AS h
                 JOIN notification_row AS n ON n.key = h.subject ORDER BY h.seq, h.event",
            )
            .unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, Fingerprint(row.get(1)?), row.get(2)?)))
            .unwrap();
        let mut all: BTreeMap<String, Vec<Expected>> = BTreeMap::new();
        for (subject, cause, status) in rows.map(Result::<(String, _, String), _>::unwrap) {
            let id = ChangeId::of(What::Status, SOURCE, &subject, cause).to_string();
            let changes = all.entry(subject).or_default();
            let previous = changes.last().map(|change| change.status.clone());
            changes.push(Expected { id, status, previous });
        }
        all
    }

    /// Waits until nothing is owed any more, and compares what is held with the history.
    fn all_arrived(&mut self) {
        self.receiver().settled();
        self.eventually("all is sent", |case| case.outbox("standing != 3") == 0);
        let expected = self.expected();
        assert!(expected.values().all(|changes| changes.len() == STATUSES.len()), "{expected:?}");
        // A server may show an accepted event a little later than it accepts it.
        let owed: BTreeSet<String> = expected
            .values()
            .flatten()
            .map(|change| change.id.clone())
            .filter(|id| !self.parked.contains(id))
            .collect();
        match K::KEEPS {
            Keeps::Events => {
                holds_within(PATIENCE, || {
                    let held: BTreeSet<String> =
                        self.server.held().into_iter().map(|held| held.id).collect();
                    held.is_superset(&owed)
                });
                let held = self.server.held();
                let ids: BTreeSet<String> = held.iter().map(|held| held.id.clone()).collect();
                let missing: Vec<&String> = owed.difference(&ids).collect();
                let unowed: Vec<&String> = ids.difference(&owed).collect();
                let what = format!("{}: every change, no other", self.name);
                assert!(missing.is_empty() && unowed.is_empty(), "{what}: {missing:?} {unowed:?}");
                self.assert_events(&expected, &held);
            }
            Keeps::States => self.assert_states(&expected),
        }
    }

    /// Order within each notification, equal repeats, and what the data says.
    fn assert_events(&self, expected: &BTreeMap<String, Vec<Expected>>, held: &[Held]) {
        for (subject, changes) in expected {
            let of_it: Vec<&Held> = held.iter().filter(|held| held.subject == *subject).collect();
            let wanted: Vec<&Expected> =
                changes.iter().filter(|change| !self.parked.contains(&change.id)).collect();
            let ids: Vec<&str> = of_it.iter().map(|held| &*held.id).collect();
            let in_order: Vec<&str> = wanted.iter().map(|change| &*change.id).collect();
            let first = without_repeats(ids.iter().copied());
            assert_eq!(first, in_order, "{subject}: in order when first sent: {ids:?}");
            let mut last = without_repeats(ids.iter().rev().copied());
            last.reverse();
            assert_eq!(last, in_order, "{subject}: a repeat overtook a newer one: {ids:?}");
            for change in wanted {
                let mut all = of_it.iter().filter(|held| held.id == change.id);
                let data = &all.next().expect("it is held").data;
                assert!(all.all(|held| held.data == *data), "{subject}: repeats are equal");
                assert_eq!(data["id"], *subject);
                assert_eq!(data["status"], *change.status);
                let previous = data["previous"]["status"].as_str();
                assert_eq!(previous, change.previous.as_deref(), "{subject}");
            }
            if let Some(last) = of_it.last() {
                self.assert_is_the_row(subject, &last.data);
            }
        }
    }

    fn assert_states(&mut self, expected: &BTreeMap<String, Vec<Expected>>) {
        let held = self.server.held();
        let subjects: BTreeSet<&String> = held.iter().map(|held| &held.subject).collect();
        assert_eq!(subjects.len(), held.len(), "one row each");
        let wanted = expected.iter().filter(|(_, changes)| {
            changes.last().is_some_and(|change| !self.parked.contains(&change.id))
        });
        assert_eq!(subjects, wanted.map(|(subject, _)| subject).collect(), "{}", self.name);
        for state in &held {
            self.assert_is_the_row(&state.subject, &state.data);
        }
    }

    /// Every column of the public table that the data has too is equal there.
    fn assert_is_the_row(&self, subject: &str, data: &Value) {
        let state = self.state();
        let columns = [
            "source",
            "id",
            "status",
            "reference",
            "recipient",
            "notification_type",
            "created_at",
            "sent_at",
            "completed_at",
            "first_received_at",
            "last_received_at",
        ];
        for column in columns {
            let sql = format!("SELECT {column} FROM notification WHERE id = ?1");
            let value: Option<String> = state.query_row(&sql, [subject], |row| row.get(0)).unwrap();
            assert_eq!(data[column].as_str(), value.as_deref(), "{subject}: {column}");
        }
    }

    fn assert_no_repeats(&mut self) {
        let held = self.server.held();
        let ids: BTreeSet<&String> = held.iter().map(|held| &held.id).collect();
        let is_so = K::KEEPS == Keeps::States || ids.len() == held.len();
        assert!(is_so, "{}: a change came twice though nothing went wrong", self.name);
    }
}

fn without_repeats<'t>(ids: impl Iterator<Item = &'t str>) -> Vec<&'t str> {
    let mut seen = BTreeSet::new();
    ids.filter(|id| seen.insert(*id)).collect()
}
