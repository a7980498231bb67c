//! Flags of authorization.

use std::{path::PathBuf, sync::Arc, time::Duration};

use apiserver::auth::{
    AccessWebhook, AccessWebhookOptions, Always, AuthorizationConfiguration, Authorizer, AuthorizerParts,
    Decisions, NodeAuthorizer, Rbac, Replaceable, Union,
};
use clap::Args;
use meta::Clock;

use super::{Callers, authentication::ReviewVersion, reload::Reloaded, remote};
use crate::error::Failure;

const WEBHOOK_FILE: &str = "authorization-webhook-config-file";

#[derive(Debug, Default, Args)]
pub(crate) struct AuthorizationOptions {
    /// Who is asked whether something may be done, with webhooks of every kind: an AuthorizationConfiguration, read
    /// again when it changes. In place of the other --authorization flags
    #[arg(long, env = "KEELSON_AUTHORIZATION_CONFIG", value_name = "FILE")]
    authorization_config: Option<PathBuf>,
    /// Who is asked whether something may be done, in this order: AlwaysAllow, AlwaysDeny, Node, RBAC, Webhook
    /// [default: Node,RBAC]
    #[arg(long, env = "KEELSON_AUTHORIZATION_MODE", value_name = "MODE,...", value_delimiter = ',')]
    authorization_mode: Vec<String>,
    /// The kubeconfig with the server that mode Webhook asks, with SubjectAccessReviews
    #[arg(long, env = "KEELSON_AUTHORIZATION_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    authorization_webhook_config_file: Option<PathBuf>,
    /// For how long its yes is remembered
    #[arg(
        long,
        env = "KEELSON_AUTHORIZATION_WEBHOOK_CACHE_AUTHORIZED_TTL",
        default_value = "5m",
        value_name = "DURATION",
        value_parser = remote::duration
    )]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// For how long everything else it says is remembered
    #[arg(
        long,
        env = "KEELSON_AUTHORIZATION_WEBHOOK_CACHE_UNAUTHORIZED_TTL",
        default_value = "30s",
        value_name = "DURATION",
        value_parser = remote::duration
    )]
    authorization_webhook_cache_unauthorized_ttl: Duration,
    /// The version of the SubjectAccessReviews that it is sent
    #[arg(long, env = "KEELSON_AUTHORIZATION_WEBHOOK_VERSION", value_enum, default_value = "v1beta1")]
    authorization_webhook_version: ReviewVersion,
}

/// One member of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook,
}

impl Mode {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "AlwaysAllow" => Self::AlwaysAllow,
            "AlwaysDeny" => Self::AlwaysDeny,
            "Node" => Self::Node,
            "RBAC" => Self::Rbac,
            "Webhook" => Self::Webhook,
            _ => return None,
        })
    }

    /// As upstream calls it in a configuration that it makes of flags.
    fn named(self) -> (&'static str, &'static str) {
        match self {
            Self::AlwaysAllow => ("AlwaysAllow", "alwaysallow"),
            Self::AlwaysDeny => ("AlwaysDeny", "alwaysdeny"),
            Self::Node => ("Node", "node"),
            Self::Rbac => ("RBAC", "rbac"),
            Self::Webhook => ("Webhook", "default"),
        }
    }
}

impl AuthorizationOptions {
    /// The modes, each once; errors in upstream's words (`BuiltInAuthorizationOptions.Validate`).
    fn modes(&self) -> Result<Vec<Mode>, Failure> {
        if self.authorization_mode.is_empty() {
            return Ok(vec![Mode::Node, Mode::Rbac]);
        }
        let mut modes = Vec::new();
        for name in &self.authorization_mode {
            let mode = Mode::parse(name).ok_or_else(|| {
                Failure::usage(format!(
                    "authorization-mode {name:?} is not a valid mode: use AlwaysAllow, AlwaysDeny, Node, RBAC, Webhook"
                ))
            })?;
            if modes.contains(&mode) {
                return Err(Failure::usage(format!(
                    "authorization-mode {name:?} has mode specified more than once"
                )));
            }
            modes.push(mode);
        }
        Ok(modes)
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        let by_flags =
            !self.authorization_mode.is_empty() || self.authorization_webhook_config_file.is_some();
        if self.authorization_config.is_some() && by_flags {
            return Err(Failure::usage(
                "--authorization-config can not be specified when --authorization-mode or \
                 --authorization-webhook-* flags are defined",
            ));
        }
        let webhook = self.modes()?.contains(&Mode::Webhook);
        match (webhook, &self.authorization_webhook_config_file) {
            (true, None) => Err(Failure::usage(
                "authorization-mode Webhook's authorization config file not passed: name it with \
                 --authorization-webhook-config-file",
            )),
            (false, Some(_)) => {
                Err(Failure::usage("cannot specify --authorization-webhook-config-file without mode Webhook"))
            }
            _ => Ok(()),
        }
    }

    /// The authorizers that flags name, in their order, or those of the file and what follows its changes.
    pub(crate) fn authorizer(
        &self,
        node: NodeAuthorizer,
        rbac: Rbac,
        callers: &Callers,
        clock: &Arc<dyn Clock>,
        decisions: &Arc<Decisions>,
    ) -> Result<(Arc<dyn Authorizer>, Option<Reloaded>), Failure> {
        let (node, rbac): (Arc<dyn Authorizer>, Arc<dyn Authorizer>) = (Arc::new(node), Arc::new(rbac));
        if let Some(path) = &self.authorization_config {
            let Callers { client, random } = callers.clone();
            let (clock, decisions) = (clock.clone(), decisions.clone());
            let parts = AuthorizerParts { node, rbac, client, random, clock, decisions };
            let authorizer = Arc::new(Replaceable::new(Union(Vec::new())));
            let replaced = authorizer.clone();
            let apply = move |text: &str| {
                replaced.replace(AuthorizationConfiguration::parse(text)?.authorizers(&parts)?);
                Ok(())
            };
            let reloaded = Reloaded::new("authorization-config", path.clone(), Box::new(apply)).begin()?;
            return Ok((authorizer, Some(reloaded)));
        }
        let mut row: Vec<Arc<dyn Authorizer>> = Vec::new();
        for mode in self.modes()? {
            let (kind, name) = mode.named();
            let member: Arc<dyn Authorizer> = match mode {
                Mode::AlwaysAllow => Arc::new(Always::Allow),
                Mode::AlwaysDeny => Arc::new(Always::Deny),
                Mode::Node => node.clone(),
                Mode::Rbac => rbac.clone(),
                Mode::Webhook => Arc::new(self.webhook(callers, clock)?),
            };
            row.push(decisions.counted(kind, name, member));
        }
        Ok((Arc::new(Union(row)), None))
    }

    fn webhook(&self, callers: &Callers, clock: &Arc<dyn Clock>) -> Result<AccessWebhook, Failure> {
        let path = self.authorization_webhook_config_file.clone().unwrap_or_default();
        let options = AccessWebhookOptions {
            version: self.authorization_webhook_version.as_str(),
            authorized_for: self.authorization_webhook_cache_authorized_ttl,
            unauthorized_for: self.authorization_webhook_cache_unauthorized_ttl,
            fails_closed: false,
        };
        Ok(AccessWebhook::new(callers.reviewer(WEBHOOK_FILE, &path)?, options, clock.clone()))
    }
}
