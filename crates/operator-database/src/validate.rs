//! From what a user wrote to a type that cannot be wrong, or to what has to be changed. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use kube::ResourceExt;
use meta::Quantity;

use crate::{
    engine::{Engine, postgresql, redis},
    types::{Database, DeletionPolicy, EngineType, EnvVar, SecretKey, ServiceType, Storage},
};

/// Longest name of a Database: its StatefulSet's pods carry it in a label of at most 63 characters together
/// with the revision's hash, and its Services in their names.
const NAME_LENGTH_MAX: usize = 50;

/// Variables that carry what the operator decides.
const RESERVED: &[&str] = &[
    "PGDATA",
    "POSTGRES_DB",
    "POSTGRES_HOST_AUTH_METHOD",
    "POSTGRES_INITDB_ARGS",
    "POSTGRES_PASSWORD",
    "POSTGRES_PASSWORD_FILE",
    "POSTGRES_USER",
    "REDIS_PASSWORD",
];

/// A Database whose spec can be carried out.
#[derive(Clone, Debug)]
pub struct Valid {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// The engine with its settings.
    pub engine: Engine,
    /// The image.
    pub image: String,
    /// 0 or 1.
    pub replicas: i32,
    /// The volume.
    pub storage: Option<Volume>,
    /// What becomes of it.
    pub deletion_policy: DeletionPolicy,
    /// Container resources: requests and limits.
    pub requests: BTreeMap<String, WireQuantity>,
    /// Limits.
    pub limits: BTreeMap<String, WireQuantity>,
    /// Further environment.
    pub env: Vec<EnvVar>,
    /// Type of the Service.
    pub service_type: ServiceType,
    /// Where the password is.
    pub password: Password,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Size.
    pub size: String,
    /// Class.
    pub class: Option<String>,
    /// Access mode.
    pub access_mode: String,
}

/// Where the password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// In a Secret of the user's.
    Given(SecretKey),
    /// In a Secret that the operator makes.
    Generated(SecretKey),
}

impl Password {
    /// The Secret and key.
    pub fn key(&self) -> &SecretKey {
        match self {
            Self::Given(key) | Self::Generated(key) => key,
        }
    }
}

/// What has to be changed, each a sentence that names the field.
pub(crate) type Wrong = Vec<String>;

/// Checks a Database.
pub fn validate(database: &Database) -> Result<Valid, Vec<String>> {
    let spec = &database.spec;
    let name = database.name_any();
    let mut wrong = Wrong::new();
    check_name(&name, &mut wrong);
    let engine = match spec.engine {
        EngineType::PostgreSQL => {
            postgresql::validate(spec.postgresql.as_ref(), &mut wrong).map(Engine::PostgreSql)
        }
        EngineType::Redis => redis::validate(spec.redis.as_ref(), &mut wrong).map(Engine::Redis),
        other @ (EngineType::MongoDB | EngineType::Elasticsearch | EngineType::SQLite) => {
            wrong.push(format!(
                "spec.type: {other:?} is not supported by this release: use PostgreSQL or Redis"
            ));
            None
        }
    };
    foreign_blocks(database, &mut wrong);
    if !is_tag(&spec.version) {
        wrong.push(format!(
            "spec.version: {:?} is not an image tag, such as \"16\" or \"7.2-alpine\"",
            spec.version
        ));
    }
    let replicas = spec.replicas.unwrap_or(1);
    if !(0..=1).contains(&replicas) {
        wrong.push(format!(
            "spec.replicas: {replicas} members are not supported by this release: use 1, or 0 to stop the database"
        ));
    }
    let storage = spec.storage.as_ref().map(|storage| volume(storage, &mut wrong));
    let resources = spec.resources.clone().unwrap_or_default();
    let mut quantities = |pairs: [(&str, &str, &Option<String>); 2]| {
        let mut map = BTreeMap::new();
        for (field, resource, text) in pairs {
            if let Some(text) = text
                && positive(&format!("spec.resources.{field}"), text, &mut wrong).is_some()
            {
                map.insert(resource.to_owned(), WireQuantity(text.clone()));
            }
        }
        map
    };
    let requests = quantities([("cpu", "cpu", &resources.cpu), ("memory", "memory", &resources.memory)]);
    let limits = quantities([
        ("cpuLimit", "cpu", &resources.cpu_limit),
        ("memoryLimit", "memory", &resources.memory_limit),
    ]);
    compare(&requests, &limits, &mut wrong);
    for variable in spec.env.iter().filter(|variable| RESERVED.contains(&variable.name.as_str())) {
        wrong.push(format!("spec.env: {} is set by the operator, remove it", variable.name));
    }
    let Some(engine) = engine.filter(|_| wrong.is_empty()) else { return Err(wrong) };
    let password = match engine.password_secret() {
        Some(given) => Password::Given(given.clone()),
        None => {
            Password::Generated(SecretKey { name: format!("{name}-credentials"), key: "password".to_owned() })
        }
    };
    Ok(Valid {
        namespace: database.namespace().unwrap_or_default(),
        image: format!("{}:{}", engine.repository(), spec.version),
        engine,
        replicas,
        storage,
        deletion_policy: spec.deletion_policy.unwrap_or_default(),
        requests,
        limits,
        env: spec.env.clone(),
        service_type: spec.service_type.unwrap_or_default(),
        password,
        name,
    })
}

