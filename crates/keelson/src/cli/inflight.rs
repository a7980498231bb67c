//! How many requests an API server answers at once.

use clap::Args;

use crate::error::Failure;

/// As upstream's integers.
const REQUESTS_MAX: i64 = i32::MAX as i64;

/// Upstream's two numbers. Priority and fairness knows only their sum: the seats that priority levels share.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct InflightOptions {
    /// Requests that read and are answered at once; priority levels share this and --max-mutating-requests-inflight
    #[arg(long, env = "KEELSON_MAX_REQUESTS_INFLIGHT", value_name = "COUNT", default_value_t = 400, value_parser = clap::value_parser!(u32).range(..=REQUESTS_MAX))]
    pub(crate) max_requests_inflight: u32,
    /// Requests that write and are answered at once
    #[arg(long, env = "KEELSON_MAX_MUTATING_REQUESTS_INFLIGHT", value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(..=REQUESTS_MAX))]
    pub(crate) max_mutating_requests_inflight: u32,
}

impl InflightOptions {
    /// The seats of a server: at least one.
    pub(crate) fn seats(&self) -> Result<u64, Failure> {
        let Self { max_requests_inflight, max_mutating_requests_inflight } = *self;
        match u64::from(max_requests_inflight) + u64::from(max_mutating_requests_inflight) {
            0 => Err(Failure::usage(
                "--max-requests-inflight and --max-mutating-requests-inflight are both 0: no request would be answered",
            )
            .advise("leave them out for 400 and 200")),
            seats => Ok(seats),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        inflight: InflightOptions,
    }

    /// The seats that flags come to, or whether they are refused.
    #[test]
    fn seats_are_the_sum_of_two_flags() {
        let seats = |flags: &[&str]| {
            let parsed = Only::try_parse_from([&["keelson"], flags].concat());
            parsed
                .map_err(|error| error.exit_code())
                .and_then(|only| only.inflight.seats().map_err(|failure| i32::from(failure.exit_code())))
        };
        for (flags, expected) in [
            (&[][..], Ok(600)),
            (&["--max-requests-inflight=1000"], Ok(1200)),
            (&["--max-requests-inflight=0", "--max-mutating-requests-inflight=1"], Ok(1)),
            (
                &["--max-requests-inflight=2147483647", "--max-mutating-requests-inflight=2147483647"],
                Ok(4_294_967_294),
            ),
            (&["--max-requests-inflight=0", "--max-mutating-requests-inflight=0"], Err(2)),
            (&["--max-requests-inflight=-1"], Err(2)),
            (&["--max-requests-inflight=2147483648"], Err(2)),
            (&["--max-mutating-requests-inflight=many"], Err(2)),
        ] {
            assert_eq!(seats(flags), expected, "{flags:?}");
        }
    }
}
