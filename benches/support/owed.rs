//! What receiptd owes its sink, read from the state file as any app beside it may; and how the sink is
//! configured.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::database;
use super::program::Done;

/// Between two looks.
const PACE: Duration = Duration::from_millis(20);

/// A sink as the defaults have it.
pub fn http_sink(address: SocketAddr) -> String {
    format!("[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"http://{address}/receipts\"\n")
}

/// The outbox of a running server with one sink.
pub struct Outbox(Connection);

impl Outbox {
    /// Opens it for reading.
    pub fn open(state: &Path) -> Done<Self> {
        Ok(Self(database::open(state)?))
    }

    /// How many changes are owed.
    pub fn count(&self) -> Done<u64> {
        let count: i64 =
            self.0.query_row("SELECT count(*) FROM outbox_row", [], |row| row.get(0))?;
        Ok(u64::try_from(count)?)
    }

    /// How many of them were given up.
    pub fn parked(&self) -> Done<u64> {
        let sql = "SELECT count(*) FROM outbox_row WHERE standing = 3";
        let count: i64 = self.0.query_row(sql, [], |row| row.get(0))?;
        Ok(u64::try_from(count)?)
    }

    /// The ids of all changes that are owed.
    pub fn ids(&self) -> Done<Vec<u128>> {
        let mut ids = self.0.prepare("SELECT id FROM change_row")?;
        let ids = ids.query_map([], |row| row.get::<_, [u8; 16]>(0))?;
        Ok(ids.map(|id| id.map(u128::from_be_bytes)).collect::<Result<_, _>>()?)
    }

    /// Waits until nothing is owed any more.
    pub fn wait_until_empty(&self, patience: Duration) -> Done {
        let until = Instant::now() + patience;
        while !self.is_empty()? {
            if Instant::now() > until {
                let (owed, parked) = (self.count()?, self.parked()?);
                return Err(format!("still {owed} changes owed, {parked} of them parked").into());
            }
            thread::sleep(PACE);
        }
        Ok(())
    }

    fn is_empty(&self) -> rusqlite::Result<bool> {
        self.0.prepare_cached("SELECT 1 FROM outbox_row LIMIT 1")?.exists([]).map(|any| !any)
    }
}
