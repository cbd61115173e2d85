//! The postgres sink: tables in a real PostgreSQL.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rcgen::{CertificateParams, KeyPair};
use receiptd::callback::{Fingerprint, Identity, Kind, Precedence, ReceivedMessage, Standing};
use receiptd::change::{Cause, Change};
use receiptd::clock::Timestamp;
use receiptd::config::settings::{ClientTls, Endpoint, Login, PostgresSink, Secret};
use receiptd::forward::event::Event;
use receiptd::forward::fault::Fault;
use receiptd::forward::postgres::Postgres;
use receiptd::merge::Facts;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::servers::{
    Missing, Server, as_user, find, folder, free_port, give_to, local, or_left_out, run,
};
use crate::suite::{self, Held, Keeps, Kind as KindOfSink, Rejection};

const INSTALL: &str = "apt install postgresql";

/// Who the server runs as where we are root, and its user of that name, who may do anything.
const USER: &str = "postgres";

const PASSWORD: &str = "a password: é ' \\ \"";

/// The tables, as the sink makes them.
const TABLES: &str = include_str!("../../src/forward/postgres.sql");

#[test]
fn the_postgres_sink_passes_the_suite() {
    suite::passes::<Cluster>();
}

/// A server with one database, `app`.
struct Cluster {
    folder: TempDir,
    postgres: PathBuf,
    port: u16,
    arguments: Vec<&'static str>,
    server: Option<Server>,
    schema: String,
}

impl Cluster {
    /// With these arguments besides the usual ones.
    fn with(arguments: &[&'static str]) -> Result<Self, Missing> {
        let (postgres, initdb) = (find("postgres", INSTALL)?, find("initdb", INSTALL)?);
        let folder = folder();
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        give_to(USER, folder.path());
        let mut command = as_user(USER, &initdb);
        command.arg("-D").arg(folder.path().join("data")).arg("--pwfile").arg(&password);
        command.args(["-A", "scram-sha-256", "-U", USER, "-E", "UTF8", "--no-locale", "--no-sync"]);
        run(&mut command);
        let mut cluster = Self {
            folder,
            postgres,
            port: free_port(),
            arguments: arguments.to_vec(),
            server: None,
            schema: "app".to_owned(),
        };
        cluster.run();
        cluster.sql_in("postgres", "CREATE DATABASE app");
        Ok(cluster)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&mut self) {
        let mut command = as_user(USER, &self.postgres);
        command.arg("-D").arg(self.path("data")).arg("-k").arg(self.folder.path());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(&self.arguments);
        let log = self.path("log");
        let server = self.server.insert(Server::start(command, &log));
        let port = self.port;
        server.wait_until("ready", || block_on(try_sql(port, "postgres", "SELECT 1")).is_ok());
    }

    /// What the statements give, in text.
    fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.sql_in("app", sql)
    }

