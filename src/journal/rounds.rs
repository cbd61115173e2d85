//! What the journal notes of asking a source's platform: down to which point everything was asked for,
//! and how the last rounds went.
//!
//! All of it can be lost harmlessly: then more is asked for, and sooner. A time that cannot be read, and
//! a journal that no writer of this version has opened yet, are as good as no note.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;

/// Something of each list of a platform's: that of notifications, then that of text messages. Each has a
/// point of its own, so that one that is never shown holds up no other.
pub type PerList<T> = [T; 2];

/// Down to which point a source's platform was last asked for everything of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AskedThrough {
    /// What was created before this was asked for.
    pub point: Timestamp,
    /// When all of it was last asked for, down to the horizon.
    pub swept_at: Timestamp,
}

impl AskedThrough {
    /// What is noted of that source; `None` where a list was never asked through.
    pub fn of(connection: &Connection, source: &str) -> rusqlite::Result<PerList<Option<Self>>> {
        let of_notifications = "SELECT point, swept_at FROM upstream WHERE source = ?1";
        let of_messages =
            "SELECT messages_point, messages_swept_at FROM upstream_round WHERE source = ?1";
        Ok([
            Self::noted(connection, of_notifications, source)?,
            Self::noted(connection, of_messages, source)?,
        ])
    }

    fn noted(connection: &Connection, sql: &str, source: &str) -> rusqlite::Result<Option<Self>> {
        let noted: Option<[Option<String>; 2]> = connection
            .prepare_cached(sql)?
            .query_row([source], |row| Ok([row.get(0)?, row.get(1)?]))
            .optional()?;
        let [point, swept_at] =
            noted.unwrap_or_default().map(|time| time.and_then(|time| time.parse().ok()));
        Ok(point.zip(swept_at).map(|(point, swept_at)| Self { point, swept_at }))
    }

    /// Down to where all lists were asked through.
    pub fn all(noted: PerList<Option<Self>>) -> Option<Timestamp> {
        let [notifications, messages] = noted;
        Some(notifications?.point.min(messages?.point))
    }

    /// Notes it where there is something.
    fn note(
        through: PerList<Option<Self>>,
        connection: &Connection,
        source: &str,
    ) -> rusqlite::Result<()> {
        let of_notifications = "INSERT OR REPLACE INTO upstream VALUES (?1, ?2, ?3)";
        let of_messages =
            "INSERT INTO upstream_round (source, messages_point, messages_swept_at) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET messages_point = excluded.messages_point,
                messages_swept_at = excluded.messages_swept_at";
        for (through, sql) in through.into_iter().zip([of_notifications, of_messages]) {
            let Some(Self { point, swept_at }) = through else { continue };
            let times = params![source, point.to_string(), swept_at.to_string()];
            connection.prepare_cached(sql)?.execute(times)?;
        }
        Ok(())
    }
}

/// How the last rounds of a source went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rounds {
    /// When the receiver last began one.
    pub began_at: Option<Timestamp>,
    /// When one last came to a good end, by hand or not.
    pub succeeded_at: Option<Timestamp>,
    /// The platform asked to be left alone until then.
    pub rests_until: Option<Timestamp>,
}

impl Rounds {
    /// What is noted of that source.
    pub fn of(connection: &Connection, source: &str) -> rusqlite::Result<Self> {
        let sql =
            "SELECT began_at, succeeded_at, rests_until FROM upstream_round WHERE source = ?1";
        let noted: Option<[Option<String>; 3]> = connection
            .prepare_cached(sql)?
            .query_row([source], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
            .optional()?;
        let [began_at, succeeded_at, rests_until] =
            noted.unwrap_or_default().map(|time| time.and_then(|time| time.parse().ok()));
        Ok(Self { began_at, succeeded_at, rests_until })
    }

    /// Notes that the receiver begins one.
    pub fn begin(connection: &Connection, source: &str, at: Timestamp) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT INTO upstream_round (source, began_at) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET began_at = excluded.began_at",
            )?
            .execute(params![source, at.to_string()])
            .map(drop)
    }
}

