//! The file of `--tracing-config-file`: a TracingConfiguration of `apiserver.config.k8s.io`.

use serde::Deserialize;

use crate::config_file;

/// Where spans go without an `endpoint`, as upstream.
const ENDPOINT: &str = "localhost:4317";
/// All requests.
const RATE_MAX: i64 = 1_000_000;

/// What is traced, and who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingConfiguration {
    /// `HOST:PORT` of a collector that takes OTLP over gRPC, without TLS.
    pub endpoint: String,
    /// Of a million requests that nobody has decided about, so many are traced.
    pub sampling_rate_per_million: u32,
}

/// Why a file is no such configuration.
#[derive(Debug, thiserror::Error)]
pub enum TracingConfigurationError {
    /// It cannot be read as one.
    #[error("read a TracingConfiguration")]
    Decode(#[source] serde_saphyr::Error),
    /// It is something else.
    #[error(
        "want kind TracingConfiguration of apiserver.config.k8s.io/v1, v1beta1 or v1alpha1, not {kind:?} of {api_version:?}"
    )]
    Kind {
        /// What it says of itself.
        api_version: String,
        /// The same.
        kind: String,
    },
    /// Upstream's text for a rate.
    #[error("samplingRatePerMillion: Invalid value: {0}: sampling rate must be in the range [0, 1000000]")]
    Rate(i64),
    /// It does not say where.
    #[error(
        "endpoint: Invalid value: {0:?}: want HOST:PORT of a collector that takes OTLP over gRPC without TLS"
    )]
    Endpoint(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    endpoint: Option<String>,
    sampling_rate_per_million: Option<i64>,
}

impl TracingConfiguration {
    /// Reads the file's text. What is not in it is refused.
    pub fn parse(text: &str) -> Result<Self, TracingConfigurationError> {
        let File { api_version, kind, endpoint, sampling_rate_per_million } =
            serde_saphyr::from_str(text).map_err(TracingConfigurationError::Decode)?;
        if !config_file::is("TracingConfiguration", &kind, &api_version) {
            return Err(TracingConfigurationError::Kind { api_version, kind });
        }
        let rate = sampling_rate_per_million.unwrap_or(0);
        let sampling_rate_per_million = u32::try_from(rate).ok().filter(|_| rate <= RATE_MAX);
        let endpoint = endpoint.unwrap_or_else(|| ENDPOINT.to_owned());
        let is_address = |text: &str| {
            text.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        if !is_address(&endpoint) {
            return Err(TracingConfigurationError::Endpoint(endpoint));
        }
        Ok(Self {
            endpoint,
            sampling_rate_per_million: sampling_rate_per_million
                .ok_or(TracingConfigurationError::Rate(rate))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations() {
        let head = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: TracingConfiguration\n";
        let read = |rest: &str| {
            TracingConfiguration::parse(&format!("{head}{rest}")).map_err(|error| error.to_string())
        };
        let of = |endpoint: &str, sampling_rate_per_million| {
            Ok(TracingConfiguration { endpoint: endpoint.to_owned(), sampling_rate_per_million })
        };
        assert_eq!(read(""), of("localhost:4317", 0));
        assert_eq!(read("endpoint: c.example:9\nsamplingRatePerMillion: 100"), of("c.example:9", 100));
        let rate =
            "samplingRatePerMillion: Invalid value: 1000001: sampling rate must be in the range [0, 1000000]";
        assert_eq!(read("samplingRatePerMillion: 1000001").unwrap_err(), rate);
        assert!(read("samplingRatePerMillion: -1").unwrap_err().contains("[0, 1000000]"));
        assert!(read("endpoint: https://c.example/v1").unwrap_err().contains("want HOST:PORT"));
        assert!(read("sampling: 1").is_err());
        let other = TracingConfiguration::parse("apiVersion: v1\nkind: Pod").unwrap_err().to_string();
        assert!(other.contains("not \"Pod\" of \"v1\""), "{other}");
    }
}
