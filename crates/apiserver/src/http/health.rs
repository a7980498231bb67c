//! `/healthz`, `/livez`, `/readyz`: each a list of named checks.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::Response;
use meta::metrics::{Exposition, Kind, labels};

use super::{body::Body, encode, query::Query};

/// One named check: why it fails, or nothing.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of a server. All must be added before it serves; a stopping server is not ready.
#[derive(Clone, Default)]
pub struct Health {
    ready: Vec<(&'static str, Check)>,
    stopping: Arc<AtomicBool>,
}

impl Health {
    /// Adds a check to readiness, such as `controllers`. It must not wait.
    #[must_use]
    pub fn ready_when(mut self, name: &'static str, check: Check) -> Self {
        self.ready.push((name, check));
        self
    }

    /// From now on not ready, so that balancers send nothing new.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Writes what each check says now, under upstream's name.
    pub(crate) fn expose(&self, out: &mut Exposition) {
        let mut family =
            out.family("kubernetes_healthcheck", Kind::Gauge, "Health checks, 1 for those that pass.");
        for (kind, readiness) in [("healthz", false), ("livez", false), ("readyz", true)] {
            for (name, result) in self.results(readiness) {
                family.value(&labels(&[("name", name), ("type", kind)]), u8::from(result.is_ok()));
            }
        }
    }

    fn results(&self, readiness: bool) -> Vec<(&str, Result<(), String>)> {
        let mut results: Vec<(&str, Result<(), String>)> = vec![("ping", Ok(()))];
        if readiness {
            results.extend(self.ready.iter().map(|(name, check)| (*name, check())));
            let stopping = self.stopping.load(Ordering::SeqCst);
            results
                .push(("shutdown", if stopping { Err("process is shutting down".into()) } else { Ok(()) }));
        }
        results
    }

    /// Answers one of the three paths (with or without a check's name behind it); `None` for other paths.
    pub(crate) fn answer(&self, path: &str, query: &Query<'_>) -> Option<Response<Body>> {
        let (endpoint, only) = match path.strip_prefix('/')?.split_once('/') {
            Some((endpoint, check)) => (endpoint, Some(check)),
            None => (path.strip_prefix('/')?, None),
        };
        let readiness = match endpoint {
            "livez" | "healthz" => false,
            "readyz" => true,
            _ => return None,
        };
        let excluded: Vec<&str> = query.all("exclude").collect();
        let mut results = self.results(readiness);
        if let Some(only) = only {
            results.retain(|(name, _)| *name == only);
            if results.is_empty() {
                return Some(encode::status(&meta::Status::no_such_path()));
            }
        }
        let unknown: Vec<&str> =
            excluded.iter().copied().filter(|name| results.iter().all(|(known, _)| known != name)).collect();
        let results: Vec<_> = results
            .into_iter()
            .map(|(name, result)| (name, (!excluded.contains(&name)).then_some(result)))
            .collect();
        Some(report(endpoint, &results, &unknown, query.all("verbose").next().is_some()))
    }
}

/// The text of upstream's `handleRootHealth`; a check without a result was excluded.
fn report(
    endpoint: &str,
    results: &[(&str, Option<Result<(), String>>)],
    unknown: &[&str],
    verbose: bool,
) -> Response<Body> {
    let failed = results.iter().any(|(_, result)| matches!(result, Some(Err(_))));
    if !failed && !verbose {
        return encode::text(200, "ok");
    }
    let mut text = String::new();
    for (name, result) in results {
        match result {
            None => text.push_str(&format!("[+]{name} excluded: ok\n")),
            Some(Ok(())) => text.push_str(&format!("[+]{name} ok\n")),
            Some(Err(why)) => text.push_str(&format!("[-]{name} failed: {why}\n")),
        }
    }
    if !unknown.is_empty() {
        let names = unknown.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    let verdict = if failed { "failed" } else { "passed" };
    text.push_str(&format!("{endpoint} check {verdict}\n"));
    encode::text(if failed { 500 } else { 200 }, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_more_than_liveness() {
        let health = Health::default().ready_when("informers", Arc::new(|| Err("not synced".into())));
        let code = |path, query| health.answer(path, &Query::parse(query)).map(|r| r.status().as_u16());
        for (path, query, expected) in [
            ("/healthz", None, Some(200)),
            ("/livez", Some("verbose"), Some(200)),
            ("/readyz", None, Some(500)),
            ("/readyz", Some("exclude=informers"), Some(200)),
            ("/readyz/ping", None, Some(200)),
            ("/readyz/informers", None, Some(500)),
            ("/readyz/other", None, Some(404)),
            ("/version", None, None),
        ] {
            assert_eq!(code(path, query), expected, "{path} {query:?}");
        }
        let excluded =
            health.answer("/readyz", &Query::parse(Some("verbose&exclude=informers&exclude=x"))).unwrap();
        let said = excluded.into_body().into_pieces().map(|piece| String::from_utf8(piece.to_vec()).unwrap());
        assert_eq!(
            said.collect::<String>(),
            "[+]ping ok\n[+]informers excluded: ok\n[+]shutdown ok\n\
             warn: some health checks cannot be excluded: no matches for \"x\"\nreadyz check passed\n"
        );
        health.stop();
        assert_eq!(code("/readyz", Some("exclude=informers")), Some(500));
    }
}
