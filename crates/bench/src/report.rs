//! The result: rows of a table, or JSON.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

use crate::cli::Output;

/// One measured phase.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) phase: String,
    /// How many were done.
    pub(crate) done: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// Time of one, in milliseconds, where it was measured.
    pub(crate) median_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// Processor time of the server for one, in microseconds, where its process is known.
    pub(crate) server_us: Option<f64>,
    /// How many were refused, failed, missed or doubled.
    pub(crate) errors: u64,
    /// What went wrong, or how it was measured.
    pub(crate) note: Option<String>,
}

/// One measured quantity.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) rows: Vec<Row>,
}

impl Row {
    /// Of the times of all that succeeded.
    pub(crate) fn new(
        phase: &str,
        mut times_us: Vec<u32>,
        elapsed: Duration,
        errors: u64,
        first: Option<String>,
    ) -> Self {
        times_us.sort_unstable();
        let percentile = |percent: usize| {
            let at = times_us.len().saturating_sub(1) * percent / 100;
            times_us.get(at).map(|us| f64::from(*us) / 1000.0)
        };
        let note = first.map(|first| format!("{errors} failed: {first}"));
        Self {
            median_ms: percentile(50),
            p99_ms: percentile(99),
            errors,
            note,
            ..Self::counted(phase, times_us.len() as u64, elapsed)
        }
    }

    /// Of a count and a time.
    pub(crate) fn counted(phase: &str, done: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let per_second = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
        let phase = phase.to_owned();
        Self {
            phase,
            done,
            seconds,
            per_second,
            median_ms: None,
            p99_ms: None,
            server_us: None,
            errors: 0,
            note: None,
        }
    }
}

impl Report {
    /// Adds a quantity.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    /// Adds a setting that the numbers depend on.
    pub(crate) fn setting(&mut self, name: &str, value: impl ToString) {
        self.settings.push((name.to_owned(), value.to_string()));
    }

    /// Whether nothing failed.
    pub(crate) fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.errors == 0)
    }

    /// As text, with a newline at the end.
    pub(crate) fn show(&self, output: Output) -> String {
        match output {
            Output::Json => {
                let json = serde_json::to_string_pretty(self);
                json.unwrap_or_else(|error| format!("{{\"error\":{:?}}}", error.to_string())) + "\n"
            }
            Output::Table => self.table(),
        }
    }

    fn table(&self) -> String {
        let mut out = String::new();
        let settings: Vec<String> =
            self.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}\n", settings.join(", "));
        for Figure { name, value, unit } in &self.figures {
            let _ = writeln!(out, "{name:<32} {value:>10.1} {unit}");
        }
        if !self.rows.is_empty() {
            let _ = writeln!(
                out,
                "\n{:<24} {:>10} {:>8} {:>12} {:>10} {:>10} {:>10} {:>7}",
                "phase", "done", "seconds", "per second", "median ms", "99% ms", "server us", "errors"
            );
        }
        let time = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.2}"));
        for Row { phase, done, seconds, per_second, median_ms, p99_ms, server_us, errors, note } in &self.rows
        {
            let (median, p99, server) = (time(*median_ms), time(*p99_ms), time(*server_us));
            let _ = writeln!(
                out,
                "{phase:<24} {done:>10} {seconds:>8.2} {per_second:>12.0} {median:>10} {p99:>10} {server:>10} {errors:>7}"
            );
            if let Some(note) = note {
                let _ = writeln!(out, "  {note}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_tables() {
        let row = Row::new("get", (1..=1000).rev().collect(), Duration::from_secs(2), 0, None);
        assert_eq!(
            (row.done, row.per_second, row.median_ms, row.p99_ms),
            (1000, 500.0, Some(0.5), Some(0.99))
        );
        let mut report = Report { rows: vec![row], ..Report::default() };
        report.figure("ready", 12.34, "ms");
        assert!(report.is_clean());
        let table = report.show(Output::Table);
        assert!(
            table.contains(
                "get                            1000     2.00          500       0.50       0.99          -       0"
            ),
            "{table}"
        );
        assert!(table.contains("ready                                  12.3 ms"), "{table}");
        report.rows.push(Row::new("bad", vec![], Duration::ZERO, 3, Some("no".into())));
        assert!(!report.is_clean());
        let json: serde_json::Value = serde_json::from_str(&report.show(Output::Json)).unwrap();
        assert_eq!(json["rows"][1]["note"], "3 failed: no");
    }
}
