//! OpenAPI documents, derived from the registry.
//!
//! Guarantees: nothing is built before somebody asks; a document is built once for each change of what is
//! served; an index entry's hash changes when its document does.

mod gnostic;
mod paths;
mod schemas;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use meta::{Status, Value};
use resource::Resource;
use serde_json::json;

pub(crate) use schemas::builtin_name;

use crate::{
    Registry,
    aggregation::merge,
    discovery::{Group, Version, groups},
};

/// Texts for readers by definition name and field; the empty field is the type itself.
pub type Texts = Box<dyn Fn(&str, &str) -> Option<String>>;

/// Makes the texts, whenever a document is built; they are dropped when it is.
pub type Describe = Arc<dyn Fn() -> Texts + Send + Sync>;

/// Swagger 2 in gnostic's protobuf form, as kubectl up to 1.26 asks for it.
const GNOSTIC_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same as it is answered: `@` is not allowed in a media type, and Go's parser refuses it.
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A document as it is sent.
#[derive(Clone)]
pub(crate) struct Document {
    pub(crate) bytes: Bytes,
    /// Quoted.
    pub(crate) etag: String,
    pub(crate) content_type: &'static str,
}

/// A form of the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

/// The documents as they were last built.
pub(crate) struct OpenApi {
    version: String,
    describe: Describe,
    built: Mutex<Built>,
}

#[derive(Default)]
struct Built {
    generation: Option<u64>,
    documents: BTreeMap<String, Document>,
}

impl OpenApi {
    /// Documents of a server of this version.
    pub(crate) fn new(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            describe: Arc::new(|| Box::new(|_, _| None)),
            built: Mutex::default(),
        }
    }

    /// Sets where texts come from.
    pub(crate) fn describe(&mut self, describe: Describe) {
        self.describe = describe;
    }

    /// `/openapi/v2`, as JSON or, when it is accepted, as protobuf.
    pub(crate) fn v2(&self, registry: &Registry, accepted: &str) -> Result<Document, Status> {
        let protobuf = accepted.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
        let json_first =
            |media: &&str| matches!(*media, "application/json" | "*/*" | GNOSTIC | GNOSTIC_ASKED);
        let content_type = match protobuf.into_iter().find(|media| json_first(media)) {
            Some(GNOSTIC | GNOSTIC_ASKED) => GNOSTIC,
            _ => "application/json",
        };
        let build = || {
            let document = self.v2_document(registry);
            if content_type == GNOSTIC {
                return Ok(Bytes::from(gnostic::encode(&document)));
            }
            serde_json::to_vec(&document).map(Bytes::from).map_err(Status::internal)
        };
        self.cached(registry, &format!("v2 {content_type}"), content_type, build)
    }

    /// `/openapi/v3`.
    pub(crate) fn v3_index(&self, registry: &Registry) -> Result<Document, Status> {
        let mut paths = serde_json::Map::new();
        for group in groups(registry) {
            for version in &group.versions {
                let name = document_name(&group.name, &version.name);
                let hash = match &version.remote {
                    None => self.v3_hash(registry, &group, version)?,
                    // Its document is asked of it.
                    Some(remote) => match remote.seen.as_ref().filter(|seen| !seen.v3.is_empty()) {
                        Some(seen) => seen.v3.clone(),
                        None => continue,
                    },
                };
                let url = format!("/openapi/v3/{name}?hash={hash}");
                paths.insert(name, json!({ "serverRelativeURL": url }));
            }
        }
        let bytes = Bytes::from(json!({ "paths": paths }).to_string());
        let etag = format!("\"{}\"", hash(&bytes));
        Ok(Document { bytes, etag, content_type: "application/json" })
    }

    /// `/openapi/v3/NAME` (`api/v1`, `apis/apps/v1`); `None` when it is not served.
    pub(crate) fn v3(&self, registry: &Registry, name: &str) -> Result<Option<Document>, Status> {
        let groups = groups(registry);
        let mut all =
            groups.iter().flat_map(|group| group.versions.iter().map(move |version| (group, version)));
        let Some((group, version)) = all.find(|(group, version)| {
            version.remote.is_none() && document_name(&group.name, &version.name) == name
        }) else {
            return Ok(None);
        };
        let mut document = self.v3_built(registry, group, version)?;
        document.etag = format!("\"{}\"", self.v3_hash(registry, group, version)?);
        Ok(Some(document))
    }

    fn v3_built(&self, registry: &Registry, group: &Group, version: &Version) -> Result<Document, Status> {
        let name = document_name(&group.name, &version.name);
        let build = || {
            let document = self.v3_document(&version.resources);
            serde_json::to_vec(&document).map(Bytes::from).map_err(Status::internal)
        };
        self.cached(registry, &name, "application/json", build)
    }

    /// What changes when the document does. A built-in kind changes with the program only, so that its
    /// document need not be built to be listed.
    fn v3_hash(&self, registry: &Registry, group: &Group, version: &Version) -> Result<String, Status> {
        if version.resources.iter().any(|resource| resource.custom) {
            return Ok(hash(&self.v3_built(registry, group, version)?.bytes));
        }
        let mut text = self.version.clone();
        for resource in &version.resources {
            text.push_str(&format!(" {resource:?} {:?}", resource.verbs));
            for (name, _) in &resource.subresources {
                text.push_str(&format!(" {name}"));
            }
        }
        Ok(hash(text.as_bytes()))
    }

    fn cached(
        &self,
        registry: &Registry,
        name: &str,
        content_type: &'static str,
        build: impl FnOnce() -> Result<Bytes, Status>,
    ) -> Result<Document, Status> {
        let generation = registry.generation();
        if let Some(document) = self.current(generation).documents.get(name) {
            return Ok(document.clone());
        }
        // Built without the lock: others read meanwhile, and two who ask at once build the same twice.
        let bytes = build()?;
        let etag = format!("\"{}\"", hash(&bytes));
        let document = Document { bytes, etag, content_type };
        self.current(generation).documents.insert(name.to_owned(), document.clone());
        Ok(document)
    }

    fn current(&self, generation: u64) -> MutexGuard<'_, Built> {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if built.generation != Some(generation) {
            *built = Built { generation: Some(generation), documents: BTreeMap::new() };
        }
        built
    }

    fn info(&self) -> Value {
        json!({ "title": "Kubernetes", "version": self.version })
    }

    fn v3_document(&self, resources: &[Arc<Resource>]) -> Value {
        json!({
            "openapi": "3.0.0", "info": self.info(),
            "paths": paths::of(resources, Dialect::V3),
            "components": { "schemas": schemas::of(resources, Dialect::V3, &*(self.describe)()) },
        })
    }

    fn v2_document(&self, registry: &Registry) -> Value {
        // A kind without verbs is stored and never served.
        let resources: Vec<_> =
            registry.all().into_iter().filter(|resource| !resource.verbs.is_empty()).collect();
        let mut document = json!({
            "swagger": "2.0", "info": self.info(),
            "paths": paths::of(&resources, Dialect::V2),
            "definitions": schemas::of(&resources, Dialect::V2, &*(self.describe)()),
        });
        for fragment in registry.remotes().values().filter_map(|remote| remote.seen.as_ref()?.v2.clone()) {
            merge(&mut document, &fragment);
        }
        document
    }
}

fn document_name(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// A hash for `ETag` and cache addresses, in hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests;
