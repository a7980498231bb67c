//! The verbs that do not write: load, follow, head; and compact.

use std::sync::{Arc, atomic::Ordering};

use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use meta::Revision;
use store::{Change, Error, Head, Key, Loaded, Result, Stored, follow_with};
use tokio::time::timeout;
use tokio_postgres::{Client, Row, types::Type};

use crate::{
    backoff::Backoff,
    fault::{Fault, words},
    pool::Pooled,
    shared::Shared,
    writer::signed,
};

const LOADING: &str = "load the objects from PostgreSQL";
const FOLLOWING: &str = "read the log in PostgreSQL";
const COMPACTING: &str = "compact the log in PostgreSQL";
/// Objects fetched at a time.
const FETCH: &str = "FETCH 256 FROM objects";
const HEAD: &str = "SELECT revision, epoch, compacted FROM keelson.head";
/// Bounded by rows and bytes, but one at least. `octet_length` reads no stored value.
const LOG: &str = "
    SELECT revision, key, value FROM (
        SELECT l.revision, l.key, l.value, row_number() OVER w AS place,
            sum(coalesce(octet_length(l.value), 0)) OVER w AS bytes
        FROM keelson.log l WHERE l.revision > $1 AND l.revision <= $1 + 256
        WINDOW w AS (ORDER BY l.revision)
    ) next WHERE place = 1 OR bytes <= 4194304 ORDER BY revision";
/// Changes forgotten in one transaction: short enough that nobody notices.
const STEP: i64 = 2000;

pub(crate) fn load(shared: &Arc<Shared>) -> BoxStream<'_, Result<Loaded>> {
    let begin = async move {
        let pooled = shared.pool.get().await.map_err(|fault| fault.during(LOADING))?;
        let begun = begin(&pooled.session.client);
        let revision = timeout(shared.pool.config.answer, begun).await.map_err(|_| late(shared))??;
        Ok::<_, Error>(stream::try_unfold(Some((pooled, revision)), move |state| fetch(shared, state)))
    };
    // After an error nothing follows: `try_unfold` ends there, and so does a beginning that fails.
    stream::once(begin)
        .try_flatten()
        .map_ok(|items| stream::iter(items.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

/// One snapshot for all that follows, and its revision.
async fn begin(client: &Client) -> Result<Revision> {
    let failed = |error: tokio_postgres::Error| sql(LOADING, &error);
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
    let row = client.query_typed_one("SELECT revision FROM keelson.head", &[]).await.map_err(failed)?;
    client
        .batch_execute(
            "DECLARE objects NO SCROLL CURSOR FOR SELECT key, revision, value FROM keelson.objects",
        )
        .await
        .map_err(failed)?;
    Ok(Revision(number(&row, 0, LOADING)?))
}

type Loading<'a> = Option<(Pooled<'a>, Revision)>;

async fn fetch<'a>(shared: &'a Shared, state: Loading<'a>) -> Result<Option<(Vec<Loaded>, Loading<'a>)>> {
    let Some((pooled, revision)) = state else { return Ok(None) };
    let client = &pooled.session.client;
    let limit = shared.pool.config.answer;
    let rows = timeout(limit, client.query_typed(FETCH, &[])).await.map_err(|_| late(shared))?;
    let rows = rows.map_err(|error| sql(LOADING, &error))?;
    if rows.is_empty() {
        timeout(limit, client.batch_execute("COMMIT"))
            .await
            .map_err(|_| late(shared))?
            .map_err(|error| sql(LOADING, &error))?;
        pooled.done();
        return Ok(Some((vec![Loaded::At(revision)], None)));
    }
    let objects = rows.iter().map(|row| {
        let value: &[u8] = row.try_get(2).map_err(|error| sql(LOADING, &error))?;
        let (key, value) = (key(row, 0, LOADING)?, bytes::Bytes::copy_from_slice(value));
        Ok(Loaded::Object(Stored { key, value, revision: Revision(number(row, 1, LOADING)?) }))
    });
    Ok(Some((objects.collect::<Result<_>>()?, Some((pooled, revision)))))
}

pub(crate) fn follow(shared: &Arc<Shared>, after: Revision) -> BoxStream<'_, Result<Change>> {
    follow_with(after, shared.head.subscribe(), move |after| async move {
        let mut backoff = Backoff::new();
        loop {
            shared.check()?;
            if let Some(changes) = shared.window().read(after) {
                return Ok(changes);
            }
            match log(shared, after).await {
                // PostgreSQL may be away for longer than anybody's patience; a follower waits for it.
                Err(Error::Backend { doing, source }) if temporary(&*source) => {
                    tracing::debug!(doing, error = %source, "a follower waits for PostgreSQL");
                    backoff.wait(&*shared.pool.random).await;
                }
                result => return result,
            }
        }
    })
}

