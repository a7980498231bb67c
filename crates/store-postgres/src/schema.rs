//! The tables: made and brought up to date by the program, under a lock, whole or not at all.

use tokio::time::timeout;
use tokio_postgres::{Client, error::SqlState, types::Type};

use crate::{
    config::Config,
    fault::{Fault, words},
    pool::Pool,
};

/// Each brings the schema from the version before to its own.
const MIGRATIONS: &[&str] = &[include_str!("schema/1.sql")];
/// The oldest `PostgreSQL` with `gen_random_uuid` of its own.
const OLDEST: i32 = 130_000;
/// Of the lock, within the database: "keel".
const LOCK: i64 = 0x6b65_656c;

/// Where the store stood when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) cluster: String,
    pub(crate) revision: u64,
    pub(crate) epoch: u64,
    pub(crate) compacted: u64,
}

/// Makes or migrates the schema. Changes nothing when it fails.
pub(crate) async fn prepare(pool: &Pool) -> Result<Opened, Fault> {
    let session = pool.connect(|| None).await?;
    let work = work(&session.client, &pool.config);
    let late = |_| sql(format!("no answer within {:?}", pool.config.answer));
    timeout(pool.config.answer, work).await.map_err(late)?
}

async fn work(client: &Client, config: &Config) -> Result<Opened, Fault> {
    let failed = |error: tokio_postgres::Error| sql(words(&error));
    let row = client
        .query_typed_one(
            "SELECT current_setting('server_version_num')::int4, current_setting('server_version')",
            &[],
        )
        .await
        .map_err(failed)?;
    if row.try_get::<_, i32>(0).map_err(failed)? < OLDEST {
        return Err(Fault::Old { found: row.try_get(1).map_err(failed)? });
    }
    client.batch_execute("BEGIN").await.map_err(failed)?;
    client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await.map_err(failed)?;
    let newest = MIGRATIONS.len() as i32;
    let found = version(client, config).await?;
    if found > newest {
        return Err(Fault::Newer { database: config.database.clone(), found, supported: newest });
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or_default()) {
        client.batch_execute(migration).await.map_err(|error| not_made(config, &error))?;
    }
    let row = client
        .query_typed_one("SELECT cluster::text, revision, epoch, compacted FROM keelson.head", &[])
        .await
        .map_err(failed)?;
    client.batch_execute("COMMIT").await.map_err(failed)?;
    let number = |column| row.try_get::<_, i64>(column).map(i64::cast_unsigned).map_err(failed);
    Ok(Opened {
        cluster: row.try_get(0).map_err(failed)?,
        revision: number(1)?,
        epoch: number(2)?,
        compacted: number(3)?,
    })
}

/// The version of our schema, 0 in an empty database; anything else is not ours.
async fn version(client: &Client, config: &Config) -> Result<i32, Fault> {
    let failed = |error: tokio_postgres::Error| sql(words(&error));
    let found = client.query_typed(TABLES, &[]).await.map_err(failed)?;
    let names: Vec<String> =
        found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)?;
    let foreign = |found: String| Err(Fault::Foreign { database: config.database.clone(), found });
    if names.iter().any(|name| name == "keelson.schema_version") {
        let rows =
            client.query_typed("SELECT version FROM keelson.schema_version", &[]).await.map_err(failed)?;
        return match rows.as_slice() {
            [row] => row.try_get(0).map_err(failed),
            _ => foreign("its table keelson.schema_version is not ours".into()),
        };
    }
    match names.as_slice() {
        [] => Ok(0),
        [name, ..] => foreign(format!("it holds {name}")),
    }
}

/// Tables, views and schemas that neither `PostgreSQL` nor an extension made, ours first.
const TABLES: &str = "
    SELECT n.nspname || '.' || c.relname AS name, n.nspname <> 'keelson' AS other
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
      AND NOT EXISTS (SELECT FROM pg_depend d
          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    UNION ALL SELECT 'the schema keelson', true FROM pg_namespace WHERE nspname = 'keelson'
    ORDER BY other, name LIMIT 100";

fn not_made(config: &Config, error: &tokio_postgres::Error) -> Fault {
    let why = words(error);
    match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            let database = &config.database;
            sql(format!(
                "{why}; make the URL's user the owner with ALTER DATABASE {database:?} OWNER TO USER"
            ))
        }
        _ => sql(why),
    }
}

fn sql(why: String) -> Fault {
    Fault::Sql { doing: "prepare the tables in PostgreSQL", why }
}
