PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS notification (
  id TEXT PRIMARY KEY, reference TEXT, status TEXT NOT NULL, completed_at TEXT, body TEXT NOT NULL
);
