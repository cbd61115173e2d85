//! The sender: callbacks over real connections that stay open, every 2xx written down when it is
//! read, whatever was not acknowledged sent again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ledger::{Body, Ledger};
use super::support::{Client, PATH, TOKEN, post};

/// The pause of a connection that was refused or got a 503.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the whole of what is owed may take to be acknowledged by a receiver that is well.
const FINISH_MAX: Duration = Duration::from_secs(60);

/// A sender at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Sends as fast as it is answered, on that many connections.
    pub fn start(ledger: &Arc<Ledger>, receiver: SocketAddr, connections: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..connections).map(|_| {
            let (ledger, stop) = (Arc::clone(ledger), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut connection = Connection::to(receiver);
                while !stop.load(Ordering::Relaxed) {
                    connection.deliver(&ledger, ledger.next());
                }
            })
        });
        Self { threads: threads.collect(), stop }
    }

    /// Ends it; what was on its way is owed again.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a sender does not panic");
        }
    }
}

/// Waits until that many more were acknowledged; whether they were in time.
pub fn wait_for(ledger: &Ledger, acknowledged: usize, patience: Duration) -> bool {
    let (end, deadline) = (ledger.mark() + acknowledged, Instant::now() + patience);
    while ledger.mark() < end {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    true
}

/// Sends what is owed until all of it is acknowledged.
pub fn finish(ledger: &Arc<Ledger>, receiver: SocketAddr) -> Result<(), String> {
    let deadline = Instant::now() + FINISH_MAX;
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let ledger = Arc::clone(ledger);
            std::thread::spawn(move || {
                let mut connection = Connection::to(receiver);
                while let Some(body) = ledger.next_owed() {
                    if Instant::now() > deadline {
                        ledger.unanswered(body);
                        return false;
                    }
                    connection.deliver(&ledger, body);
                }
                true
            })
        })
        .collect();
    let finished = workers.into_iter().map(|worker| worker.join().unwrap_or(false));
    match finished.filter(|is_done| !is_done).count() {
        0 => Ok(()),
        _ => Err("what was owed after the restart was not taken within a minute".to_owned()),
    }
}

/// One connection, opened again when it ends.
pub struct Connection {
    receiver: SocketAddr,
    client: Option<Client>,
}

impl Connection {
    /// To that receiver; opened when it is needed.
    pub fn to(receiver: SocketAddr) -> Self {
        Self { receiver, client: None }
    }

    /// Sends one callback and writes down what came back.
    pub fn deliver(&mut self, ledger: &Ledger, body: Body) {
        match self.post(&body) {
            Some(status) => {
                ledger.answered(body, status);
                if !(200..300).contains(&status) {
                    std::thread::sleep(PAUSE);
                }
            }
            None => {
                ledger.unanswered(body);
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// The status it is answered with; nothing if the connection ends first.
    pub fn post(&mut self, body: &[u8]) -> Option<u16> {
        let mut client = self.client.take().or_else(|| Client::try_connect(self.receiver).ok())?;
        client.try_send(post(PATH, TOKEN, body)).ok()?;
        let answer = client.try_answer().ok().flatten()?;
        let stays =
            !answer.headers.iter().any(|(name, value)| name == "connection" && value == "close");
        self.client = stays.then_some(client);
        Some(answer.status)
    }
}