fn check_name(name: &str, wrong: &mut Wrong) {
    if name.len() > NAME_LENGTH_MAX {
        wrong.push(format!(
            "metadata.name: must have at most {NAME_LENGTH_MAX} characters, it names pods and Services"
        ));
    }
    wrong.extend(meta::names::dns1035_label(name).into_iter().map(|why| format!("metadata.name: {why}")));
}

/// Blocks of other engines: the CRD's rules refuse them too, where it is enforced.
fn foreign_blocks(database: &Database, wrong: &mut Wrong) {
    let spec = &database.spec;
    let blocks = [
        ("postgresql", EngineType::PostgreSQL, spec.postgresql.is_some()),
        ("redis", EngineType::Redis, spec.redis.is_some()),
    ];
    for (block, of, present) in blocks {
        if present && spec.engine != of {
            wrong.push(format!("spec.{block}: is only for type {of:?}, remove it"));
        }
    }
}

fn is_tag(version: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    version.len() <= 128
        && version.starts_with(word)
        && version.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn volume(storage: &Storage, wrong: &mut Wrong) -> Volume {
    positive("spec.storage.size", &storage.size, wrong);
    Volume {
        size: storage.size.clone(),
        class: storage.storage_class_name.clone(),
        access_mode: storage.access_mode.clone().unwrap_or_else(|| "ReadWriteOnce".to_owned()),
    }
}

fn positive(field: &str, text: &str, wrong: &mut Wrong) -> Option<Quantity> {
    match text.parse::<Quantity>() {
        Ok(quantity) if quantity > Quantity::default() => Some(quantity),
        Ok(_) => {
            wrong.push(format!("{field}: {text:?} must be greater than zero"));
            None
        }
        Err(_) => {
            wrong.push(format!("{field}: {text:?} is not a quantity, such as 500m, 2, 256Mi or 10Gi"));
            None
        }
    }
}

fn compare(
    requests: &BTreeMap<String, WireQuantity>,
    limits: &BTreeMap<String, WireQuantity>,
    wrong: &mut Wrong,
) {
    for (resource, limit) in limits {
        let Some(request) = requests.get(resource) else { continue };
        let both = (request.0.parse::<Quantity>(), limit.0.parse::<Quantity>());
        if let (Ok(request), Ok(limit)) = both
            && request > limit
        {
            wrong.push(format!("spec.resources.{resource}: must not be greater than {resource}Limit"));
        }
    }
}
