//! Whether this process itself stood still meanwhile: a frozen virtual machine, a starved core. A
//! receiver is not to be blamed for that.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// How often to look at the clock.
const TICK: Duration = Duration::from_millis(20);

/// What a busy machine takes now and then; longer is a stand-still.
const TOLERATED: Duration = Duration::from_millis(250);

/// What came of the work, and how long this process stood still meanwhile: nothing, or more than
/// what a busy machine takes now and then. The work must not block.
pub async fn watched<F: Future>(work: F) -> (F::Output, Duration) {
    let mut work = pin!(work);
    let (mut looked, mut stood_still) = (Instant::now(), Duration::ZERO);
    loop {
        let output = tokio::select! {
            biased;
            output = &mut work => Some(output),
            () = sleep(TICK) => None,
        };
        let late = looked.elapsed().saturating_sub(TICK);
        stood_still += if late > TOLERATED { late } else { Duration::ZERO };
        looked = Instant::now();
        if let Some(output) = output {
            return (output, stood_still);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stand_still_is_noticed_whether_the_work_ends_with_it_or_later() {
        let still = Duration::from_millis(600);
        for rest in [Duration::ZERO, Duration::from_millis(50)] {
            let work = async {
                std::thread::sleep(still);
                sleep(rest).await;
                7
            };
            let (output, stood_still) = watched(work).await;
            assert_eq!(output, 7);
            assert!(stood_still > TOLERATED, "{stood_still:?}");
        }
    }
}
