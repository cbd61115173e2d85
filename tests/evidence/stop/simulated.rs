//! Stops as the platforms see them: `receiptd simulate` is at work as one that keeps its connections
//! and as one that opens one for each callback when SIGTERM comes, and the receiver is back at the
//! same address as soon as it has gone. An upgrade, that is. The senders come again by their own
//! rules; in the end nothing may have been given up, and every final state must be right.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use rustix::process::Signal;

use super::super::platform::{self, HABITS, Platform};
use super::super::support::{Receiptd, Setup, holds_within, metric};
use super::{EXIT_MAX, Seen};

/// Messages of each sender in a second; some of them have several callbacks.
const RATE: u32 = 100;

/// How long messages begin.
const LASTS: Duration = Duration::from_secs(3);

/// How fast the platforms' time runs: GOV.UK Notify then tries for 5 seconds, GC Notify for 5 or
/// more, which an outage of a second must not exhaust.
const SPEEDS: [u32; 2] = [300, 30];

/// A round of it.
pub fn round(number: u32, seed: u64, chance: &mut ChaCha8Rng) -> Seen {
    let setup = Setup::with_sources(&platform::sources());
    let mut server = setup.start();
    let mut senders = Vec::new();
    for (name, speed) in HABITS.into_iter().zip(SPEEDS) {
        let arguments = [
            format!("--rate={RATE}"),
            format!("--duration={}ms", LASTS.as_millis()),
            format!("--speed={speed}"),
            format!("--seed={}", seed.wrapping_mul(10_000) + u64::from(number)),
        ];
        senders.push(Platform::start(server.callbacks, name, Some(&setup.state()), &arguments));
    }
    let mut seen = Seen { simulated_stops: 1, ..Seen::default() };
    let are_at_work = holds_within(Duration::from_secs(10), || {
        let page = server.metrics();
        HABITS.iter().all(|name| {
            let series = format!("receiptd_callbacks_total{{source=\"{name}\",code=\"204\"}}");
            metric(&page, &series) >= Some(5.0)
        })
    });
    if !are_at_work {
        seen.problems.push(format!("round {number}: the simulated senders did not begin"));
    }
    std::thread::sleep(Duration::from_millis(chance.random_range(0..1_000)));
    let address = server.callbacks;
    let at = Instant::now();
    server.signal(Signal::TERM);
    let code = server.wait(EXIT_MAX * 2);
    seen.slowest_exit = at.elapsed();
    if code != Some(0) || seen.slowest_exit > EXIT_MAX {
        seen.bad_exits = 1;
        seen.problems.push(format!("round {number}: exit {code:?} after {:?}", seen.slowest_exit));
    }
    let config = setup.path("receiptd.toml");
    let server = Receiptd::start(setup.folder.path(), |command| {
        command.arg("--config").arg(config).arg("--listen").arg(address.to_string());
    });
    for sender in senders {
        seen.hear(number, sender);
    }
    server.stop();
    seen
}

impl Seen {
    fn hear(&mut self, number: u32, sender: Platform) {
        let told = match sender.end() {
            Ok(told) => told,
            Err(why) => return self.problems.push(format!("round {number}: {why}")),
        };
        self.acknowledged += told.acknowledged();
        self.simulated += told.callbacks;
        self.sent_again += told.failures();
        self.lost += told.lost() + told.wrong();
        // What was sent again and then acknowledged is no problem: that is what an outage costs.
        if told.lost() + told.wrong() > 0 {
            self.problems.push(format!("round {number}, simulated: {}", told.what_failed()));
        }
    }
}
