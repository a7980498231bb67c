//! Flags of the audit log.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use apiserver::audit::{Audit, BatchOptions, EventWebhook, Log, LogOptions, Mode, Policy};
use clap::{Args, ValueEnum};
use meta::Clock;
use tokio::task::JoinHandle;

use super::{Callers, read, remote};
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
    /// Send requests to the server of this kubeconfig too, in batches of JSON Events
    #[arg(long, env = "KEELSON_AUDIT_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    audit_webhook_config_file: Option<PathBuf>,
    /// How many events wait for it; further ones are dropped and counted
    #[arg(
        long,
        env = "KEELSON_AUDIT_WEBHOOK_BATCH_BUFFER_SIZE",
        default_value_t = 10_000,
        value_name = "COUNT"
    )]
    audit_webhook_batch_buffer_size: usize,
    /// Events of a batch
    #[arg(long, env = "KEELSON_AUDIT_WEBHOOK_BATCH_MAX_SIZE", default_value_t = 400, value_name = "COUNT")]
    audit_webhook_batch_max_size: usize,
    /// How long an event waits for others to go with it
    #[arg(long, env = "KEELSON_AUDIT_WEBHOOK_BATCH_MAX_WAIT", default_value = "30s", value_name = "DURATION", value_parser = remote::duration)]
    audit_webhook_batch_max_wait: Duration,
    /// How long to wait before a batch is sent again
    #[arg(long, env = "KEELSON_AUDIT_WEBHOOK_INITIAL_BACKOFF", default_value = "10s", value_name = "DURATION", value_parser = remote::duration)]
    audit_webhook_initial_backoff: Duration,
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

/// The audit log, and what sends to its webhook.
type Auditing = (Arc<Audit>, Option<JoinHandle<()>>);

impl AuditOptions {
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (&self.audit_policy_file, &self.audit_log_path, &self.audit_webhook_config_file) {
            (Some(_), None, None) => Err(Failure::usage(
                "--audit-policy-file needs --audit-log-path or --audit-webhook-config-file: nothing would be logged",
            )),
            (None, Some(_), _) => {
                Err(Failure::usage("--audit-log-path needs --audit-policy-file: nothing would be logged"))
            }
            (None, None, Some(_)) => Err(Failure::usage(
                "--audit-webhook-config-file needs --audit-policy-file: nothing would be sent",
            )),
            _ => Ok(()),
        }
    }

    /// The audit log, where there is one, and what sends to its webhook.
    pub(crate) fn open(
        &self,
        callers: &Callers,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<Auditing>, Failure> {
        let Some(policy) = &self.audit_policy_file else { return Ok(None) };
        let text = read("audit-policy-file", policy)?;
        let policy = Policy::parse(&text)
            .map_err(|error| Failure::of(format!("read the audit policy {}", policy.display()), error))?;
        let log = self.audit_log_path.as_ref().map(|path| self.log(path, clock)).transpose()?;
        let (webhook, task) = match &self.audit_webhook_config_file {
            None => (None, None),
            Some(path) => {
                let reviewer = callers.reviewer("audit-webhook-config-file", path)?;
                let options = BatchOptions {
                    waiting_max: self.audit_webhook_batch_buffer_size,
                    batch_max: self.audit_webhook_batch_max_size,
                    wait: self.audit_webhook_batch_max_wait,
                };
                let reviewer = reviewer.patient(self.audit_webhook_initial_backoff);
                let (webhook, task) = EventWebhook::start(reviewer, options);
                (Some(webhook), Some(task))
            }
        };
        Ok(Some((Arc::new(Audit::new(policy, log, webhook, clock.clone())), task)))
    }

    fn log(&self, path: &Path, clock: &Arc<dyn Clock>) -> Result<Log, Failure> {
        let options = LogOptions {
            path: path.to_owned(),
            mode: match self.audit_log_mode {
                AuditMode::Blocking => Mode::Blocking,
                AuditMode::BlockingStrict => Mode::BlockingStrict,
                AuditMode::Batch => Mode::Batch,
            },
            bytes_max: self.audit_log_maxsize << 20,
            backups_max: self.audit_log_maxbackup,
            days_max: self.audit_log_maxage,
        };
        Log::open(options, clock.clone())
            .map_err(|error| Failure::of(format!("open the audit log {}", path.display()), error))
    }
}