/// What a round leaves behind for the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// Where a list was read down to what was asked for before; else the old note stays.
    pub through: PerList<Option<AskedThrough>>,
    /// Where it came to a good end.
    pub succeeded_at: Option<Timestamp>,
    /// Where the platform asked for that.
    pub rests_until: Option<Timestamp>,
    /// Whether it was one by hand: it does not know of a rest that the receiver has noted meanwhile, so
    /// the later of the two counts.
    pub is_by_hand: bool,
}

impl Outcome {
    /// Notes it.
    pub fn note(&self, connection: &Connection, source: &str) -> rusqlite::Result<()> {
        AskedThrough::note(self.through, connection, source)?;
        let [succeeded_at, rests_until] =
            [self.succeeded_at, self.rests_until].map(|time| time.map(|time| time.to_string()));
        connection
            .prepare_cached(
                "INSERT INTO upstream_round (source, succeeded_at, rests_until) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET
                    succeeded_at = coalesce(excluded.succeeded_at, succeeded_at),
                    rests_until = iif(
                        ?4,
                        max(
                            coalesce(excluded.rests_until, rests_until),
                            coalesce(rests_until, excluded.rests_until)
                        ),
                        excluded.rests_until
                    )",
            )?
            .execute(params![source, succeeded_at, rests_until, self.is_by_hand])
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SCHEMA;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(second * 1_000_000)
    }

    #[test]
    fn what_a_round_does_not_say_stays_as_it_was_but_for_a_rest_that_is_over() {
        let journal = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let noted = || Rounds::of(&journal, "a").unwrap();
        assert_eq!(
            (noted(), AskedThrough::of(&journal, "a").unwrap()),
            (Rounds::default(), [None; 2])
        );
        Rounds::begin(&journal, "a", at(1)).unwrap();
        let through =
            [2, 1].map(|second| Some(AskedThrough { point: at(second), swept_at: at(1) }));
        assert_eq!(AskedThrough::all(through), Some(at(1)));
        Outcome { through, succeeded_at: Some(at(2)), ..Outcome::default() }
            .note(&journal, "a")
            .unwrap();
        Rounds::begin(&journal, "a", at(3)).unwrap();
        Outcome { rests_until: Some(at(9)), ..Outcome::default() }.note(&journal, "a").unwrap();
        let [began_at, succeeded_at, rests_until] = [3, 2, 9].map(|second| Some(at(second)));
        assert_eq!(noted(), Rounds { began_at, succeeded_at, rests_until });
        assert_eq!(AskedThrough::of(&journal, "a").unwrap(), through);
        let messages = [None, Some(AskedThrough { point: at(5), swept_at: at(4) })];
        Outcome { through: messages, ..Outcome::default() }.note(&journal, "a").unwrap();
        assert_eq!(AskedThrough::of(&journal, "a").unwrap(), [through[0], messages[1]]);
        Outcome::default().note(&journal, "a").unwrap();
        assert_eq!(noted(), Rounds { began_at, succeeded_at, rests_until: None });
        assert_eq!(Rounds::of(&journal, "b").unwrap(), Rounds::default());
    }

    #[test]
    fn a_round_by_hand_forgets_no_rest_that_the_receiver_has_noted_meanwhile() {
        let journal = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        for (is_by_hand, rests_until, noted) in [
            (true, None, None),
            (true, Some(5), Some(5)),
            (false, Some(9), Some(9)),
            (true, None, Some(9)),
            (true, Some(7), Some(9)),
            (true, Some(11), Some(11)),
            (false, None, None),
        ] {
            let rests_until = rests_until.map(at);
            let outcome = Outcome { rests_until, is_by_hand, ..Outcome::default() };
            outcome.note(&journal, "a").unwrap();
            assert_eq!(Rounds::of(&journal, "a").unwrap().rests_until, noted.map(at));
        }
    }
}
