//! The connection itself: a body that dribbles in, and a connection that is used again.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::consequence::span;
use super::findings::{Check, Finding, Severity};
use super::specimen::News;
use super::stall::watched;
use super::visit::{Exchange, STALLS_MAX, Visit};
use super::wire::{Pieces, Sent, Wire};
use crate::sender::Outcome;

/// A body that takes its time.
pub static SLOW_BODY: Check = Check {
    name: "slow-body",
    sends: "a receipt whose body comes in eight pieces over up to 4 s",
    why: "On a bad line a body dribbles in. The senders allow 5 s between two bytes; a receiver that \
          answers 408 sooner loses the receipt, one that hangs up has it sent again.",
    mend: "Allow 8 s or more for a body (client_body_timeout, RequestReadTimeout, requestTimeout); \
           hang up rather than answer 408.",
    is_gate: false,
};

/// A connection that is used again.
pub static KEEP_ALIVE: Check = Check {
    name: "keep-alive",
    sends: "receipts on one connection: one after the other, then after 0.1, 1 and 5 s of silence",
    why: "GOV.UK Notify and NotifyNL use a connection again and look at no `Keep-Alive` header. If you \
          close it just then, the callback meets a reset and comes again 300 s later.",
    mend: "Keep idle connections open for 75 s or more (keepAliveTimeout, --timeout-keep-alive, \
           keepalive_timeout), or answer with `Connection: close` if you close them.",
    is_gate: false,
};

/// How often the body of [`SLOW_BODY`] pauses.
const PIECES: u16 = 8;

/// How long it takes at most; within what a sender allows between two bytes.
const SLOW_MAX: Duration = Duration::from_secs(4);

/// The silences after which a connection is used again: at once; a moment later; then where
/// servers' defaults are (1, 2 and 5 s are common).
const SILENCES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5)];

/// Where a receiver closes sooner, hardly any second callback gets through.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Makes all checks of this theme, at the same time: both mostly wait.
pub async fn run(visit: &mut Visit) -> [Finding; 2] {
    let slow = visit.fresh(&SLOW_BODY, News::Delivered).bytes();
    let kept = visit.rules.keep_alive.then(|| visit.fresh(&KEEP_ALIVE, News::Delivered).bytes());
    let pause = visit.question.patience.min(SLOW_MAX) / u32::from(PIECES - 1);
    let seen = &*visit;
    let mut again = STALLS_MAX;
    let (slow, kept) = loop {
        let both = async {
            let pieces = Pieces::slow(&slow, PIECES.into(), pause);
            tokio::join!(once(seen, &slow, pieces), reuse(seen, kept.clone()))
        };
        let (both, stood_still) = watched(both).await;
        if stood_still.is_zero() || again == 0 {
            break both;
        }
        again -= 1;
    };
    [slow_body(visit, &slow), keep_alive(visit, kept)]
}

/// Posts the body on a connection of its own, in these pieces.
async fn once(visit: &Visit, body: &[u8], pieces: Pieces) -> Exchange {
    match Wire::open(visit).await {
        Err(error) => visit.exchange(Err(error.to_string()), Duration::ZERO),
        Ok(mut wire) => match wire.post(visit, visit.headers(body), pieces).await {
            Sent::Exchange(exchange) => exchange,
            Sent::Closed => {
                visit.exchange(Err("the connection was closed at once".to_owned()), Duration::ZERO)
            }
        },
    }
}

/// Hanging up is no loss as long as the platform comes again: the line may be better then.
fn slow_body(visit: &mut Visit, exchange: &Exchange) -> Finding {
    let consequence = visit.consequence(exchange.outcome);
    let finding = visit.judge_accepted(&SLOW_BODY, std::slice::from_ref(exchange));
    if consequence.is_accepted() || consequence.is_final() {
        return finding;
    }
    let would = "send it again, and lose it if the line stays bad";
    Finding::new(&SLOW_BODY, Severity::Warn, finding.came_back, would).within(finding.took)
}

/// What became of a connection that is used again and again.
enum Reuse {
    /// It stayed open for all of it.
    Open(Duration),
    /// The receiver said that it would close it.
    SaysClose,
    /// Not even the first callback was accepted on it.
    NotAtAll(Exchange),
    /// Closed, or broken, when used after that silence.
    Closed { after: Duration, told: String },
    /// The platform never does that.
    NotUsed,
}

async fn reuse(visit: &Visit, body: Option<Bytes>) -> Reuse {
    let Some(body) = body else { return Reuse::NotUsed };
    let headers = visit.headers(&body);
    let body = || Pieces::whole(&body);
    let no_answer = |problem: String| visit.exchange(Err(problem), Duration::ZERO);
    let mut wire = match Wire::open(visit).await {
        Ok(wire) => wire,
        Err(error) => return Reuse::NotAtAll(no_answer(error.to_string())),
    };
    match wire.post(visit, headers.clone(), body()).await {
        Sent::Closed => return Reuse::NotAtAll(no_answer("closed at once".to_owned())),
        Sent::Exchange(first) if first.outcome == Outcome::NoAnswer => {
            return Reuse::NotAtAll(first);
        }
        Sent::Exchange(first) if first.says_close => return Reuse::SaysClose,
        Sent::Exchange(_) => {}
    }
    let mut longest = Duration::ZERO;
    for silence in SILENCES.into_iter().filter(|silence| *silence <= visit.question.patience) {
        sleep(silence).await;
        let closed = |told: String| Reuse::Closed { after: silence, told };
        if wire.is_closed() {
            return closed("it was closed without a word".to_owned());
        }
        match wire.post(visit, headers.clone(), body()).await {
            Sent::Closed => return closed("it was closed without a word".to_owned()),
            Sent::Exchange(next) if next.outcome == Outcome::NoAnswer => return closed(next.told),
            Sent::Exchange(next) if next.says_close => return Reuse::SaysClose,
            Sent::Exchange(_) => longest = silence,
        }
    }
    Reuse::Open(longest)
}

fn keep_alive(visit: &mut Visit, reuse: Reuse) -> Finding {
    let found =
        |severity, told: String, would: String| Finding::new(&KEEP_ALIVE, severity, told, would);
    match reuse {
        Reuse::NotUsed => {
            let reason = format!("{} opens a connection for each callback", visit.platform());
            Finding::skipped(&KEEP_ALIVE, reason)
        }
        Reuse::NotAtAll(exchange) => visit.judge_accepted(&KEEP_ALIVE, &[exchange]),
        Reuse::SaysClose => found(
            Severity::Ok,
            "an answer, and word that the connection closes".to_owned(),
            "open another for the next callback".to_owned(),
        ),
        Reuse::Open(longest) => found(
            Severity::Ok,
            format!("answers on one connection, still open after {} of silence", span(longest)),
            "go on using it".to_owned(),
        ),
        Reuse::Closed { after, told } if after < AT_ONCE => found(
            Severity::Lost,
            format!("an answer; then, used again {} later: {told}", span(after)),
            format!(
                "in a burst run into the close with every other callback, each time anew: {}",
                visit.consequence(Outcome::NoAnswer)
            ),
        ),
        Reuse::Closed { after, told } => found(
            Severity::Warn,
            format!("answers; then, after {} of silence: {told}", span(after)),
            "open another connection if it has noticed; a callback that is on its way just then \
             meets a reset and comes again 300 s later"
                .to_owned(),
        ),
    }
}
