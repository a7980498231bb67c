//! What the operator's process takes: memory, processor time, and reconciliations as its own metrics count them.

use std::{
    ops::Sub,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    cli::ProcessOptions,
    failure::{Failure, Result},
    process::{cpu_seconds, memory_mb},
    report::{Report, Row},
};

/// Longer metrics are not read.
const METRICS_BYTES_MAX: u64 = 1 << 20;
/// An operator that has just been started may not listen, or not lead, yet.
const START: Duration = Duration::from_secs(30);

/// Who is measured.
pub(crate) struct Operator {
    /// Its processes; none when they are not known.
    pids: Vec<u32>,
    /// `HOST:PORT` of its metrics.
    metrics: Option<String>,
}

/// What it had spent at one moment, or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    processor_seconds: Option<f64>,
    /// Reconciliations, the seconds that they took, and writes.
    reconciles: Option<(f64, f64, f64)>,
    at: Option<Instant>,
}

impl Operator {
    pub(crate) fn new(pids: Vec<u32>, metrics: Option<String>) -> Self {
        Self { pids, metrics }
    }

    /// Waits for as long as the user said, then notes memory, and processor time of the second half.
    pub(crate) async fn rest(&self, process: &ProcessOptions, report: &mut Report, with: &str) -> Result<()> {
        if self.pids.is_empty() {
            return Ok(());
        }
        let half = Duration::from_secs(process.idle_seconds) / 2;
        tokio::time::sleep(half).await;
        let (before, begin) = (cpu_seconds(&self.pids)?, Instant::now());
        tokio::time::sleep(half).await;
        let share = (cpu_seconds(&self.pids)? - before) / begin.elapsed().as_secs_f64().max(0.001);
        report.figure(format!("memory, {with}"), memory_mb(&self.pids)?, "MB");
        report.figure(format!("processor at rest, {with}"), share * 100.0, "% of a core");
        Ok(())
    }

    pub(crate) async fn spent(&self) -> Result<Spent> {
        let processor_seconds = if self.pids.is_empty() { None } else { Some(cpu_seconds(&self.pids)?) };
        let reconciles = match &self.metrics {
            Some(address) => Some(totals(address).await?),
            None => None,
        };
        Ok(Spent { processor_seconds, reconciles, at: Some(Instant::now()) })
    }
}

/// Reconciliations, their seconds and writes, once the operator leads and counts them.
async fn totals(address: &str) -> Result<(f64, f64, f64)> {
    let begin = Instant::now();
    loop {
        let read = async {
            let text = metrics(address)
                .await
                .map_err(|source| Failure::Connect { to: address.to_owned(), source })?;
            let total = |name: &str| sum(&text, &format!("keelson_controller_{name}"), address);
            Ok((total("reconciles_total")?, total("reconcile_seconds_total")?, total("writes_total")?))
        };
        match read.await {
            Err(_) if begin.elapsed() < START => tokio::time::sleep(Duration::from_millis(20)).await,
            told => return told,
        }
    }
}

/// One request by hand: plain HTTP/1.1, and the connection ends with the answer.
async fn metrics(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.take(METRICS_BYTES_MAX).read_to_string(&mut text).await?;
    Ok(text)
}

/// The sum of a series over all its labels.
fn sum(text: &str, series: &str, address: &str) -> Result<f64> {
    let values = text
        .lines()
        .filter(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    let (count, total) = values.fold((0_u32, 0.0), |(count, total), value| (count + 1, total + value));
    if count > 0 {
        return Ok(total);
    }
    Err(Failure::Answer { path: format!("{address}/metrics"), why: format!("there is no {series}") })
}

impl Sub for Spent {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let processor_seconds =
            self.processor_seconds.zip(before.processor_seconds).map(|(after, before)| after - before);
        let reconciles = self
            .reconciles
            .zip(before.reconciles)
            .map(|(after, before)| (after.0 - before.0, after.1 - before.1, after.2 - before.2));
        Self { processor_seconds, reconciles, at: before.at }
    }
}

impl Spent {
    /// A row of the reconciliations, where they are known. The time of one is that of the operator's clock, what it
    /// waited for the API server and the scheduler included.
    pub(crate) fn row(&self, name: &str) -> Option<Row> {
        let (reconciles, seconds, writes) = self.reconciles?;
        if reconciles < 1.0 {
            return None;
        }
        let done = reconciles.round().to_string().parse().unwrap_or(0);
        let mut row = Row::counted(name, done, self.at?.elapsed());
        row.server_us = self.processor_seconds.map(|seconds| seconds * 1e6 / reconciles);
        let mean_ms = seconds * 1000.0 / reconciles;
        row.note = Some(format!("mean of one {mean_ms:.2} ms, {writes:.0} writes"));
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "HTTP/1.1 200 OK\r\n\r\n# TYPE keelson_controller_reconciles_total counter\n\
        keelson_controller_reconciles_total{controller=\"a\"} 3\n\
        keelson_controller_reconciles_total{controller=\"b\"} 4\n\
        keelson_controller_reconciles_total_more{controller=\"b\"} 100\n\
        keelson_controller_reconcile_seconds_total{controller=\"a\"} 0.014\n";

    #[test]
    fn series_are_summed_and_a_missing_one_is_told() {
        assert_eq!(sum(TEXT, "keelson_controller_reconciles_total", "x").unwrap(), 7.0);
        assert_eq!(sum(TEXT, "keelson_controller_reconcile_seconds_total", "x").unwrap(), 0.014);
        let told = sum(TEXT, "keelson_controller_writes_total", "x:1").unwrap_err().to_string();
        assert!(told.contains("x:1/metrics") && told.contains("writes_total"), "{told}");
    }

    #[test]
    fn what_was_spent_is_the_difference() {
        let at = |seconds, reconciles| Spent {
            processor_seconds: Some(seconds),
            reconciles: Some(reconciles),
            at: Some(Instant::now()),
        };
        let row = (at(3.0, (30.0, 0.5, 9.0)) - at(1.0, (10.0, 0.1, 4.0))).row("r").unwrap();
        assert_eq!((row.done, row.server_us), (20, Some(100_000.0)));
        assert_eq!(row.note.as_deref(), Some("mean of one 20.00 ms, 5 writes"));
        assert!((at(1.0, (1.0, 1.0, 1.0)) - at(1.0, (1.0, 1.0, 1.0))).row("r").is_none());
        assert!(Spent::default().row("r").is_none());
    }
}
