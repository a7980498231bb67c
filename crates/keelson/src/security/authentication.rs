//! Flags of authentication.

use std::{path::PathBuf, sync::Arc, time::Duration};

use apiserver::{
    aggregation::Trusted,
    auth::{
        Anonymous, AuthenticationConfiguration, Authenticator, FrontProxy, StaticTokens, TokenWebhook,
        oidc::{Algorithm, Discovered, Mapping, Oidc, OidcOptions, Source},
    },
    outbound::Outbound,
    pki::{FRONT_PROXY, Pki},
};
use clap::{ArgAction, Args, ValueEnum};
use http::HeaderName;
use meta::Clock;

use super::{Callers, read, reload::Reloaded, remote};
use crate::error::Failure;

/// How long an issuer may take to answer.
const ISSUER_TIME: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Args)]
pub(crate) struct AuthenticationOptions {
    /// Token issuers, and who needs no credentials: an AuthenticationConfiguration, read again when it changes. In
    /// place of the --oidc flags
    #[arg(long, env = "KEELSON_AUTHENTICATION_CONFIG", value_name = "FILE")]
    authentication_config: Option<PathBuf>,
    /// Whether requests without credentials are those of system:anonymous; else they are refused [default: true]
    #[arg(long, env = "KEELSON_ANONYMOUS_AUTH", action = ArgAction::Set)]
    anonymous_auth: Option<bool>,
    /// Accept the tokens of Secrets of type bootstrap.kubernetes.io/token in kube-system
    #[arg(long, env = "KEELSON_ENABLE_BOOTSTRAP_TOKEN_AUTH")]
    enable_bootstrap_token_auth: bool,
    /// Accept the tokens of this file: lines of token,user,uid[,"group1,group2"]
    #[arg(long, env = "KEELSON_TOKEN_AUTH_FILE", value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Accept the tokens of this OpenID Connect issuer
    #[arg(long, env = "KEELSON_OIDC_ISSUER_URL", value_name = "URL")]
    oidc_issuer_url: Option<String>,
    /// What its tokens must have as audience
    #[arg(long, env = "KEELSON_OIDC_CLIENT_ID", value_name = "ID")]
    oidc_client_id: Option<String>,
    /// The authority of the issuer [default: those of the system]
    #[arg(long, env = "KEELSON_OIDC_CA_FILE", value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
    /// Claim with the name of the user
    #[arg(long, env = "KEELSON_OIDC_USERNAME_CLAIM", default_value = "sub", value_name = "CLAIM")]
    oidc_username_claim: String,
    /// Put before the name; - for nothing [default: the issuer and #, nothing for email]
    #[arg(long, env = "KEELSON_OIDC_USERNAME_PREFIX", value_name = "TEXT", allow_hyphen_values = true)]
    oidc_username_prefix: Option<String>,
    /// Claim with the groups of the user
    #[arg(long, env = "KEELSON_OIDC_GROUPS_CLAIM", value_name = "CLAIM")]
    oidc_groups_claim: Option<String>,
    /// Put before each group
    #[arg(long, env = "KEELSON_OIDC_GROUPS_PREFIX", default_value = "", value_name = "TEXT")]
    oidc_groups_prefix: String,
    /// A claim that tokens must have with this value; may be repeated
    #[arg(long, env = "KEELSON_OIDC_REQUIRED_CLAIM", value_name = "KEY=VALUE", value_delimiter = ',')]
    oidc_required_claim: Vec<String>,
    /// Algorithms that tokens may be signed with: RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512
    #[arg(long, env = "KEELSON_OIDC_SIGNING_ALGS", default_value = "RS256", value_delimiter = ',')]
    oidc_signing_algs: Vec<String>,
    /// Ask the server of this kubeconfig about tokens that nothing else knows, with TokenReviews
    #[arg(long, env = "KEELSON_AUTHENTICATION_TOKEN_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// For how long its answers are remembered
    #[arg(
        long,
        env = "KEELSON_AUTHENTICATION_TOKEN_WEBHOOK_CACHE_TTL",
        default_value = "2m",
        value_name = "DURATION",
        value_parser = remote::duration
    )]
    authentication_token_webhook_cache_ttl: Duration,
    /// The version of the TokenReviews that it is sent
    #[arg(long, env = "KEELSON_AUTHENTICATION_TOKEN_WEBHOOK_VERSION", value_enum, default_value = "v1beta1")]
    authentication_token_webhook_version: ReviewVersion,
    /// Authority of front proxies, whose headers are believed
    #[arg(long, env = "KEELSON_REQUESTHEADER_CLIENT_CA_FILE", value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that may be front proxies [default: every certificate of the authority]
    #[arg(long, env = "KEELSON_REQUESTHEADER_ALLOWED_NAMES", value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers with the name of the user
    #[arg(
        long,
        env = "KEELSON_REQUESTHEADER_USERNAME_HEADERS",
        default_value = "x-remote-user",
        value_delimiter = ','
    )]
    requestheader_username_headers: Vec<String>,
    /// Headers with the UID of the user
    #[arg(
        long,
        env = "KEELSON_REQUESTHEADER_UID_HEADERS",
        default_value = "x-remote-uid",
        value_delimiter = ','
    )]
    requestheader_uid_headers: Vec<String>,
    /// Headers with the groups of the user
    #[arg(
        long,
        env = "KEELSON_REQUESTHEADER_GROUP_HEADERS",
        default_value = "x-remote-group",
        value_delimiter = ','
    )]
    requestheader_group_headers: Vec<String>,
    /// Beginnings of headers with extra values of the user
    #[arg(
        long,
        env = "KEELSON_REQUESTHEADER_EXTRA_HEADERS_PREFIX",
        default_value = "x-remote-extra-",
        value_delimiter = ','
    )]
    requestheader_extra_headers_prefix: Vec<String>,
}

