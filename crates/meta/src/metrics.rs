//! Numbers that Prometheus collects, and the text it reads them from (exposition format 0.0.4).
//!
//! Guarantees: counting takes no lock and allocates nothing; the text of a histogram agrees with itself
//! whoever counts meanwhile; a family without a sample leaves no trace in the text. No crate serves: those
//! there are keep a registry for the whole process, and several servers run in one here.

use std::{
    fmt::{Display, Write as _},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of a histogram's buckets, in ascending order, and what they count.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Each in `unit`.
    pub upper: &'static [u64],
    /// What one is.
    pub unit: Unit,
}

/// What a histogram is fed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds, shown as seconds.
    Nanos,
    /// Microseconds, shown as seconds.
    Micros,
    /// Shown as they are: bytes, seats.
    Whole,
}

impl Unit {
    #[allow(clippy::cast_precision_loss, reason = "sums beyond 2^53 lose digits that nobody looks at")]
    fn shown(self, value: u64) -> f64 {
        match self {
            Self::Nanos => value as f64 / 1e9,
            Self::Micros => value as f64 / 1e6,
            Self::Whole => value as f64,
        }
    }
}

/// A histogram.
#[derive(Debug)]
pub struct Histogram {
    bounds: Bounds,
    /// One more than there are bounds: the last holds what is above all.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        let buckets = (0..=bounds.upper.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts a value in the histogram's unit.
    pub fn observe(&self, value: u64) {
        self.observe_times(value, 1, value);
    }

    /// Counts a time; the histogram must be one of times.
    pub fn took(&self, time: Duration) {
        debug_assert_ne!(self.bounds.unit, Unit::Whole);
        let time = if self.bounds.unit == Unit::Nanos { time.as_nanos() } else { time.as_micros() };
        self.observe(u64::try_from(time).unwrap_or(u64::MAX));
    }

    /// Counts `times` values of the bucket of `value`, which come to `sum` together.
    pub fn observe_times(&self, value: u64, times: u64, sum: u64) {
        let at = self.bounds.upper.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(times, Relaxed);
        }
        self.sum.fetch_add(sum, Relaxed);
    }

    /// Adds what another histogram of the same bounds has counted.
    pub fn add(&self, other: &Self) {
        for (to, from) in self.buckets.iter().zip(&other.buckets) {
            to.fetch_add(from.load(Relaxed), Relaxed);
        }
        self.sum.fetch_add(other.sum.load(Relaxed), Relaxed);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }
}

/// What a family of samples is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by buckets.
    Histogram,
}

/// Text for Prometheus to read.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins the samples of one name, which must not have been begun before.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &'a str) -> Family<'a> {
        Family { text: &mut self.0, name, kind, help, begun: false }
    }

    /// Adds families that somebody else has written in the same form.
    pub fn append(&mut self, text: &str) {
        self.0.push_str(text);
        if !text.is_empty() && !text.ends_with('\n') {
            self.0.push('\n');
        }
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// The samples of one name.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
    kind: Kind,
    help: &'a str,
    begun: bool,
}

impl Family<'_> {
    /// One sample; `labels` are as [`labels`] writes them.
    pub fn value(&mut self, labels: &str, value: impl Display) {
        self.begin();
        self.sample("", labels, "", value);
    }

    /// The samples of a histogram; none of one that has counted nothing.
    pub fn histogram(&mut self, labels: &str, of: &Histogram) {
        let counts: Vec<u64> = of.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        if all == 0 {
            return;
        }
        self.begin();
        let mut below = 0;
        for (bound, count) in of.bounds.upper.iter().zip(&counts) {
            below += count;
            self.sample("_bucket", labels, &number(of.bounds.unit.shown(*bound)), below);
        }
        self.sample("_bucket", labels, "+Inf", all);
        self.sample("_sum", labels, "", number(of.bounds.unit.shown(of.sum.load(Relaxed))));
        self.sample("_count", labels, "", all);
    }

    fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            let kind = match self.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let (name, help) = (self.name, self.help.replace('\\', "\\\\").replace('\n', "\\n"));
            self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
    }

    fn sample(&mut self, suffix: &str, labels: &str, le: &str, value: impl Display) {
        let name = self.name;
        match (labels.is_empty(), le.is_empty()) {
            (true, true) => self.write(format_args!("{name}{suffix} {value}\n")),
            (false, true) => self.write(format_args!("{name}{suffix}{{{labels}}} {value}\n")),
            (true, false) => self.write(format_args!("{name}{suffix}{{le=\"{le}\"}} {value}\n")),
            (false, false) => self.write(format_args!("{name}{suffix}{{{labels},le=\"{le}\"}} {value}\n")),
        }
    }

    fn write(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(what);
    }
}

/// Label names with their values, as they stand between braces.
pub fn labels(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

/// A number as Go writes it, so that the label `le` is the one that upstream's servers have.
pub fn number(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if value != 0.0 && !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_does() {
        for (value, expected) in [
            (0.0, "0"),
            (0.005, "0.005"),
            (1.0, "1"),
            (131_072.0, "131072"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (3_050_000.0, "3.05e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn a_family_is_written_once_it_has_a_sample() {
        let mut out = Exposition::default();
        out.family("nothing_total", Kind::Counter, "Nothing.");
        let times = Histogram::new(Bounds { upper: &[5_000, 1_000_000], unit: Unit::Micros });
        out.family("empty_seconds", Kind::Histogram, "Nothing.").histogram("", &times);
        times.took(Duration::from_millis(5));
        times.took(Duration::from_millis(6));
        times.took(Duration::from_secs(2));
        out.family("t_seconds", Kind::Histogram, "Times\nof it.").histogram("a=\"b\"", &times);
        let odd = labels(&[("x", "a\"b\\c\nd"), ("y", "")]);
        let mut family = out.family("n", Kind::Gauge, "Some.");
        family.value(&odd, 7);
        family.value("", 1.5);
        let expected = "# HELP t_seconds Times\\nof it.\n# TYPE t_seconds histogram\n\
            t_seconds_bucket{a=\"b\",le=\"0.005\"} 1\nt_seconds_bucket{a=\"b\",le=\"1\"} 2\n\
            t_seconds_bucket{a=\"b\",le=\"+Inf\"} 3\nt_seconds_sum{a=\"b\"} 2.011\nt_seconds_count{a=\"b\"} 3\n\
            # HELP n Some.\n# TYPE n gauge\nn{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 7\nn 1.5\n";
        assert_eq!(out.text(), expected);
    }
}
