//! Fills an empty store with what another one gave, at the revisions that the objects have: whole or not at
//! all. History begins there, and every store that was open is deposed.

use futures::{StreamExt, stream::BoxStream};
use meta::Revision;
use store::{Error, Loaded, Result, Stored};
use tokio::time::timeout;
use tokio_postgres::{Client, types::Type};

use crate::{
    fault::{Fault, words},
    pool::{Parameters, Pool},
    writer::signed,
};

const DOING: &str = "import into PostgreSQL";
/// One statement takes so many objects, or somewhat more than so many bytes.
const OBJECTS_MAX: usize = 1_000;
const BYTES_MAX: usize = 4 << 20;

pub(crate) async fn import(pool: &Pool, mut objects: BoxStream<'_, Result<Loaded>>) -> Result<Revision> {
    let session = pool.connect(|| None).await.map_err(|fault| fault.during(DOING))?;
    let into = Into { client: &session.client, pool };
    into.run("BEGIN", &[]).await?;
    let empty =
        "SELECT FROM keelson.head WHERE revision = 0 AND NOT EXISTS (SELECT FROM keelson.objects) FOR UPDATE";
    if into.run(empty, &[]).await? == 0 {
        return Err(Error::NotEmpty { what: format!("the database at {}", pool.config.name) });
    }
    let (mut batch, mut bytes, mut at) = (Vec::new(), 0, None);
    while let Some(item) = objects.next().await {
        match item? {
            Loaded::Object(object) => {
                bytes += object.value.len();
                batch.push(object);
                if batch.len() >= OBJECTS_MAX || bytes >= BYTES_MAX {
                    into.insert(&std::mem::take(&mut batch)).await?;
                    bytes = 0;
                }
            }
            Loaded::At(revision) => at = Some(revision),
        }
    }
    into.insert(&batch).await?;
    let early = || Fault::Damaged("what was to be imported ended early".into()).during(DOING);
    let revision = at.ok_or_else(early)?;
    let newest = signed(revision.0);
    let stands = "UPDATE keelson.head SET revision = $1, compacted = $1, epoch = epoch + 1
                  WHERE NOT EXISTS (SELECT FROM keelson.objects WHERE revision > $1) RETURNING 1";
    if into.run(stands, &[(&newest, Type::INT8)]).await? == 0 {
        return Err(Fault::Damaged("an object to be imported is newer than its store".into()).during(DOING));
    }
    into.run("COMMIT", &[]).await?;
    Ok(revision)
}

/// The transaction; it ends without effect when its connection is dropped.
struct Into<'a> {
    client: &'a Client,
    pool: &'a Pool,
}

impl Into<'_> {
    /// The number of rows.
    async fn run(&self, sql: &str, parameters: Parameters<'_>) -> Result<usize> {
        let late =
            || Fault::Sql { doing: DOING, why: format!("no answer within {:?}", self.pool.config.answer) };
        let rows = timeout(self.pool.config.answer, self.client.query_typed(sql, parameters)).await;
        let rows = rows.map_err(|_| late().during(DOING))?;
        let failed =
            |error: tokio_postgres::Error| Fault::Sql { doing: DOING, why: words(&error) }.during(DOING);
        rows.map(|rows| rows.len()).map_err(failed)
    }

    async fn insert(&self, objects: &[Stored]) -> Result<()> {
        let keys: Vec<&str> = objects.iter().map(|object| object.key.as_str()).collect();
        let revisions: Vec<i64> = objects.iter().map(|object| signed(object.revision.0)).collect();
        let values: Vec<&[u8]> = objects.iter().map(|object| object.value.as_ref()).collect();
        let sql = "INSERT INTO keelson.objects (key, revision, value)
                   SELECT u.key, u.revision, u.value FROM unnest($1, $2, $3) u (key, revision, value)";
        let parameters: Parameters<'_> =
            &[(&keys, Type::TEXT_ARRAY), (&revisions, Type::INT8_ARRAY), (&values, Type::BYTEA_ARRAY)];
        self.run(sql, parameters).await.map(|_| ())
    }
}
