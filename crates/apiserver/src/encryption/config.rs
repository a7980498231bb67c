//! The file: upstream's `apiserver.config.k8s.io/v1` EncryptionConfiguration.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use meta::{GroupResource, Random};
use ring::rand::SecureRandom as _;
use serde::Deserialize;

use super::{Form, Kms, Provider, SealingKey, kms};

/// Kinds that are kept sealed, each with the ways they may be kept: the first writes, all read.
#[derive(Default)]
pub struct Encryption(Vec<Rule>);

struct Rule {
    resources: Vec<Pattern>,
    providers: Vec<Provider>,
}

/// `secrets`, `widgets.example.org`, `*.apps`, `*.` (the core group), `*.*`.
enum Pattern {
    One(GroupResource),
    Group(String),
    All,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, EncryptionError> {
        let bad = || EncryptionError::Resource(text.to_owned());
        match text.split_once('.') {
            Some(("*", "*")) => Ok(Self::All),
            Some(("*", group)) if !group.contains('*') => Ok(Self::Group(group.to_owned())),
            _ if text.contains('*') || text.contains('/') || text.is_empty() => Err(bad()),
            Some(("", _)) => Err(bad()),
            Some((resource, group)) => Ok(Self::One(GroupResource::new(group, resource))),
            None => Ok(Self::One(GroupResource::new("", text))),
        }
    }

