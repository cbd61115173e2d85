//! receiptd: receive, settle, keep, forward.
//!
//! This is the architecture page: what the program is, where things are, and what must never become
//! untrue. How to set it up and run it stands in `README.md`; every setting, with its reason, in
//! `config/receiptd.toml`.
//!
//! # Bird's eye
//!
//! GC Notify, GOV.UK Notify, their relatives and Adobe Journey Optimizer tell an app by callback
//! what became of the messages it sent. A callback answered wrongly is lost for good, callbacks
//! arrive late, twice and out of order, and none of them says which is the last word. receiptd
//! stands beside the app, keeps each callback before it answers, and works out behind the answer
//! what is true; and hands what changes on to where the app wants it.
//!
//! Two halves that meet only in one file:
//!
//! ```text
//!            the sender waits for this                    this comes after
//!   ┌──────────────────────────────────────┐   ┌─────────────────────────────────────┐
//!   listener → limits → source by path         cursor → recognise and parse → merge
//!     → authenticate → append, fsync → 204       → state, history, cursor: one commit
//!   └──────────────────┬───────────────────┘   └──────────────────┬──────────────────┘
//!            receiptd.callbacks.db ────────────────────→ receiptd.db
//!            the journal: the truth                      the state: what people read
//!                                                           and the outbox ──→ sinks
//! ```
//!
//! So the answer depends on two things only: who is calling, and whether the bytes are safe. A body
//! that cannot be parsed, a bug in merging, a slow or damaged state file neither lose a callback nor
//! delay its answer, and what a later version understands better is settled again from the journal.
//! It is also several times faster than updating the state before the answer: an append dirties one
//! page at the end of a file, an update a random one.
//!
//! # The map
//!
//! The modules below stand in the order in which a callback meets them.
//!
//! | room | what it does | what it does not know |
//! |---|---|---|
//! | [`clock`] | the only place that reads the time; a [`clock::Timestamp`] is an instant in UTC | |
//! | [`callback`] | our nouns: callback, event, receipt, standing, precedence | I/O, providers |
//! | [`ends`] | which statuses are ends, as a value that [`provider`] fills and the state asks by | I/O, providers, tables |
//! | [`receive`] | the front door: listener, TLS, limits, authentication, the answer table | what a callback says, but for the probe and a signature that covers the body |
//! | [`journal`] | appends callbacks on one thread, commits many at once, notices full and failing disks | what a callback says |
//! | [`provider`] | turns a sender's bytes into events, or says why it cannot | SQL, HTTP |
//! | [`merge`] | joins what is reported of one notification | I/O, the clock, providers |
//! | [`change`] | what settling altered, as a sink is told: its id, its data, who wants to hear of it | I/O, the clock, providers |
//! | [`settle`] | follows the journal from a cursor and writes the state and what is owed; prunes; rebuilds | HTTP, who is calling |
//! | [`state`] | the public tables, their migrations, every `SELECT` and `INSERT` on them | providers, what a status means |
//! | [`forward`] | sends what is owed to sinks: order, back-off, breaker, parking; one file a kind of sink | providers, who is calling |
//! | [`reconcile`] | asks platforms for what they never called back about, and appends what is news | who is calling, sinks, what a status means |
//! | [`lookout`] | counts once a minute what should have come and has not, and says in the journal what is newly overdue | who is calling, sinks |
//! | [`relay`] | in place of both files: passes each callback on to sinks before it is answered | who is calling |
//! | [`sqlite`] | what both files have in common: opening, migrating, checkpoints, the meaning of errors | tables |
//! | [`api`] | the admin listener: health, metrics, the settled barrier; on request it prunes, changes the outbox, keeps what a platform told | what a callback says |
//! | [`ask`] | the read API on that listener: who is asking, what for, the platforms' JSON and errors | what a callback says, sinks |
//! | [`halves`] | starts and stops journal and settling together | |
//! | [`receiver`] | starts, stops and wires all of it; the one place that knows every room | |
//! | [`embedded`] | what an app's integration test needs beside that: start in a folder, post, read | |
//! | [`client`] | the HTTP client of `replay --to`, `prune`, `healthcheck` and tests; never used while serving | the database |
//! | [`admission`] | how one who comes when all places are taken waits for one | who makes room |
//! | [`lock`] | one process for each database, and only where locks hold | |
//! | [`background`] | how a thread steps back for receiving | |
//! | [`shutdown`] | signals as futures | |
//! | [`replay`] | fixtures to settled notifications in memory, for tests and `receiptd replay` | |
//! | [`sender`] | how each platform behaves: limits, retries, what an answer costs | I/O, the clock |
//! | [`simulate`] | is such a sender: lives of messages by chance, sent over sockets, and the truth about them | how the receiver merges |
//! | [`doctor`] | what a sender would lose at a receiver, any receiver, and how to mend it | what a receiver keeps |
//! | [`config`] | defaults < file < environment < flags, all problems at once; the only place that reads the environment | |
//! | [`telemetry`] | logs and metrics | |
//! | [`cli`] | one file a command; the only room that prints | |
//!
//! `tests/` holds the system: `tests/fixtures/<provider>/<case>/` are callbacks as they come on the
//! wire with the state they must come to; `tests/tidy.rs` holds what a room must not know, and
//! `tests/readme.rs` holds the README to its word.
//!
//! # Threads
//!
//! One thread for every socket and timer of callers (tokio, current-thread). One thread writes the
//! journal, one the state, one each checkpoints them. With sinks, one more sends to all of them, and with
//! upstreams one more asks all of those, each on a runtime of its own. Once somebody asks, four read the
//! state. The threads of the two files never wait for each other's
//! lock. Whoever wants to change a file from elsewhere hands work to its thread
//! ([`journal::Journal::on_writer`], [`settle::OnThread`]).
//!
//! # Invariants
//!
//! 1. No 2xx leaves before the transaction that holds the callback's bytes is committed with
//!    `synchronous=FULL`. The one exception is the reachability probe, which is not kept at all.
//! 2. Nothing after the append can fail, delay or alter an answer. `receive` never reads the state,
//!    and nothing it does waits for settling. The one exception: what a full disk refuses is looked
//!    up in the history, and answered 204 if it is there.
//! 3. Each file has one thread that writes it, on its only connection that does. Nobody else opens a
//!    database file for writing while that runs; nothing ever opens one outside SQLite.
//! 4. What is our fault or might pass is answered 503: never a 4xx, because senders drop what was
//!    answered so; never a redirect, because they follow it without the body.
//! 5. The journal never loses or changes a callback: it appends, and `prune` removes from its start
//!    what is settled, after folding what it came to into tables of the same file.
//! 6. The state never holds what the journal cannot give back, but for the key that cursors are sealed
//!    with. It may be deleted at any time; then those who follow changes begin again.
//! 7. [`merge::Facts::join`] does not depend on order, repetition or batches, and cannot fail. Nothing
//!    else decides between two receipts.
//! 8. State, history, cursor and what is owed to sinks by a callback commit together or not at all.
//! 9. Settling is deterministic: no clock, no chance, no configuration but what the journal remembers
//!    of its sources, and which sinks want to hear of what. The same callback gives the same change
//!    with the same id. One kind of change depends on the clock, `overdue`: it is [`lookout`] that looks
//!    at it, and says so by an entry of the journal, from which settling is as deterministic as from any.
//! 10. An authentic callback is never refused for what it says. What is not understood is kept, with
//!     a reason that holds none of its values.
//! 11. Authentication comes before the body is polled, with one exception: a signature over the body
//!     can only be checked once that is there, within the same bounds.
//! 12. Every queue, body, batch and wait has a bound with a name. A full queue is a 503.
//! 13. Tokens, bodies, addresses, numbers and texts of messages reach no log, no error, no metric
//!     label and no path of a file. Their columns in the database are the only place they stand.
//! 14. A change is owed to a sink until the sink has accepted it, somebody discards it, or, where only
//!     the latest is wanted, a newer one of the same notification is owed too. Changes of one
//!     notification are under way one at a time, in the order in which they were settled. Nothing a
//!     sink does reaches an answer, readiness or another sink; only where nothing is kept do sinks
//!     decide the answer.
//! 15. After an I/O error on the journal nothing more is acknowledged by this process: SQLite would
//!     report success for pages that are gone.
//!
//! # One callback
//!
//! [`receive::server`] accepts a connection and finds it a place; if all are taken, the longest silent
//! caller makes room, strangers first, never one that is being served. [`receive::request`] refuses what a proxy could read differently, finds the source
//! by its path, and asks [`receive::authenticate`] about the head: every configured digest is
//! compared, in constant time. Only then is the body read, within its length and its time.
//! [`journal::Journal::append`] puts it in a bounded queue and gives back something to wait on. The
//! journal's thread takes whatever has gathered, inserts it, commits once, and tells all of them;
//! each is answered 204 by the one table in [`receive::answer`]. A caller that hangs up meanwhile
//! changes nothing: the queue owns the bytes.
//!
//! The commit wakes the settling thread. It reads the batch after its cursor, lets
//! [`provider::read`] make events of each body, groups these by whom they are about, drops repeats
//! into the count of duplicates, joins the others ([`merge`]), and writes notifications, messages,
//! history and cursor in one transaction. Whoever waits at `/settled` is told.
//!
//! # One question
//!
//! [`api`] hands what is asked under `/v2` and `/v1` to [`ask`]. Its readers are told apart by what they
//! show, each key tried whatever service is claimed; each source has a share of every kind of place. The
//! question then waits until everything acknowledged before it is settled, or is answered 503; is read on
//! one of a few read-only connections, in one transaction that SQLite itself ends after a second, and behind
//! a gap if the state's write-ahead log has become long; and is answered in the platform's JSON.
//! Lists are ranges of indexes ([`state::asked`]) that are made, on the settling thread, when the first
//! reader is configured, so that who does not read does not pay for them. Whoever follows changes does so
//! by positions in the journal ([`state::feed`]), and between two looks holds nothing but a place; outside they
//! are sealed ([`ask::cursor`]), and good for as long as they mean the same ([`state::epoch`]). What an app
//! says it sent is no question: it goes through the journal's queue, as an entry whose `origin` says so
//! ([`settle::expect`]), and is answered once it is durable.
//!
//! # One change
//!
//! What an event altered becomes a [`change::Change`], with an id made from the event, and is written
//! into the outbox ([`state::outbox`]) by the transaction that settles it, one row for each sink whose
//! filter lets it pass. That a batch is committed wakes each [`forward::dispatcher`]. It reads the rows
//! behind those it has taken, keeps what belongs to one notification in line ([`forward::window`]), and
//! sends many at once, each as a CloudEvents event ([`forward::event`]) by the sink's own protocol
//! ([`forward::sink`]). What became of them is handed to the settling thread, which removes the rows, or
//! notes when to try again, or parks them.
//!
//! # One deadline that passed
//!
//! An app said what it sent, and until when it wants to hear of the end. Of sources of which a sink wants
//! it, [`lookout`] finds once a minute what has passed its deadline without one, after everything
//! acknowledged is settled, and appends an entry for each ([`settle::say_overdue`]). Settling makes a change of the first entry about
//! a notification and notes that in the same transaction, so it is told once: over a crash, a rebuild and
//! pruning too. Its key is behind everything settled before it.
//!
//! # One sink outage
//!
//! The first failures make their rows wait, each with a pause of its own, and what is behind them of
//! the same notifications is held. After five in a row the breaker opens ([`forward::breaker`]): nothing
//! more is read or sent, what is owed grows in the file and nowhere else, callbacks are answered as
//! ever. Every half a minute at most one change is tried. Once one is taken the rest follows, in order.
//! A crash meanwhile loses nothing: what was sent and not recorded is sent again, under the same ids.
//!
//! A sink that says it is gone is sent nothing until the next start: its row waits with the reason
//! ([`forward::fate`]), what is behind it stays fresh, and the breaker's gauge says that it has stopped.
//!
//! # One receipt that never came
//!
//! A [`reconcile::round`] asks the platform of a source: for notifications that have not come to an end,
//! by id, then for its newest pages ([`reconcile::scan`]). Each answer is joined to what the state knows
//! of its notification ([`reconcile::known`]); what that changes goes through the journal's queue, behind
//! callbacks, as an entry whose `origin` says that it was polled. From there it is settled like any other,
//! but read by [`provider::polled`]: its version is that of the row, as a callback's is, so neither can
//! undo what is later. If the callback comes after all, it says what is known, and wins without changing
//! the status.
//!
//! # Keeping nothing
//!
//! With `store.kind = "none"` there is neither journal nor state. [`relay`] understands a callback at
//! once, makes the changes that it brings about by itself, and it is answered 2xx only when every sink
//! that wants them has accepted them. Who has what came before is then behind the sinks.
//!
//! # One crash
//!
//! Killed between the commit and the answer: the callback is in the journal, the sender has no answer
//! and sends it again; it is identical, so it counts as a duplicate and changes nothing. Killed
//! between the answer and settling: the cursor in the state still points before it, and the next
//! start goes on from there. Power cut: the journal is synced at each commit and keeps everything
//! acknowledged; the state is not, may fall back to an earlier cursor, and settles the rest again to
//! the same rows. State file damaged or gone: it is set aside, not deleted, and settled again from
//! the journal, while callbacks are received. The lock is the kernel's and ends with the process, so
//! nothing needs cleaning up by hand.
//!
//! # One full disk
//!
//! Before each commit, and twice a second when idle, the journal's thread looks at the free space.
//! Below `store.free_bytes_min` every callback is answered 503 and `/readyz` says no: senders keep
//! what they have and come again. Only a repeat of a callback that is settled, and so on the disk, is
//! answered 204 ([`settle::Known`]): refused until its sender gives up, it could get all callbacks
//! suspended. The thread then moves the write-ahead log into the file and cuts
//! it; if even that lacks room it gives back the reserve that stands preallocated beside the journal.
//! Once there is space for the minimum and the reserve, callbacks are accepted again, without a
//! restart. Should the disk fill up in spite of that, the commit fails as a whole, its callers hear
//! 503, and what was acknowledged before stays. The settling thread, on the same disk, tries again
//! once a second and answers nobody. What is pruned leaves the files as large as they were; the journal's
//! pages that it gave back count as space, as long as half of the minimum is free beside them.
//!
//! # One bad disk
//!
//! An I/O error, or damage, that anything on the journal's writing connection meets, or a checkpoint of
//! it, latches it: the callers of a commit that was under way and all after them hear 503, readiness goes, and the process ends with code 74 after a short
//! drain. What was acknowledged was synced before. A supervisor starts it anew, and the new process
//! finds out whether the disk is well.

pub use provider::Provider;
pub use receiver::Receiver;

pub mod clock;

pub mod callback;

pub mod ends;

pub mod receive;

pub mod journal;

pub mod provider;

pub mod merge;

pub mod change;

pub mod settle;

pub mod state;

pub mod forward;

pub mod reconcile;

pub mod lookout;

pub mod relay;

pub mod sqlite;

pub mod api;

pub mod ask;

pub mod receiver;

pub mod halves;

pub mod embedded;

pub mod admission;

pub mod client;

pub mod lock;

pub mod background;

pub mod shutdown;

pub mod replay;

pub mod sender;

pub mod simulate;

pub mod doctor;

pub mod config;

pub mod telemetry;

pub mod cli;
