#!/bin/sh
# Keeps one receipt: webhook has put the body into a file and its name into BODY_FILE; the database
# is in CALLBACK_DB. It ends after the commit. Nothing of the body becomes part of the SQL.
exec sqlite3 -bail -batch -cmd ".timeout 30000" "$CALLBACK_DB" "
PRAGMA synchronous = FULL;
INSERT INTO notification
  SELECT json ->> 'id', json ->> 'reference', json ->> 'status', json ->> 'completed_at', json
  FROM (SELECT CAST(readfile('$BODY_FILE') AS TEXT) AS json)
  WHERE true
  ON CONFLICT (id) DO UPDATE SET reference = excluded.reference, status = excluded.status,
    completed_at = excluded.completed_at, body = excluded.body;"