    fn covers(&self, kind: &GroupResource) -> bool {
        match self {
            Self::One(one) => one == kind,
            Self::Group(group) => *group == kind.group,
            Self::All => true,
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum EncryptionError {
    #[error("not an EncryptionConfiguration: {0}")]
    Parse(String),
    #[error("apiVersion and kind are {0:?}, want apiserver.config.k8s.io/v1 EncryptionConfiguration")]
    Kind(String),
    #[error("resource {0:?} is no resource: want RESOURCE, RESOURCE.GROUP, *.GROUP, *. or *.*")]
    Resource(String),
    #[error("resources[{0}] names no resource or no provider")]
    Empty(usize),
    #[error(
        "resources[{0}].providers: each entry has exactly one of kms, secretbox, aesgcm, aescbc and identity, with keys"
    )]
    Provider(usize),
    #[error("key {0:?}: the name must have 1 to 200 characters without a colon, and be used once in a list")]
    KeyName(String),
    #[error("kms {name:?}: {why}")]
    Kms { name: String, why: String },
    #[error("the KMS plugin {name:?} gives no key: {why}; see that it runs and listens on {socket}")]
    Plugin { name: String, socket: String, why: String },
    #[error("key {name:?}: the secret must be base64 of {lengths} bytes")]
    Secret { name: String, lengths: &'static str },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    resources: Vec<String>,
    providers: Vec<FileProvider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileProvider {
    aesgcm: Option<FileKeys>,
    identity: Option<Nothing>,
    aescbc: Option<FileKeys>,
    secretbox: Option<FileKeys>,
    kms: Option<FileKms>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileKms {
    #[serde(default)]
    api_version: String,
    name: String,
    endpoint: String,
    timeout: Option<String>,
    cachesize: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKeys {
    keys: Vec<FileKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    name: String,
    secret: String,
}

impl Encryption {
    /// Reads the text of a configuration file. Errors never show a secret.
    pub fn parse(text: &str) -> Result<Self, EncryptionError> {
        // By way of a tree, so that the parser's error cannot quote the line with a secret.
        let tree: serde_json::Value = serde_saphyr::from_str(text)
            .map_err(|_| EncryptionError::Parse("the file is not valid YAML".to_owned()))?;
        let file: File = serde_json::from_value(tree).map_err(|e| EncryptionError::Parse(e.to_string()))?;
        if (file.api_version.as_str(), file.kind.as_str())
            != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration")
        {
            return Err(EncryptionError::Kind(format!("{} {}", file.api_version, file.kind)));
        }
        let rule = |(at, rule): (usize, FileRule)| {
            if rule.resources.is_empty() || rule.providers.is_empty() {
                return Err(EncryptionError::Empty(at));
            }
            let resources =
                rule.resources.iter().map(|text| Pattern::parse(text)).collect::<Result<_, _>>()?;
            let mut providers = Vec::new();
            for provider in rule.providers {
                provider.read(at, &mut providers)?;
            }
            Ok(Rule { resources, providers })
        };
        let rules: Vec<Rule> = file.resources.into_iter().enumerate().map(rule).collect::<Result<_, _>>()?;
        let encryption = Self(rules);
        let mut names = BTreeSet::new();
        for (kms, _) in encryption.plugins() {
            if !names.insert(&kms.name) {
                let why = "the name is used twice: each entry needs one of its own".to_owned();
                return Err(EncryptionError::Kms { name: kms.name.clone(), why });
            }
        }
        Ok(encryption)
    }

    /// All KMS plugins, and whether they write.
    pub(super) fn plugins(&self) -> impl Iterator<Item = (&Kms, bool)> {
        let listed = self.0.iter().flat_map(|rule| rule.providers.iter().enumerate());
        listed.filter_map(|(at, provider)| match provider {
            Provider::Kms(kms) => Some((&**kms, at == 0)),
            Provider::Identity | Provider::Sealed(_) => None,
        })
    }

    /// The ways of a kind; of several rules that name it the first. None: kept as it is.
    pub(super) fn providers(&self, kind: &GroupResource) -> &[Provider] {
        let rule = self.0.iter().find(|rule| rule.resources.iter().any(|pattern| pattern.covers(kind)));
        rule.map_or(&[], |rule| &rule.providers)
    }
}

impl FileProvider {
    fn read(self, at: usize, into: &mut Vec<Provider>) -> Result<(), EncryptionError> {
        let Self { aesgcm, identity, aescbc, secretbox, kms } = self;
        if let Some(kms) = kms {
            if aesgcm.is_some() || aescbc.is_some() || secretbox.is_some() || identity.is_some() {
                return Err(EncryptionError::Provider(at));
            }
            into.push(Provider::Kms(Box::new(kms.read()?)));
            return Ok(());
        }
        let sealed = [(Form::AesGcm, aesgcm), (Form::AesCbc, aescbc), (Form::Secretbox, secretbox)];
        let mut given = sealed.into_iter().filter_map(|(form, keys)| Some((form, keys?)));
        match (given.next(), given.next(), identity) {
            (None, _, Some(Nothing {})) => into.push(Provider::Identity),
            (Some((form, FileKeys { keys })), None, None) if !keys.is_empty() => {
                for FileKey { name, secret } in keys {
                    let taken = |p: &Provider| matches!(p, Provider::Sealed(key) if key.form == form && key.name == name);
                    if name.is_empty() || name.len() > 200 || name.contains(':') || into.iter().any(taken) {
                        return Err(EncryptionError::KeyName(name));
                    }
                    let secret = STANDARD.decode(secret.trim()).ok();
                    let key = secret.and_then(|secret| SealingKey::new(form, &name, &secret));
                    let key = key.ok_or(EncryptionError::Secret { name, lengths: form.lengths() })?;
                    into.push(Provider::Sealed(Box::new(key)));
                }
            }
            _ => return Err(EncryptionError::Provider(at)),
        }
        Ok(())
    }
}

impl FileKms {
    fn read(self) -> Result<Kms, EncryptionError> {
        let Self { api_version, name, endpoint, timeout, cachesize } = self;
        let refuse = |why: &str| EncryptionError::Kms { name: name.clone(), why: why.to_owned() };
        if api_version != "v2" {
            return Err(refuse(
                "apiVersion must be v2: plugins of v1, which is the default, are not supported",
            ));
        }
        if name.is_empty() || name.len() > 200 || name.contains(':') {
            return Err(refuse("the name must have 1 to 200 characters without a colon"));
        }
        if cachesize.is_some() {
            return Err(refuse("cachesize is for plugins of v1 only"));
        }
        let socket = endpoint.strip_prefix("unix://").filter(|path| !path.is_empty() && *path != "/");
        let socket = socket.ok_or_else(|| refuse("endpoint must be unix:// and the path of a socket"))?;
        let limit = timeout.map(|text| meta::parse_duration(&text).filter(|limit| !limit.is_zero()));
        let limit = limit.unwrap_or(Some(kms::ANSWER_MAX));
        let limit = limit.ok_or_else(|| refuse("timeout must be a duration above zero, such as 3s"))?;
        Ok(Kms::new(name, socket.into(), limit))
    }
}

/// A new configuration that seals Secrets under a fresh key; `None` when the system gives no random numbers.
/// The key's name is new each time, so that a lost file is told from a wrong one.
pub fn generate(random: &dyn Random) -> Option<String> {
    let mut secret = [0_u8; 32];
    ring::rand::SystemRandom::new().fill(&mut secret).ok()?;
    Some(format!(
        "# What is encrypted in the store, and the keys. Whoever has this file can read what it protects; without \
         it the objects are lost.\n\
         # To change the key: put a new one first, restart (everything is encrypted anew), then remove the old one.\n\
         apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers:\n  - aesgcm:\n      keys:\n      - name: key-{}\n        secret: {}\n  - identity: {{}}\n",
        random.suffix(8),
        STANDARD.encode(secret)
    ))
}
