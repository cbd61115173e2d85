// A receiver of GC Notify's receipts as one would write it with Express and better-sqlite3.
// It answers after the commit. Usage: node server.mjs PORT DATABASE; the token is in CALLBACK_TOKEN.
import { createHash, timingSafeEqual } from "node:crypto";
import Database from "better-sqlite3";
import express from "express";

const [port, file] = process.argv.slice(2);

const db = new Database(file);
db.pragma("journal_mode = WAL");
db.pragma("synchronous = FULL");
db.exec(`CREATE TABLE IF NOT EXISTS notification (
  id TEXT PRIMARY KEY, reference TEXT, status TEXT NOT NULL, completed_at TEXT, body TEXT NOT NULL
)`);
const keep = db.prepare(`INSERT INTO notification VALUES (@id, @reference, @status, @completed_at, @body)
  ON CONFLICT (id) DO UPDATE SET reference = excluded.reference, status = excluded.status,
    completed_at = excluded.completed_at, body = excluded.body`);

// Both sides are hashed so that they have one length, which timingSafeEqual asks for.
const digest = (text) => createHash("sha256").update(text).digest();
const expected = digest(`Bearer ${process.env.CALLBACK_TOKEN}`);

const app = express();
app.disable("x-powered-by");

app.post(
  "/callbacks/bench",
  (request, response, next) => {
    const given = digest(request.get("authorization") ?? "");
    if (timingSafeEqual(given, expected)) next();
    else response.status(401).end();
  },
  express.json(),
  (request, response) => {
    const { id, reference, status, completed_at } = request.body;
    keep.run({ id, reference, status, completed_at, body: JSON.stringify(request.body) });
    response.status(204).end();
  },
);

app.listen(Number(port), "127.0.0.1");