fn temporary(source: &(dyn std::error::Error + 'static)) -> bool {
    source.downcast_ref().is_some_and(Fault::is_temporary)
}

/// At least one change after `after`, which is below the head, from the log.
pub(crate) async fn log(shared: &Shared, after: Revision) -> Result<Vec<Change>> {
    let from = signed(after.0);
    let rows = shared.pool.query(FOLLOWING, LOG, &[(&from, Type::INT8)]).await?;
    let mut changes = Vec::with_capacity(rows.len());
    for (row, expected) in rows.iter().zip(after.0 + 1..) {
        let revision = number(row, 0, FOLLOWING)?;
        if revision != expected {
            break;
        }
        let value: Option<&[u8]> = row.try_get(2).map_err(|error| sql(FOLLOWING, &error))?;
        let value = value.map(bytes::Bytes::copy_from_slice);
        changes.push(Change { revision: Revision(revision), key: key(row, 1, FOLLOWING)?, value });
    }
    if !changes.is_empty() {
        return Ok(changes);
    }
    let end = shared.window().end();
    let Head { revision, epoch, compacted } = head(shared).await?;
    shared.observe(revision.0, epoch, end);
    shared.check()?;
    if compacted > after {
        return Err(Error::Compacted { asked: after, compacted });
    }
    Err(Fault::Damaged(format!("the log has no revision {}, the head is {revision}", after.0 + 1))
        .during(FOLLOWING))
}

pub(crate) async fn head(shared: &Shared) -> Result<Head> {
    const DOING: &str = "ask PostgreSQL for its head";
    let rows = shared.pool.query(DOING, HEAD, &[]).await?;
    let row = rows.first().ok_or_else(|| Fault::Damaged("keelson.head is empty".into()).during(DOING))?;
    Ok(Head {
        revision: Revision(number(row, 0, DOING)?),
        epoch: number(row, 1, DOING)?,
        compacted: Revision(number(row, 2, DOING)?),
    })
}

/// First nobody may start before `through` any more, then the rows go, a few at a time. The head is
/// locked for less than a disk sync: losing that update in a crash only keeps history longer.
pub(crate) async fn compact(shared: &Shared, through: Revision) -> Result<()> {
    let epoch = signed(shared.epoch.load(Ordering::Relaxed));
    let raise = "WITH fast AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
                 UPDATE keelson.head SET compacted = least($1, revision) FROM fast
                 WHERE compacted < least($1, revision) AND epoch = $2";
    let limit = signed(through.0);
    shared.pool.query(COMPACTING, raise, &[(&limit, Type::INT8), (&epoch, Type::INT8)]).await?;
    let compacted = head(shared).await?.compacted;
    shared.window().forget(compacted.0);
    let compacted = signed(compacted.0);
    let oldest = "SELECT revision FROM keelson.log ORDER BY revision LIMIT 1";
    let Some(row) = shared.pool.query(COMPACTING, oldest, &[]).await?.into_iter().next() else {
        return Ok(());
    };
    let mut from = signed(number(&row, 0, COMPACTING)?);
    while from <= compacted {
        let next = from.saturating_add(STEP).min(compacted.saturating_add(1));
        // Rows that another server is just forgetting are its own.
        let forget = "DELETE FROM keelson.log WHERE revision IN (
            SELECT revision FROM keelson.log WHERE revision >= $1 AND revision < $2 FOR UPDATE SKIP LOCKED)";
        shared.pool.query(COMPACTING, forget, &[(&from, Type::INT8), (&next, Type::INT8)]).await?;
        from = next;
    }
    let gone = "DELETE FROM keelson.writer WHERE at < now() - interval '1 day'";
    shared.pool.query(COMPACTING, gone, &[]).await?;
    Ok(())
}

/// Raises the epoch and joins it: every other open store is deposed.
pub(crate) async fn take_over(shared: &Shared) -> Result<u64> {
    // Before PostgreSQL has it: the tail, which may be first to see the new epoch, must not take it for another's.
    let before = shared.epoch.fetch_add(1, Ordering::Relaxed);
    let raised = raise(shared).await;
    shared.epoch.store(*raised.as_ref().unwrap_or(&before), Ordering::Relaxed);
    raised
}

async fn raise(shared: &Shared) -> Result<u64> {
    const DOING: &str = "take the store over";
    let raise = "UPDATE keelson.head SET epoch = epoch + 1 RETURNING epoch";
    let rows = shared.pool.query(DOING, raise, &[]).await?;
    let row = rows.first().ok_or_else(|| Fault::Damaged("keelson.head is empty".into()).during(DOING))?;
    number(row, 0, DOING)
}

fn number(row: &Row, column: usize, doing: &'static str) -> Result<u64> {
    row.try_get::<_, i64>(column).map(i64::cast_unsigned).map_err(|error| sql(doing, &error))
}

fn key(row: &Row, column: usize, doing: &'static str) -> Result<Key> {
    let text: &str = row.try_get(column).map_err(|error| sql(doing, &error))?;
    Key::parse(text).map_err(|error| Fault::Damaged(error.to_string()).during(doing))
}

fn sql(doing: &'static str, error: &tokio_postgres::Error) -> Error {
    Fault::Sql { doing, why: words(error) }.during(doing)
}

fn late(shared: &Shared) -> Error {
    let why = format!("no answer within {:?}", shared.pool.config.answer);
    Fault::Sql { doing: LOADING, why }.during(LOADING)
}
