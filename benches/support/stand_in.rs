//! A stand-in for receiptd, to try the measurement without it and to see its checks fail.
//!
//! It says where it listens, answers the same routes and fills the same two tables, but keeps a
//! callback only *after* the answer: what receiptd promises never to do.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rusqlite::Connection;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::receipt::SOURCE;

/// What the keeping thread is told.
enum Word {
    Keep(Bytes),
    Settled(oneshot::Sender<()>),
}

/// Serves like `receiptd serve`, of whose arguments it heeds only `--db`.
pub fn run(arguments: &[String]) -> io::Result<()> {
    let db = arguments.iter().skip_while(|one| *one != "--db").nth(1).map(PathBuf::from);
    let (say, hear) = mpsc::channel();
    let db = db.unwrap_or_else(|| PathBuf::from("receiptd.db"));
    let tables = open(&db).map_err(io::Error::other)?;
    thread::spawn(move || keep(&tables, &hear).expect("the stand-in's database works"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(say))
}

fn open(db: &Path) -> rusqlite::Result<Connection> {
    let tables = Connection::open(db)?;
    let journal = db.with_extension("callbacks.db");
    tables.execute("ATTACH ?1 AS journal", [journal.to_string_lossy()])?;
    tables.execute_batch(
        "PRAGMA main.journal_mode = WAL; PRAGMA journal.journal_mode = WAL;
         PRAGMA synchronous = OFF;
         CREATE TABLE journal.callback (seq INTEGER PRIMARY KEY, source, received_at, body);
         CREATE TABLE main.notification (source, id, UNIQUE (source, id));",
    )?;
    Ok(tables)
}

/// Takes whatever waits, bounded, in one transaction.
fn keep(tables: &Connection, hear: &Receiver<Word>) -> rusqlite::Result<()> {
    while let Ok(first) = hear.recv() {
        let mut settled = Vec::new();
        tables.execute_batch("BEGIN")?;
        for word in std::iter::once(first).chain(hear.try_iter().take(1000)) {
            match word {
                Word::Keep(body) => insert(tables, &body)?,
                Word::Settled(answer) => settled.push(answer),
            }
        }
        tables.execute_batch("COMMIT")?;
        for answer in settled {
            let _ = answer.send(());
        }
    }
    Ok(())
}

fn insert(tables: &Connection, body: &[u8]) -> rusqlite::Result<()> {
    let receipt: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let mut callback =
        tables.prepare_cached("INSERT INTO journal.callback (source, body) VALUES (?1, ?2)")?;
    callback.execute((SOURCE, body))?;
    let mut state =
        tables.prepare_cached("INSERT OR IGNORE INTO main.notification VALUES (?1, ?2)")?;
    state.execute((SOURCE, receipt["id"].as_str()))?;
    Ok(())
}

async fn serve(say: Sender<Word>) -> io::Result<()> {
    let free_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let callbacks = TcpListener::bind(free_port).await?;
    let admin = TcpListener::bind(free_port).await?;
    let (here, there) = (callbacks.local_addr()?, admin.local_addr()?);
    println!("listening callbacks=http://{here} admin=http://{there}");
    loop {
        let (stream, _) = tokio::select! {
            accepted = callbacks.accept() => accepted?,
            accepted = admin.accept() => accepted?,
        };
        let say = say.clone();
        let service = service_fn(move |request| answer(request, say.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    say: Sender<Word>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut status = StatusCode::NO_CONTENT;
    if request.method() == Method::POST {
        if let Ok(body) = request.into_body().collect().await {
            let _ = say.send(Word::Keep(body.to_bytes()));
        }
    } else if request.uri().path() == "/settled" {
        let (settled, wait) = oneshot::channel();
        let _ = say.send(Word::Settled(settled));
        let _ = wait.await;
    } else {
        status = StatusCode::OK;
    }
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    Ok(response)
}