/// Versions of reviews.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReviewVersion {
    V1,
    #[default]
    V1beta1,
}

impl ReviewVersion {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1beta1 => "v1beta1",
        }
    }
}

impl AuthenticationOptions {
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.authentication_config.is_some() && self.oidc_issuer_url.is_some() {
            return Err(Failure::usage(
                "authentication-config file and oidc-* flags are mutually exclusive: move the issuer into the file",
            ));
        }
        match (&self.oidc_issuer_url, &self.oidc_client_id) {
            (Some(url), Some(_)) if !url.starts_with("https://") => {
                return Err(Failure::usage(format!(
                    "--oidc-issuer-url {url}: want a URL that begins with https://"
                )));
            }
            (Some(_), None) => {
                return Err(Failure::usage(
                    "--oidc-issuer-url needs --oidc-client-id: no token would be for this cluster",
                ));
            }
            (None, Some(_)) => return Err(Failure::usage("--oidc-client-id needs --oidc-issuer-url")),
            _ => {}
        }
        if self.requestheader_client_ca_file.is_none() && !self.requestheader_allowed_names.is_empty() {
            return Err(Failure::usage("--requestheader-allowed-names needs --requestheader-client-ca-file"));
        }
        self.required()?;
        self.algorithms()?;
        self.front_proxy().map(|_| ())
    }

    fn required(&self) -> Result<Vec<(String, String)>, Failure> {
        let pair = |text: &String| {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("--oidc-required-claim {text}: want KEY=VALUE")))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        self.oidc_required_claim.iter().map(pair).collect()
    }

    fn algorithms(&self) -> Result<Vec<Algorithm>, Failure> {
        let known = |name: &String| {
            Algorithm::parse(name).ok_or_else(|| {
                let what = format!(
                    "--oidc-signing-algs {name}: not supported, use RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512"
                );
                Failure::usage(what)
            })
        };
        self.oidc_signing_algs.iter().map(known).collect()
    }

    fn front_proxy(&self) -> Result<FrontProxy, Failure> {
        let headers = |flag: &str, names: &[String]| -> Result<Vec<HeaderName>, Failure> {
            let parse = |name: &String| {
                name.to_lowercase().parse().map_err(|_| {
                    Failure::usage(format!("--requestheader-{flag} {name}: not the name of a header"))
                })
            };
            names.iter().map(parse).collect()
        };
        Ok(FrontProxy {
            allowed_names: self.requestheader_allowed_names.clone(),
            username_headers: headers("username-headers", &self.requestheader_username_headers)?,
            uid_headers: headers("uid-headers", &self.requestheader_uid_headers)?,
            group_headers: headers("group-headers", &self.requestheader_group_headers)?,
            extra_prefixes: self
                .requestheader_extra_headers_prefix
                .iter()
                .map(|p| p.to_lowercase())
                .collect(),
        })
    }

    /// Whom this server believes, and extension servers may: the cluster's authority, and those of front proxies,
    /// of which this server's own is always one.
    pub(crate) fn trusted(&self, pki: &Pki) -> Result<Trusted, Failure> {
        let mut proxies = self.front_proxy()?;
        let own = pki.front_proxy_ca_pem();
        let proxy_ca_pem = match &self.requestheader_client_ca_file {
            None => {
                proxies.allowed_names = vec![FRONT_PROXY.to_owned()];
                own.to_owned()
            }
            Some(path) => {
                if !proxies.allowed_names.is_empty() {
                    proxies.allowed_names.push(FRONT_PROXY.to_owned());
                }
                format!("{}\n{own}", read("requestheader-client-ca-file", path)?)
            }
        };
        Ok(Trusted { client_ca_pem: pki.ca_pem().to_owned(), proxy_ca_pem, proxies })
    }

    /// Adds the ways in that flags name.
    pub(crate) fn apply(
        &self,
        mut authenticator: Authenticator,
        trusted: &Trusted,
        callers: &Callers,
        audiences: &[String],
        clock: &Arc<dyn Clock>,
    ) -> Result<Authenticator, Failure> {
        if self.anonymous_auth == Some(false) {
            authenticator.set_anonymous(Anonymous::Off);
        }
        if self.enable_bootstrap_token_auth {
            authenticator = authenticator.with_bootstrap_tokens();
        }
        if let Some(path) = &self.token_auth_file {
            let statics = StaticTokens::parse(&read("token-auth-file", path)?)
                .map_err(|error| Failure::of(format!("read {}", path.display()), error))?;
            authenticator = authenticator.with_static(statics);
        }
        if let (Some(issuer), Some(client_id)) = (&self.oidc_issuer_url, &self.oidc_client_id) {
            authenticator.set_issuers(vec![self.oidc(issuer, client_id, clock)?]);
        }
        if let Some(path) = &self.authentication_token_webhook_config_file {
            let reviewer = callers.reviewer("authentication-token-webhook-config-file", path)?;
            authenticator = authenticator.with_webhook(TokenWebhook::new(
                reviewer,
                self.authentication_token_webhook_version.as_str(),
                self.authentication_token_webhook_cache_ttl,
                audiences.to_vec(),
                clock.clone(),
            ));
        }
        let Trusted { client_ca_pem, proxy_ca_pem, proxies } = trusted;
        authenticator
            .with_front_proxy(proxies.clone(), client_ca_pem, proxy_ca_pem)
            .map_err(|error| Failure::of("trust the authorities of front proxies", error))
    }

    /// What applies the file, now and whenever it changes; `None` without a file. Errors leave everything as it was.
    pub(crate) fn reloaded(
        &self,
        authenticator: &Arc<Authenticator>,
        own_issuer: &str,
        clock: &Arc<dyn Clock>,
    ) -> Option<Reloaded> {
        let path = self.authentication_config.clone()?;
        let (authenticator, clock) = (authenticator.clone(), clock.clone());
        let (own, flag) = (vec![own_issuer.to_owned()], self.anonymous_auth);
        let apply = move |text: &str| {
            let mut configuration = AuthenticationConfiguration::parse(text, &own)?;
            let anonymous = match (configuration.anonymous.take(), flag) {
                (Some(_), Some(_)) => {
                    return Err("--anonymous-auth flag cannot be set when anonymous field is configured in \
                                authentication configuration file"
                        .to_owned());
                }
                (Some(anonymous), None) => anonymous,
                (None, Some(false)) => Anonymous::Off,
                (None, _) => Anonymous::On,
            };
            authenticator.set_issuers(configuration.issuers(&clock)?);
            authenticator.set_anonymous(anonymous);
            Ok(())
        };
        Some(Reloaded::new("authentication-config", path, Box::new(apply)))
    }

    fn oidc(&self, issuer: &str, client_id: &str, clock: &Arc<dyn Clock>) -> Result<Oidc, Failure> {
        let ca = self.oidc_ca_file.as_ref().map(|path| read("oidc-ca-file", path)).transpose()?;
        let client = Outbound::new(ca.as_deref(), None, ISSUER_TIME)
            .map_err(|error| Failure::of(format!("prepare to ask the token issuer {issuer}"), error))?;
        let username_prefix = match self.oidc_username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if self.oidc_username_claim == "email" => String::new(),
            None => format!("{issuer}#"),
        };
        let claim =
            |name: &str, prefix: &str| Source::Claim { name: name.to_owned(), prefix: prefix.to_owned() };
        let options = OidcOptions {
            issuer: issuer.to_owned(),
            audiences: vec![client_id.to_owned()],
            algorithms: self.algorithms()?,
            mapping: Mapping {
                username: claim(&self.oidc_username_claim, &username_prefix),
                groups: self.oidc_groups_claim.as_ref().map(|name| claim(name, &self.oidc_groups_prefix)),
                uid: None,
                extra: Vec::new(),
                required_claims: self.required()?,
                claim_rules: Vec::new(),
                user_rules: Vec::new(),
                reserves_system: true,
            },
        };
        Ok(Oidc::new(options, Arc::new(Discovered::new(issuer, client)), clock.clone()))
    }
}
