//! A receiver that can be killed, filled up and upgraded, and that always comes back to the same
//! files.
//!
//! It is the whole of [`Receiver`], over loopback sockets, on a clock wound by hand. A kill drops
//! the runtime under it: no task of it runs another step, no connection is heard again. The
//! threads of its files then end by themselves; the next start waits until they have let go.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use receiptd::Receiver;
use receiptd::client::{self, Client, Options, Target};
use receiptd::clock::{Clock, Timestamp};
use receiptd::config::{self, Flags, Layers, Settings};
use receiptd::journal::SCHEMA;
use receiptd::provider::Provider;
use receiptd::receiver::StartError;
use receiptd::sender::Outcome;
use receiptd::sqlite::{self, Access};
use receiptd::state::read::Reader;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// The one source.
pub const SOURCE: &str = "service";

const TOKEN: &str = "a-bearer-for-ten-thousand-outages";

/// More free space than any disk has.
const NEVER_ENOUGH_BYTES: u64 = 1 << 60;

/// How long the threads of a dropped receiver may take to let go of its files.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder, and the receiver that may run on it.
pub struct Place {
    folder: TempDir,
    settings: Settings,
    up: Option<Up>,
}

struct Up {
    // Dropped first, and outside of the runtime.
    receiver: Receiver,
    runtime: Runtime,
    clock: Clock,
    url: String,
}

impl Place {
    /// An empty folder, nothing running.
    pub fn new(provider: Provider) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let flags = Flags {
            listen: Some("127.0.0.1:0".to_owned()),
            admin_listen: Some("127.0.0.1:0".to_owned()),
            sources: vec![format!("{SOURCE}={provider}")],
            token_sha256: vec![data_encoding::HEXLOWER.encode(&Sha256::digest(TOKEN))],
            ..Flags::default()
        };
        let layers = Layers::new(None, Vec::new(), flags);
        let mut settings =
            config::load(&layers, Clock::system().now()).expect("valid settings").settings;
        settings.store.path = folder.path().join("receiptd.db");
        settings.store.free_bytes_min = 0;
        settings.store.reserve_bytes = 0;
        Self { folder, settings, up: None }
    }

    /// Starts it, at that time by its clock. `is_full`: with less free space than it asks for.
    pub fn start(&mut self, now: Timestamp, is_full: bool) {
        let mut settings = self.settings.clone();
        if is_full {
            settings.store.free_bytes_min = NEVER_ENOUGH_BYTES;
        }
        let clock = Clock::by_hand(now);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let deadline = Instant::now() + PATIENCE;
        let receiver = loop {
            match runtime.block_on(Receiver::start(settings.clone(), clock.clone())) {
                Ok(receiver) => break receiver,
                Err(StartError::Lock(_)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(error) => panic!("the receiver did not start: {error}"),
            }
        };
        let url = receiver.callback_url(SOURCE).expect("the source is configured");
        self.up = Some(Up { receiver, runtime, clock, url });
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// Winds its clock.
    pub fn wind(&self, now: Timestamp) {
        let Some(up) = &self.up else { return };
        let micros = now.unix_micros() - up.clock.now().unix_micros();
        up.clock.advance_seconds(micros / 1_000_000);
    }

    /// Posts these bodies at once, a connection for each, and hears every answer.
    pub fn post(&self, bodies: &[Bytes]) -> Vec<Outcome> {
        let Some(up) = &self.up else { return vec![Outcome::NoAnswer; bodies.len()] };
        up.runtime.block_on(async {
            let mut posts = post_each(&up.url, bodies);
            let mut outcomes = vec![Outcome::NoAnswer; bodies.len()];
            while let Some(done) = posts.join_next().await {
                let (at, outcome) = done.expect("posting does not panic");
                outcomes[at] = outcome;
            }
            outcomes
        })
    }

    /// Posts these bodies and kills the receiver after `steps` steps of its runtime: some are not
    /// even read then, some are committed without an answer, some are answered.
    pub fn kill_while_posting(&mut self, bodies: &[Bytes], steps: u32) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::NoAnswer; bodies.len()];
        let Some(up) = self.up.take() else { return outcomes };
        up.runtime.block_on(async {
            let mut posts = post_each(&up.url, bodies);
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
            while let Some(done) = posts.try_join_next() {
                let (at, outcome) = done.expect("posting does not panic");
                outcomes[at] = outcome;
            }
        });
        outcomes
    }

    /// Posts these bodies and asks the receiver to stop meanwhile.
    pub fn stop_while_posting(&mut self, bodies: &[Bytes], steps: u32) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::NoAnswer; bodies.len()];
        let Some(up) = self.up.take() else { return outcomes };
        up.runtime.block_on(async {
            let mut posts = post_each(&up.url, bodies);
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
            up.receiver.stop().await;
            while let Some(done) = posts.join_next().await {
                let (at, outcome) = done.expect("posting does not panic");
                outcomes[at] = outcome;
            }
        });
        outcomes
    }

    /// Takes the state away, as somebody may who upgrades: it must come back from the journal. Only
    /// while nothing runs.
    pub fn forget_state(&self) {
        assert!(!self.is_up(), "the state is taken away only while nobody has it open");
        // The threads of a receiver that was dropped may still have it.
        let deadline = Instant::now() + PATIENCE;
        let lock = loop {
            match receiptd::lock::Lock::acquire(&self.settings.store.path) {
                Ok(lock) => break lock,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(self.folder.path().join(format!("receiptd.db{suffix}")));
        }
        drop(lock);
    }

    /// What it has settled, once everything acknowledged is.
    pub fn settled(&self) -> Reader {
        let up = self.up.as_ref().expect("it runs");
        up.runtime.block_on(up.receiver.settled());
        Reader::open(&self.settings.store.path).expect("the state can be read")
    }

    /// Every body in the journal.
    pub fn kept(&self) -> Vec<Vec<u8>> {
        let path: PathBuf = self.settings.store.journal_path();
        let journal = sqlite::open(&path, &SCHEMA, Access::Read).expect("the journal can be read");
        let mut rows = journal.prepare("SELECT body FROM callback").expect("a journal");
        let bodies = rows.query_map([], |row| row.get(0)).expect("bodies");
        bodies.map(|body| body.expect("a body")).collect()
    }
}

fn post_each(url: &str, bodies: &[Bytes]) -> JoinSet<(usize, Outcome)> {
    let url: Arc<str> = Arc::from(url);
    let mut posts = JoinSet::new();
    for (at, body) in bodies.iter().cloned().enumerate() {
        let url = Arc::clone(&url);
        posts.spawn(async move { (at, post(&url, body).await) });
    }
    posts
}

async fn post(url: &str, body: Bytes) -> Outcome {
    let target = Target::parse(url).expect("an address of loopback");
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, client::bearer(TOKEN).expect("a header"));
    let mut client = Client::new(target, Options::default()).expect("no TLS");
    match client.post(headers, body).await {
        Ok(answer) => Outcome::Answered(answer.code),
        Err(_) => Outcome::NoAnswer,
    }
}
