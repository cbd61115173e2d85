"""A receiver of GC Notify's receipts as one would write it with FastAPI and sqlite3.

It answers after the commit. The database is in CALLBACK_DB, the token in CALLBACK_TOKEN.
"""

import os
import secrets
import sqlite3
import threading
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

TOKEN = os.environ["CALLBACK_TOKEN"].encode()


class Receipt(BaseModel):
    id: str
    reference: str | None = None
    to: str
    status: str
    status_description: str | None = None
    provider_response: str | None = None
    created_at: str | None = None
    completed_at: str | None = None
    sent_at: str | None = None
    notification_type: str


local = threading.local()


def database() -> sqlite3.Connection:
    """The connection of this thread of FastAPI's pool."""
    if not hasattr(local, "connection"):
        connection = sqlite3.connect(os.environ["CALLBACK_DB"], timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        local.connection = connection
    return local.connection


with database() as connection:
    connection.execute(
        """CREATE TABLE IF NOT EXISTS notification (
            id TEXT PRIMARY KEY, reference TEXT, status TEXT NOT NULL, completed_at TEXT,
            body TEXT NOT NULL
        )"""
    )

bearer = HTTPBearer()


def authenticate(given: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> None:
    if not secrets.compare_digest(given.credentials.encode(), TOKEN):
        raise HTTPException(status_code=401)


app = FastAPI()


@app.post("/callbacks/bench", status_code=204, dependencies=[Depends(authenticate)])
def receive(receipt: Receipt) -> Response:
    with database() as connection:
        connection.execute(
            """INSERT INTO notification VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (id) DO UPDATE SET reference = excluded.reference, status = excluded.status,
                completed_at = excluded.completed_at, body = excluded.body""",
            (
                receipt.id,
                receipt.reference,
                receipt.status,
                receipt.completed_at,
                receipt.model_dump_json(),
            ),
        )
    return Response(status_code=204)
