//! Of which sources something is expected while they are silent, by looks whose time is wound by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use receiptd::clock::{Clock, Timestamp};
use receiptd::config::{self, Layers};
use receiptd::halves::Halves;
use receiptd::lock::Lock;
use receiptd::lookout::Lookout;
use receiptd::telemetry::{Metrics, Snapshot};

use crate::call_back;
use crate::expected::{said, say};
use crate::platform::{Row, ago};
use crate::support::{SOURCE, Setup, metric};

/// Whether the source is silent, as one look tells in a process that began then.
async fn is_silent(lookout: &Lookout, started: Timestamp) -> bool {
    let (look, metrics) = (lookout.clone(), Arc::clone(&lookout.metrics));
    tokio::task::spawn_blocking(move || look.look(started).unwrap()).await.unwrap();
    let series = format!("receiptd_expected_silent{{source=\"{SOURCE}\"}}");
    metric(&metrics.page(&Snapshot::default()), &series).unwrap() > 0.5
}

#[tokio::test]
async fn a_silence_that_began_before_a_restart_is_seen_after_it_until_the_source_speaks_or_is_gone()
{
    let setup = Setup::new();
    let server = setup.start();
    call_back(&server, &Row::new(1, "delivered", 100).callback());
    server.stop();
    // Sent a second after the last callback.
    say(&setup, ago(-1), &said(2, ago(-9 * 86_400)));
    let layers = Layers { file: Some(setup.write()), ..Layers::default() };
    let clock = Clock::by_hand(ago(-3_600));
    let settings = config::load(&layers, clock.now()).unwrap().settings;
    let metrics = Arc::new(Metrics::new());
    let lock = Arc::new(Lock::acquire(&setup.state()).unwrap());
    let halves = Halves::start(&settings, &clock, &metrics, &lock).unwrap();
    let source = metrics.source(SOURCE);
    halves.recall(&settings.sources, &metrics);
    halves.settled.reaches(halves.journal.progress().committed()).await;
    let (lookout, started) = (halves.lookout(&settings, &clock, &metrics), clock.now());
    assert!(!is_silent(&lookout, started).await, "senders may still come again");
    clock.advance_seconds(601);
    assert!(is_silent(&lookout, started).await);
    metrics.source_gone(SOURCE);
    assert!(!is_silent(&lookout, started).await, "nothing is expected of it");
    metrics.source(SOURCE);
    halves.recall(&settings.sources, &metrics);
    assert!(is_silent(&lookout, started).await, "it is there again");
    source.kept(clock.now());
    assert!(!is_silent(&lookout, started).await, "it has spoken");
    drop(lookout);
    let until = Instant::now() + Duration::from_secs(10);
    tokio::task::spawn_blocking(move || halves.stop(until)).await.unwrap();
}
