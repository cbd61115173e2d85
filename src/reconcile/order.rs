//! What a round asks for, when the next begins, and down to where everything was asked for after it. Pure.

use std::time::Duration;

use super::round::{Depth, Ended, OVERLAP_S, Order, Report};
use super::upstream::List;
use crate::clock::Timestamp;
use crate::config::settings::Upstream;
use crate::forward::breaker::RETRY_AFTER_MAX;
use crate::journal::{AskedThrough, PerList, Rounds};

/// How often everything down to the horizon is asked for, in seconds.
const SWEEP_S: i64 = 86_400;

/// After a start, a round that did not come to a good end is begun anew after so long: no minute has more
/// requests than are allowed, however often somebody starts.
const START_PACE: Duration = Duration::from_secs(60);

/// What to ask for now, where that is `noted` and what was created before `pruned` was pruned.
pub fn order(
    upstream: &Upstream,
    (noted, pruned): (PerList<Option<AskedThrough>>, Option<Timestamp>),
    now: Timestamp,
) -> Order {
    let horizon = before(now, upstream.horizon);
    let floor = pruned.map_or(horizon, |pruned| pruned.max(horizon));
    let lists = noted.map(|noted| depth(noted, floor, now));
    Order { now, lists, horizon, floor, ids_max: ids_max(upstream) }
}

fn depth(noted: Option<AskedThrough>, floor: Timestamp, now: Timestamp) -> Depth {
    // A note from the future is as good as none.
    let noted = noted.filter(|noted| noted.point <= now && noted.swept_at <= now);
    let recent = noted.filter(|noted| noted.swept_at.plus_seconds(SWEEP_S) > now);
    let behind = recent.map(|noted| noted.point.plus_seconds(-OVERLAP_S));
    let down_to = behind.map_or(floor, |behind| behind.max(floor));
    let point = noted.map_or(down_to, |noted| noted.point.max(floor));
    Depth { down_to, point }
}

/// Down to where everything was asked for after such a round; `None` where that stays as it was `noted`:
/// not all of a list was read, or not down to there.
pub fn asked_through(
    report: &Report,
    order: Order,
    noted: PerList<Option<AskedThrough>>,
) -> PerList<Option<AskedThrough>> {
    List::ALL.map(|list| list_asked_through(list, report, order, noted[list as usize]))
}

fn list_asked_through(
    list: List,
    report: &Report,
    order: Order,
    noted: Option<AskedThrough>,
) -> Option<AskedThrough> {
    let is_swept = order.down_to(list) <= order.floor;
    let swept_at = if is_swept {
        order.now
    } else {
        noted.filter(|noted| order.down_to(list) <= noted.point)?.swept_at
    };
    // What could not be understood must be asked for again.
    let point =
        report.unreadable.since[list as usize].map_or(order.now, |since| since.min(order.now));
    report.is_read[list as usize].then_some(AskedThrough { point, swept_at })
}

/// How long the platform wants to be left alone, if that ended the round.
pub fn asked_to_wait(ended: &Result<(), Ended>) -> Duration {
    match ended {
        Err(Ended::Upstream(fault)) => fault.may_pass().unwrap_or_default().min(RETRY_AFTER_MAX),
        _ => Duration::ZERO,
    }
}

/// How long to wait for the first round after a start of the process: the earlier one counts. `by_chance`
/// is the least.
pub fn first_pause(
    rounds: &Rounds,
    every: Duration,
    now: Timestamp,
    by_chance: Duration,
) -> Duration {
    let Some(began_at) = rounds.began_at.filter(|began_at| *began_at <= now) else {
        return by_chance;
    };
    let went_well = rounds.succeeded_at.is_some_and(|succeeded_at| succeeded_at >= began_at);
    let pace = if went_well { every } else { every.min(START_PACE) };
    pace.saturating_sub(between(began_at, now)).max(by_chance)
}

/// From the one to the other; nothing if that is the earlier.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    let micros = to.unix_micros().saturating_sub(from.unix_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Half of what may be asked until the next round: the pages must have their turn.
fn ids_max(upstream: &Upstream) -> usize {
    let requests = u64::from(upstream.requests_per_minute_max) * upstream.every.as_secs() / 60;
    usize::try_from(requests / 2).unwrap_or(usize::MAX).max(1)
}

/// So long before.
pub fn before(now: Timestamp, span: Duration) -> Timestamp {
    now.plus_seconds(-i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(second * 1_000_000)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// An order down to there, where the horizon is 100 and it is 1000 now.
    fn down_to(second: i64) -> Order {
        let [now, down_to, horizon] = [1_000, second, 100].map(at);
        let lists = [Depth { down_to, point: down_to }; 2];
        Order { now, lists, horizon, floor: horizon, ids_max: 1 }
    }

    fn noted(point: i64, swept_at: i64) -> AskedThrough {
        AskedThrough { point: at(point), swept_at: at(swept_at) }
    }

    #[test]
    fn the_point_moves_where_a_round_reached_what_was_asked_for_before() {
        let asked_through = |report: &Report, order, noted| {
            list_asked_through(List::Notifications, report, order, noted)
        };
        let read = Report { is_read: [true; 2], ..Report::default() };
        let old = Some(noted(500, 300));
        for (second, expected) in [
            (100, Some(noted(1_000, 1_000))),
            (50, Some(noted(1_000, 1_000))),
            (500, Some(noted(1_000, 300))),
            (501, None),
        ] {
            assert_eq!(asked_through(&read, down_to(second), old), expected, "{second}");
            assert_eq!(asked_through(&Report::default(), down_to(second), old), None);
        }
        assert_eq!(asked_through(&read, down_to(101), None), None);
        assert_eq!(asked_through(&read, down_to(100), None), Some(noted(1_000, 1_000)));
    }

    #[test]
    fn the_point_does_not_pass_what_could_not_be_understood() {
        let mut report = Report { is_read: [true; 2], ..Report::default() };
        for (since, point) in [(400, 400), (2_000, 1_000)] {
            report.unreadable.since = [Some(at(since)), None];
            let through = asked_through(&report, down_to(500), [Some(noted(500, 300)); 2]);
            assert_eq!(through, [point, 1_000].map(|point| Some(noted(point, 300))));
        }
    }

    #[test]
    fn a_list_that_was_not_read_keeps_its_point_and_no_other() {
        let report = Report { is_read: [true, false], ..Report::default() };
        let through = asked_through(&report, down_to(500), [Some(noted(500, 300)); 2]);
        assert_eq!(through, [Some(noted(1_000, 300)), None]);
    }

    #[test]
    fn after_a_start_the_earlier_round_counts() {
        let pause = |began_at: Option<i64>, succeeded_at: Option<i64>| {
            let (began_at, succeeded_at) = (began_at.map(at), succeeded_at.map(at));
            let rounds = Rounds { began_at, succeeded_at, rests_until: None };
            first_pause(&rounds, seconds(900), at(1_000), seconds(3))
        };
        assert_eq!(pause(None, None), seconds(3), "there was none");
        assert_eq!(pause(Some(900), Some(910)), seconds(800));
        assert_eq!(pause(Some(990), Some(910)), seconds(50), "it did not come to a good end");
        assert_eq!(pause(Some(900), None), seconds(3));
        assert_eq!(pause(Some(50), Some(60)), seconds(3), "it is over");
        assert_eq!(pause(Some(2_000), Some(2_001)), seconds(3), "the clock was set back");
    }
}
