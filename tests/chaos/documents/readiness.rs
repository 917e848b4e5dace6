//! Whether the job is at work. Other faults may have stopped it a moment ago; those that are about what it reads and writes
//! would then strike nothing.

use std::time::Duration;

use tokio_postgres::{Client, Error};

use super::PassageTableName;
use super::quiet_rows::{Edit, QuietRows};
use crate::faults::client;
use crate::testbed::Testbed;

/// How long the job is waited for.
const PATIENCE: Duration = Duration::from_secs(12);
/// The documents are changed again after so long: a TRUNCATE may have taken them.
const EDIT_INTERVAL: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Changes the documents of a fault, and waits until the job has written their passages. Returns the table in which they
/// are; `None` where the job does not come to that.
pub async fn settle(testbed: &Testbed, quiet: QuietRows) -> Option<PassageTableName> {
    let settled = async {
        loop {
            if let Ok(Some(table)) = try_to_settle(testbed, quiet).await {
                return table;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let settled = tokio::time::timeout(PATIENCE, settled).await.ok();
    if settled.is_none() {
        testbed.log("the job does not come to the documents of the fault");
    }
    settled
}

async fn try_to_settle(
    testbed: &Testbed,
    quiet: QuietRows,
) -> Result<Option<PassageTableName>, Error> {
    let client = client(testbed).await?;
    let shape = &testbed.schedule.shape;
    quiet.edit(&client, shape, Edit::Lengthen).await?;
    let shown = async {
        loop {
            if let Some(table) = table_of_job(&client).await?
                && is_shown(&client, table, testbed, quiet).await?
            {
                return Ok(table);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let shown = tokio::time::timeout(EDIT_INTERVAL, shown).await;
    shown.ok().transpose()
}

/// The table for passages that the jobs row names.
async fn table_of_job(client: &Client) -> Result<Option<PassageTableName>, Error> {
    let named = "SELECT min(chunk_table) FROM jobs";
    let named = client.query_one(named, &[]).await?;
    let named: Option<String> = named.get(0);
    Ok(named.and_then(|named| PassageTableName::from_row(&named)))
}

/// Whether the view shows all documents of a fault: their passages are those of their texts.
pub async fn is_shown(
    client: &Client,
    table: PassageTableName,
    testbed: &Testbed,
    quiet: QuietRows,
) -> Result<bool, Error> {
    let shape = &testbed.schedule.shape;
    let keys = quiet.edited().map(|row| format!("({})", shape.key(row)));
    let keys: Vec<String> = keys.collect();
    let columns = shape.key_columns();
    let shown = format!(
        "SELECT count(*) = {} FROM {} WHERE chunk_seq = 0 AND ({columns}) IN ({})",
        keys.len(),
        table.view,
        keys.join(", ")
    );
    Ok(client.query_one(&shown, &[]).await?.get(0))
}
