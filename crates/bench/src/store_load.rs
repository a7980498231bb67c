//! Measures the embedded store alone: durable writes, then closing, opening and loading.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::TryStreamExt;
use meta::{GroupResource, ObjectKey};
use store::{Key, Loaded, Outcome, Store, Write};
use store_embedded::EmbeddedStore;

use crate::{
    cli::StoreOptions,
    drive::{Limit, drive},
    failure::{Failure, Result},
    objects,
    process::memory_mb,
    report::{Report, Row},
};

/// No fill takes longer than this.
const FILL: Duration = Duration::from_secs(3600);

pub(crate) async fn run(options: &StoreOptions) -> Result<Report> {
    let mut report = Report::default();
    report.setting("objects", options.objects);
    report.setting("bytes", options.object_bytes);
    report.setting("batch", options.batch);
    report.setting("batches in flight", options.in_flight);

    let row = fill(options).await?;
    let writes = Duration::from_secs_f64(row.seconds);
    report.rows.push(Row::counted("durable writes", options.objects as u64, writes));
    report.rows.push(row);

    let begin = Instant::now();
    let store = EmbeddedStore::open(&options.directory)?;
    let opened = begin.elapsed();
    let mut found = 0;
    let mut loading = store.load();
    while let Some(item) = loading.try_next().await? {
        found += usize::from(matches!(item, Loaded::Object(_)));
    }
    let loaded = begin.elapsed();
    drop(loading);
    report.figure("open", opened.as_secs_f64() * 1000.0, "ms");
    report.figure("open and load", loaded.as_secs_f64() * 1000.0, "ms");
    report.figure("memory, open", memory_mb(&[std::process::id()])?, "MB");
    drop(store);
    report.figure("on disk", disk_mb(options)?, "MB");
    if !options.keep {
        std::fs::remove_dir_all(&options.directory)
            .map_err(|source| Failure::Read { path: options.directory.clone(), source })?;
    }
    if found == options.objects {
        Ok(report)
    } else {
        Err(Failure::Lost { found, expected: options.objects })
    }
}

async fn fill(options: &StoreOptions) -> Result<Row> {
    let store = Arc::new(EmbeddedStore::open(&options.directory)?);
    let revision = store.head().await?.revision.0;
    if revision > 0 {
        return Err(Failure::NotEmpty { directory: options.directory.clone(), revision });
    }
    let (objects, batch, bytes) = (options.objects as u64, options.batch.max(1) as u64, options.object_bytes);
    let limit = Limit { requests: objects.div_ceil(batch), time: FILL };
    drive("batches", options.in_flight, limit, move |_, index| {
        let writes: Result<Vec<Write>> =
            (index * batch..((index + 1) * batch).min(objects)).map(|i| write(i, bytes)).collect();
        let store = store.clone();
        async move {
            let outcomes = store.commit(writes?).await?;
            let done = outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done(_)));
            let wrong = || Failure::Answer { path: format!("batch {index}"), why: "a write clashed".into() };
            if done { Ok(()) } else { Err(wrong()) }
        }
    })
    .await
}

fn write(index: u64, bytes: usize) -> Result<Write> {
    let namespace = format!("namespace-{}", index % 50);
    let value: Bytes = objects::config_map(&namespace, index, 0, 0, bytes);
    let key =
        Key::new(&GroupResource::new("", "configmaps"), &ObjectKey::new(namespace, objects::name(index)));
    let key = key.map_err(|error| Failure::Answer { path: objects::name(index), why: error.to_string() })?;
    Ok(Write::create(key, value))
}

fn disk_mb(options: &StoreOptions) -> Result<f64> {
    use std::os::unix::fs::MetadataExt;
    let read = || -> std::io::Result<u64> {
        std::fs::read_dir(&options.directory)?.map(|entry| Ok(entry?.metadata()?.blocks() * 512)).sum()
    };
    let bytes = read().map_err(|source| Failure::Read { path: options.directory.clone(), source })?;
    Ok(bytes as f64 / f64::from(1 << 20))
}
