//! The demo's database as its user sees it: tables, articles, the job, and what the daemon left in the catalogs.

use std::pin::pin;

use anyhow::{Context, Result, bail};
use lantern::embedded::{Installation, PrivatePostgres};
use lantern::postgres::ConnectionString;
use testkit::client::try_connect;
use testkit::jobs::{DOCUMENTED_TABLE, try_insert_job};
use testkit::{jobs, server};
use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::articles::Article;
use crate::paths::Paths;

/// A server in a temporary directory, which goes when the server goes. Its commits are durable, as those of a server in
/// production.
///
/// Cancellation safe: where the future is dropped, the server stops as soon as it has started.
pub async fn start_server(paths: &Paths) -> Result<PrivatePostgres> {
    let data = paths.data.clone();
    let start = move || server::start(&Installation::find(&data)?, &server::DURABLE);
    Ok(tokio::task::spawn_blocking(start).await??)
}

/// A user's session on a database of its own.
pub struct Database {
    uri: String,
    client: Client,
}

pub struct Job {
    id: i32,
}

/// How far the initial backfill of a job is.
pub struct Progress {
    pub rows: i64,
    pub embedded: i64,
    pub finished: bool,
}

/// The numbers of what a job keeps on the server.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub publications: i64,
    pub slots: i64,
}

impl Database {
    pub async fn create(postgres: &PrivatePostgres, name: &str) -> Result<Database> {
        let maintenance = connect(&postgres.uri("postgres")).await?;
        maintenance
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await?;
        let uri = postgres.uri(name);
        let client = connect(&uri).await?;
        client
            .batch_execute("CREATE EXTENSION vector")
            .await
            .context("cannot create the extension pgvector")?;
        Ok(Database { uri, client })
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    pub fn redacted_uri(&self) -> String {
        self.uri
            .parse::<ConnectionString>()
            .map_or_else(|error| error.to_string(), |uri| uri.to_string())
    }

    /// Another session on the same database.
    pub async fn another_session(&self) -> Result<Client> {
        connect(&self.uri).await
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    pub async fn version(&self) -> Result<String> {
        let question = "SELECT split_part(current_setting('server_version'), ' ', 1), extversion
                        FROM pg_extension WHERE extname = 'vector'";
        let row = self.client.query_one(question, &[]).await?;
        let (server, pgvector): (&str, &str) = (row.get(0), row.get(1));
        Ok(format!("PostgreSQL {server} with pgvector {pgvector}"))
    }

    /// Creates the jobs table with the statement of README.md: a test compares the two.
    pub async fn create_jobs_table(&self) -> Result<()> {
        let created = self.client.batch_execute(DOCUMENTED_TABLE).await;
        created.context("the server rejects the documented CREATE TABLE jobs")
    }

    /// Creates the table that is searched in, and copies the articles into it.
    pub async fn load_articles(&self, articles: &[Article]) -> Result<u64> {
        self.client
            .batch_execute("CREATE TABLE articles (id serial PRIMARY KEY, title text, body text)")
            .await?;
        let sink = self
            .client
            .copy_in("COPY articles (title, body) FROM STDIN (FORMAT binary)")
            .await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::TEXT, Type::TEXT]));
        for article in articles {
            writer
                .as_mut()
                .write(&[&article.title, &article.body])
                .await?;
        }
        Ok(writer.finish().await?)
    }

    pub async fn insert_job(&self) -> Result<Job> {
        let job = jobs::Job::at(self.uri.clone(), "articles", "body", "body_embedding");
        let id = try_insert_job(&self.client, &job).await?;
        Ok(Job { id })
    }

    pub async fn cancel(&self, job: &Job) -> Result<()> {
        self.client
            .execute(
                "UPDATE jobs SET canceled_at = true WHERE id = $1",
                &[&job.id],
            )
            .await?;
        Ok(())
    }

    /// # Errors
    /// With the daemon's reason where the job failed.
    pub async fn progress(&self, job: &Job) -> Result<Progress> {
        let question =
            "SELECT init_failure_reason, init_finished_at IS NOT NULL FROM jobs WHERE id = $1";
        let row = self.client.query_one(question, &[&job.id]).await?;
        if let Some(reason) = row.get::<_, Option<String>>(0) {
            bail!("the job failed: {reason}");
        }
        let finished = row.get(1);
        let rows = self
            .client
            .query_one("SELECT count(*) FROM articles", &[])
            .await?
            .get(0);
        // Prepared each time: the daemon adds the column in the meantime.
        match self
            .client
            .query_one("SELECT count(body_embedding) FROM articles", &[])
            .await
        {
            Ok(row) => Ok(Progress {
                rows,
                embedded: row.get(0),
                finished,
            }),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_COLUMN) => Ok(Progress {
                rows,
                embedded: 0,
                finished: false,
            }),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn leftovers(&self) -> Result<Leftovers> {
        let question = "SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_replication_slots)";
        let row = self.client.query_one(question, &[]).await?;
        Ok(Leftovers {
            publications: row.get(0),
            slots: row.get(1),
        })
    }
}

impl Job {
    pub fn id(&self) -> i32 {
        self.id
    }
}

async fn connect(uri: &str) -> Result<Client> {
    let connected = try_connect(uri, "demo").await;
    connected.context("cannot connect to the private PostgreSQL")
}