    fn sql_in(&self, database: &str, sql: &str) -> Vec<Vec<Option<String>>> {
        block_on(try_sql(self.port, database, sql))
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The rows of a table, each as JSON, with times as receiptd writes them.
    fn rows(&self, table: &str) -> Vec<Value> {
        self.sql(&rows_sql(&self.schema, table))
            .into_iter()
            .map(|mut row| serde_json::from_str(&row.remove(0).unwrap()).unwrap())
            .collect()
    }

    fn sink(&self) -> Postgres {
        self.sink_with(|_| ())
    }

    fn sink_with(&self, change: impl FnOnce(&mut PostgresSink)) -> Postgres {
        Postgres::open(&self.settings(change)).unwrap()
    }

    fn settings(&self, change: impl FnOnce(&mut PostgresSink)) -> PostgresSink {
        let mut settings = PostgresSink {
            at: Endpoint {
                is_tls: false,
                host: "127.0.0.1".to_owned(),
                port: self.port,
                path: "app".to_owned(),
            },
            schema: self.schema.clone(),
            create_tables: true,
            login: Login { user: USER.to_owned(), password: Secret(PASSWORD.into()) },
            tls: ClientTls::default(),
        };
        change(&mut settings);
        settings
    }
}

/// Each row of a table as JSON; times as receiptd writes them, bytes in hexadecimal.
fn rows_sql(schema: &str, table: &str) -> String {
    let columns = TABLES
        .split(&format!("EXISTS {table} ("))
        .nth(1)
        .and_then(|rest| rest.split(");").next())
        .unwrap()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("PRIMARY"));
    let columns: Vec<String> = columns
        .map(|line| {
            let (name, of) = line.split_once(' ').unwrap();
            let value = if of.starts_with("timestamptz") {
                format!(r#"to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#)
            } else if of.starts_with("bytea") {
                format!("encode({name}, 'hex')")
            } else {
                name.to_owned()
            };
            format!("'{name}', {value}")
        })
        .collect();
    format!("SELECT json_build_object({}) FROM \"{schema}\".{table}", columns.join(", "))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

async fn connect(
    port: u16,
    database: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(USER).password(PASSWORD).dbname(database);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn try_sql(
    port: u16,
    database: &str,
    sql: &str,
) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
    let client = connect(port, database).await?;
    let messages = client.simple_query(sql).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.map(|row| (0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect()).collect())
}

impl KindOfSink for Cluster {
    const TYPE: &'static str = "postgres";
    const KEEPS: Keeps = Keeps::States;

    fn start() -> Result<Self, Missing> {
        Self::with(&[])
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(local(self.port))
    }

    fn fresh(&mut self, case: &str) {
        self.schema = format!("of_{case}");
        self.sql(&format!(
            "CREATE SCHEMA \"{0}\"; SET search_path = \"{0}\"; {TABLES}",
            self.schema
        ));
        let password = self.folder.path().join("password-of-sink");
        fs::write(&password, PASSWORD).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn lines(&self, through: SocketAddr) -> String {
        format!(
            "url = \"postgresql://{through}/app\"\nschema = \"{}\"\nuser = \"{USER}\"\n\
             password_file = {:?}",
            self.schema,
            self.path("password-of-sink"),
        )
    }

    fn held(&mut self) -> Vec<Held> {
        let rows = self.rows("notification").into_iter();
        rows.map(|data| {
            let subject = data["id"].as_str().unwrap().to_owned();
            Held { id: String::new(), subject, data }
        })
        .collect()
    }

    fn reject(&mut self) -> Rejection {
        let schema = &self.schema;
        self.sql(&format!("ALTER TABLE \"{schema}\".notification ADD CONSTRAINT no CHECK (false)"));
        Rejection::Parks
    }

    fn accept(&mut self) {
        let schema = &self.schema;
        self.sql(&format!("ALTER TABLE \"{schema}\".notification DROP CONSTRAINT no"));
    }

    fn crash(&mut self) {
        // As a crash: no checkpoint, nothing told to clients; but no process stays behind.
        self.server.take().expect("it runs").terminate(Signal::QUIT);
    }

    fn start_again(&mut self) {
        self.run();
    }
}

// --- events --------------------------------------------------------------------------------------

fn at(second: i64) -> Timestamp {
    "2026-11-22T10:00:00Z".parse::<Timestamp>().unwrap().plus_seconds(second)
}

fn source() -> Arc<str> {
    "passport".into()
}

/// What one receiver tells when it knows that much of a notification.
fn told(id: &str, facts: &Facts, received: (Timestamp, Timestamp)) -> Event {
    let cause = Cause { key: 1, subject: 1, received_at: received.1, fingerprint: print(1) };
    let change =
        Change::of_notification(cause, Kind::Receipt, (&source(), id), (None, facts), received);
    Event::of(change, None, false)
}

fn print(number: u8) -> Fingerprint {
    Fingerprint([number; 16])
}

fn standing(version: Option<i64>, rank: u8, print_of: u8, status: &str) -> Standing {
    Standing {
        precedence: Precedence { version: version.map(at), rank, fingerprint: print(print_of) },
        status: status.to_owned(),
        status_description: None,
        provider_response: None,
        completed_at: None,
        sent_at: None,
    }
}

/// A notification of that id with that status.
fn receipt(id: &str, status: &str) -> Event {
    let standing = Some(standing(Some(1), 1, 1, status));
    told(id, &Facts { standing, ..Facts::default() }, (at(0), at(0)))
}

/// Few enough values that facts often agree, tie and contradict each other, and such whose order by
/// bytes is not that of any language.
fn any_text() -> impl Strategy<Value = Option<String>> {
    let texts = ["", "a", "B", "b", "é", "e", "\u{ffff}", "\u{10000}", "a'b\\\"\n"];
    prop::option::of(prop::sample::select(texts.to_vec()).prop_map(str::to_owned))
}

fn any_time() -> impl Strategy<Value = Option<Timestamp>> {
    let texts = ["0000-01-01T00:00:00Z", "2026-11-22T10:00:00.000001Z", "2026-11-22T10:00:00Z"];
    prop::option::of(prop::sample::select(texts.to_vec()).prop_map(|text| text.parse().unwrap()))
}

fn any_standing() -> impl Strategy<Value = Option<Standing>> {
    let precedence = (any_time(), prop::sample::select(vec![0, 1, 255]), 0..2_u8);
    let status = prop::sample::select(vec!["delivered", "Delivered", "sending"]);
    let standing = (precedence, status, any_text(), any_text(), any_time(), any_time()).prop_map(
        |((version, rank, number), status, description, response, completed_at, sent_at)| {
            Standing {
                precedence: Precedence { version, rank, fingerprint: print(number) },
                status: status.to_owned(),
                status_description: description,
                provider_response: response,
                completed_at,
                sent_at,
            }
        },
    );
    prop::option::weighted(0.8, standing)
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let identity = (
        (any_text(), any_text(), any_text(), any_text()),
        prop::option::of(prop::sample::select(vec![i64::MIN, 0, 7])),
        any_time(),
    )
        .prop_map(
            |((reference, recipient, notification_type, template_id), version, created_at)| {
                Identity {
                    reference,
                    recipient,
                    notification_type,
                    template_id,
                    template_version: version,
                    created_at,
                }
            },
        );
    (any_standing(), identity, any_time(), any_time()).prop_map(
        |(standing, identity, complained_at, returned_at)| Facts {
            standing,
            identity,
            complained_at,
            returned_at,
        },
    )
}

/// Facts, and the order in which states that hold some of them are told.
fn any_telling() -> impl Strategy<Value = (Vec<Facts>, Vec<Vec<usize>>, bool)> {
    prop::collection::vec(any_facts(), 1..6).prop_flat_map(|facts| {
        let all: Vec<usize> = (0..facts.len()).collect();
        let some = prop::sample::subsequence(all.clone(), 1..=facts.len());
        let more = prop::collection::vec(some, 0..6);
        let tellings = more.prop_map(move |more| {
            more.into_iter().chain(all.iter().map(|one| vec![*one])).collect::<Vec<_>>()
        });
        (Just(facts), tellings.prop_shuffle(), any::<bool>())
    })
}

// --- what a row comes to -------------------------------------------------------------------------

#[test]
fn any_order_and_repetition_from_two_receivers_at_once_gives_the_row_that_merge_gives() {
    let Some(cluster) = or_left_out("postgres", Cluster::with(&["-F"])) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sinks = [Arc::new(cluster.sink()), Arc::new(cluster.sink())];
    let client = runtime.block_on(connect(cluster.port, "app")).unwrap();
    let mut runner = TestRunner::new(Config { cases: 500, ..Config::default() });
    let number = std::cell::Cell::new(0);
    let outcome = runner.run(&any_telling(), |(facts, tellings, is_at_once)| {
        number.set(number.get() + 1);
        let id = format!("n{}", number.get());
        let events: Vec<Event> = tellings
            .iter()
            .map(|telling| {
                let known = telling.iter().map(|one| facts[*one].clone());
                let known = known.fold(Facts::default(), Facts::join);
                let seconds = || telling.iter().map(|one| i64::try_from(*one).unwrap());
                let received = (at(seconds().min().unwrap()), at(seconds().max().unwrap()));
                told(&id, &known, received)
            })
            .collect();
        let row = runtime.block_on(async {
            let mut under_way = JoinSet::new();
            for (place, event) in events.into_iter().enumerate() {
                let sink = Arc::clone(&sinks[place % 2]);
                under_way.spawn(async move { sink.send(&event).await });
                if !is_at_once {
                    under_way.join_next().await.unwrap().unwrap().unwrap();
                }
            }
            while let Some(sent) = under_way.join_next().await {
                sent.unwrap().unwrap();
            }
            let sql = format!("{} WHERE id = $1", rows_sql("app", "notification"));
            let sql = sql.replacen("SELECT json", "SELECT ''||json", 1);
            client.query_one(&sql, &[&id]).await.unwrap().get::<_, String>(0)
        });
        let row: Value = serde_json::from_str(&row).unwrap();
        let count = i64::try_from(facts.len()).unwrap();
        let all = facts.into_iter().fold(Facts::default(), Facts::join);
        prop_assert_eq!(row, expected(&id, &all, (at(0), at(count - 1))));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// The row of a notification of which that much is known.
fn expected(id: &str, facts: &Facts, received: (Timestamp, Timestamp)) -> Value {
    let told = told(id, facts, received);
    let mut row: Value = serde_json::from_str(told.data()).unwrap();
    let row_columns = row.as_object_mut().unwrap();
    row_columns.remove("previous").unwrap();
    let precedence = facts.standing.as_ref().map(|standing| standing.precedence);
    for (column, value) in [
        (
            "precedence_version",
            precedence.and_then(|of| of.version).map(|at| at.to_string().into()),
        ),
        ("precedence_rank", precedence.map(|of| of.rank.into())),
        ("precedence_fingerprint", precedence.map(|of| of.fingerprint.to_string().into())),
    ] {
        row_columns.insert(column.to_owned(), value.unwrap_or(Value::Null));
    }
    // What PostgreSQL calls the year before the first, it writes as that.
    serde_json::from_str(&row.to_string().replace("0000-01-01", "0001-01-01")).unwrap()
}

#[test]
fn of_two_texts_with_one_id_the_greater_fingerprint_stays_received_when_first_heard_of() {
    let Some(cluster) = or_left_out("postgres", Cluster::with(&["-F"])) else { return };
    let event = |id: &str, number: u8| {
        let message = ReceivedMessage {
            id: id.to_owned(),
            source_number: Some(format!("+{number}")),
            destination_number: None,
            message: Some("a\0b".to_owned()),
            date_received: Some(at(number.into())),
        };
        let cause = Cause { key: 1, subject: 1, received_at: at(0), fingerprint: print(number) };
        Event::of(
            Change::of_message(cause, &source(), &message, at(10 - i64::from(number))),
            None,
            false,
        )
    };
    let sink = cluster.sink();
    block_on(async {
        for (id, order) in [("up", [1, 2, 3]), ("down", [3, 2, 1]), ("twice", [3, 1, 3])] {
            for number in order {
                sink.send(&event(id, number)).await.unwrap();
            }
        }
    });
    let rows = cluster.rows("received_message");
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!(row["source_number"], "+3");
        assert_eq!(row["date_received"], at(3).to_string());
        assert_eq!(row["received_at"], at(7).to_string());
        assert_eq!(row["message"], "a\u{fffd}b", "what PostgreSQL cannot hold is stood in for");
    }
}

#[test]
fn a_callback_that_was_not_understood_is_told_once_and_an_id_that_cannot_be_held_is_refused() {
    let Some(cluster) = or_left_out("postgres", Cluster::with(&["-F"])) else { return };
    let sink = cluster.sink();
    let odd = Change::of_unrecognised(9, &source(), at(5), b"{", "it is no JSON");
    let again = Change::of_unrecognised(10, &source(), at(4), b"{", "it is no JSON");
    let id = odd.id.to_string();
    block_on(async {
        sink.send(&Event::of(odd, None, false)).await.unwrap();
        sink.send(&Event::of(again, None, false)).await.unwrap();
        let fault = sink.send(&receipt("a\0b", "sent")).await.unwrap_err();
        assert!(matches!(fault, Fault::Refused { .. }), "{fault:?}");
        // Longer than an index can hold.
        let mut long = String::new();
        (0..3_000_u32).for_each(|n| long.push_str(&format!("{:x}", n.wrapping_mul(2_654_435_761))));
        let fault = sink.send(&receipt(&long, "sent")).await.unwrap_err();
        assert!(matches!(&fault, Fault::Refused { why } if why.contains("54000")), "{fault:?}");
        sink.send(&receipt("fine", "sent")).await.unwrap();
    });
    let row = cluster.rows("unrecognised").remove(0);
    assert_eq!((&row["change_id"], &row["reason"]), (&id.into(), &"it is no JSON".into()));
    assert_eq!(row["received_at"], at(4).to_string());
    assert_eq!(cluster.rows("notification").len(), 1);
}

// --- what can be in the way ----------------------------------------------------------------------

#[track_caller]
fn assert_passing(sent: Result<(), Fault>, holds: &str) {
    match sent {
        Err(Fault::Passing { why, .. }) if why.contains(holds) => {}
        other => panic!("{holds}: {other:?}"),
    }
}

#[test]
fn a_row_that_the_app_keeps_locked_holds_up_others_for_a_moment_and_an_abandoned_send_nothing() {
    let Some(cluster) = or_left_out("postgres", Cluster::with(&["-F"])) else { return };
    let sink = cluster.sink();
    block_on(async {
        sink.send(&receipt("locked", "sent")).await.unwrap();
        let app = connect(cluster.port, "app").await.unwrap();
        app.batch_execute("BEGIN; SELECT FROM app.notification FOR UPDATE").await.unwrap();
        let (locked, free) = (receipt("locked", "delivered"), receipt("free", "sent"));
        let (of_locked, of_free) = tokio::join!(sink.send(&locked), sink.send(&free));
        assert_passing(of_locked, "55P03");
        of_free.unwrap();

        let abandoned = tokio::time::timeout(Duration::from_millis(50), sink.send(&locked)).await;
        assert!(abandoned.is_err());
        let other = receipt("b", "sent");
        let soon = tokio::time::timeout(Duration::from_millis(900), sink.send(&other));
        soon.await.expect("it does not wait behind what was abandoned").unwrap();
        app.batch_execute("ROLLBACK").await.unwrap();
        sink.send(&locked).await.unwrap();
    });
    assert_eq!(cluster.rows("notification").len(), 3);
}

#[test]
fn what_the_operator_must_mend_is_tried_again_and_says_what_it_is() {
    let Some(cluster) = or_left_out("postgres", Cluster::with(&["-F"])) else { return };
    let event = receipt("a", "sent");
    cluster.sql(
        "CREATE USER writer PASSWORD 'w'; CREATE SCHEMA theirs;
         CREATE TABLE theirs.notification (id text); CREATE TABLE theirs.received_message ();
         CREATE TABLE theirs.unrecognised ()",
    );
    let writer = |settings: &mut PostgresSink| {
        settings.login = Login { user: "writer".to_owned(), password: Secret(b"w".to_vec()) };
    };
    block_on(async {
        let sink = cluster.sink_with(|settings| settings.login.password = Secret(b"no".to_vec()));
        assert_passing(sink.send(&event).await, "28P01");
        let sink = cluster.sink_with(|settings| settings.at.path = "nowhere".to_owned());
        assert_passing(sink.send(&event).await, "3D000");
        let sink = cluster.sink_with(|settings| settings.schema = "theirs".to_owned());
        assert_passing(sink.send(&event).await, "42703");
        let sink = cluster.sink_with(writer);
        assert_passing(sink.send(&event).await, "42501");
        let sink = cluster.sink_with(|settings| settings.create_tables = false);
        assert_passing(sink.send(&event).await, "42P01");
        // Two at once make what is not there, and the one that waited for it goes on by itself.
        let (one, two) = (cluster.sink(), cluster.sink());
        let (one, two) = tokio::join!(one.send(&event), two.send(&event));
        one.and(two).unwrap();
        sink.send(&event).await.unwrap();
        // Tables that are there need no more than the right to write to them.
        let sink = cluster.sink_with(writer);
        assert_passing(sink.send(&event).await, "42P01");
        cluster_grant(cluster.port).await;
        sink.send(&event).await.unwrap();
        let everyone = "ALTER USER postgres SET default_transaction_read_only = on";
        try_sql(cluster.port, "app", everyone).await.unwrap();
        assert_passing(cluster.sink().send(&event).await, "25006");
        let gone = free_port();
        let sink = cluster.sink_with(|settings| settings.at.port = gone);
        assert_passing(sink.send(&event).await, "refused");
    });
}

async fn cluster_grant(port: u16) {
    let grant = "GRANT USAGE ON SCHEMA app TO writer;
        GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA app TO writer";
    try_sql(port, "app", grant).await.unwrap();
}

#[test]
fn it_is_durable_unless_the_server_or_a_table_is_not() {
    let Some(mut cluster) = or_left_out("postgres", Cluster::with(&[])) else { return };
    let durable = |cluster: &Cluster| block_on(async { cluster.sink().check_durable().await });
    cluster.sql("ALTER USER postgres SET synchronous_commit = off");
    assert_eq!(durable(&cluster), Ok(()), "the session syncs");
    cluster.sql("ALTER TABLE app.notification SET UNLOGGED");
    assert!(durable(&cluster).unwrap_err().contains("UNLOGGED"));
    cluster.sql("ALTER TABLE app.notification SET LOGGED");
    assert_eq!(durable(&cluster), Ok(()));
    cluster.crash();
    cluster.arguments = vec!["-F"];
    cluster.start_again();
    assert!(durable(&cluster).unwrap_err().contains("fsync"));
    cluster.crash();
    assert!(durable(&cluster).unwrap_err().contains("refused"));
}

// --- TLS -----------------------------------------------------------------------------------------

#[test]
fn where_tls_is_asked_for_there_is_nothing_without_it_and_nobody_who_is_not_trusted() {
    let Some(mut cluster) = or_left_out("postgres", Cluster::with(&["-F"])) else { return };
    let event = receipt("a", "sent");
    let trusted = cluster.path("server.crt");
    let tls = |host: &str, ca_file: Option<&Path>| {
        let (host, ca_file) = (host.to_owned(), ca_file.map(Path::to_owned));
        move |settings: &mut PostgresSink| {
            settings.at.is_tls = true;
            settings.at.host = host;
            settings.tls.ca_file = ca_file;
        }
    };
    block_on(async {
        assert_passing(cluster.sink_with(tls("localhost", None)).send(&event).await, "no TLS");
    });
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    fs::write(&trusted, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(cluster.path("server.key"), key.serialize_pem()).unwrap();
    run(Command::new("chmod").arg("600").arg(cluster.path("server.key")));
    give_to(USER, &cluster.path("server.key"));
    let set = |name: &str, value: &Path| {
        cluster.sql(&format!("ALTER SYSTEM SET {name} = '{}'", value.display()));
    };
    set("ssl_cert_file", &trusted);
    set("ssl_key_file", &cluster.path("server.key"));
    cluster.sql("ALTER SYSTEM SET ssl = on");
    cluster.crash();
    cluster.start_again();
    block_on(async {
        cluster.sink_with(tls("localhost", Some(&trusted))).send(&event).await.unwrap();
        let stranger = cluster.sink_with(tls("localhost", None)).send(&event).await;
        assert_passing(stranger, "not trusted");
        let elsewhere = cluster.sink_with(tls("127.0.0.1", Some(&trusted))).send(&event).await;
        assert_passing(elsewhere, "not trusted");
    });
    assert_eq!(cluster.rows("notification").len(), 1);
}
