//! Flags of the audit log.

use std::{path::PathBuf, sync::Arc};

use apiserver::audit::{Audit, Log, LogOptions, Mode, Policy};
use clap::{Args, ValueEnum};
use meta::Clock;

use super::read;
use crate::error::Failure;

#[derive(Debug, Default, Args)]
pub(crate) struct AuditOptions {
    /// What is logged of which requests, an audit.k8s.io/v1 Policy
    #[arg(long, env = "KEELSON_AUDIT_POLICY_FILE", value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Where requests are logged, a JSON Event a line; - is standard output
    #[arg(long, env = "KEELSON_AUDIT_LOG_PATH", value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// What a request does while its event is written
    #[arg(long, env = "KEELSON_AUDIT_LOG_MODE", value_enum, default_value = "blocking")]
    audit_log_mode: AuditMode,
    /// A log of more megabytes is put aside; 0 never
    #[arg(long, env = "KEELSON_AUDIT_LOG_MAXSIZE", default_value_t = 100, value_name = "MB")]
    audit_log_maxsize: u64,
    /// How many logs put aside are kept; 0 all
    #[arg(long, env = "KEELSON_AUDIT_LOG_MAXBACKUP", default_value_t = 0, value_name = "COUNT")]
    audit_log_maxbackup: usize,
    /// For how many days logs put aside are kept; 0 for ever
    #[arg(long, env = "KEELSON_AUDIT_LOG_MAXAGE", default_value_t = 0, value_name = "DAYS")]
    audit_log_maxage: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuditMode {
    /// It waits
    #[default]
    Blocking,
    /// It waits, and is refused when its receipt cannot be logged
    BlockingStrict,
    /// It does not wait; events that the disk cannot keep up with are dropped and counted
    Batch,
}

impl AuditOptions {
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (&self.audit_policy_file, &self.audit_log_path) {
            (Some(_), None) => {
                Err(Failure::usage("--audit-policy-file needs --audit-log-path: nothing would be logged"))
            }
            (None, Some(_)) => {
                Err(Failure::usage("--audit-log-path needs --audit-policy-file: nothing would be logged"))
            }
            _ => Ok(()),
        }
    }

    /// The audit log, where there is one.
    pub(crate) fn open(&self, clock: &Arc<dyn Clock>) -> Result<Option<Arc<Audit>>, Failure> {
        let (Some(policy), Some(path)) = (&self.audit_policy_file, &self.audit_log_path) else {
            return Ok(None);
        };
        let text = read("audit-policy-file", policy)?;
        let policy = Policy::parse(&text)
            .map_err(|error| Failure::of(format!("read the audit policy {}", policy.display()), error))?;
        let options = LogOptions {
            path: path.clone(),
            mode: match self.audit_log_mode {
                AuditMode::Blocking => Mode::Blocking,
                AuditMode::BlockingStrict => Mode::BlockingStrict,
                AuditMode::Batch => Mode::Batch,
            },
            bytes_max: self.audit_log_maxsize << 20,
            backups_max: self.audit_log_maxbackup,
            days_max: self.audit_log_maxage,
        };
        let log = Log::open(options, clock.clone())
            .map_err(|error| Failure::of(format!("open the audit log {}", path.display()), error))?;
        Ok(Some(Arc::new(Audit::new(policy, log, clock.clone()))))
    }
}
