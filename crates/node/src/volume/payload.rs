//! Volumes made of files: configMap, secret, downwardAPI and projected.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};

use super::{Inputs, VolumeError, not_supported};
use crate::{fields, pod, sources::Missing};

const MODE_DEFAULT: i32 = 0o644;
/// Mode of a token when somebody other than root has to read it (upstream `projected.go`).
const TOKEN_MODE: i32 = 0o600;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Contents.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner when it is not root.
    pub uid: Option<i64>,
}

/// Which token: one for each projection that asks for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// Name of the volume.
    pub volume: String,
    /// Path in it.
    pub path: String,
    /// Audience; the API server when empty.
    pub audience: String,
    /// How long it should live, seconds.
    pub expiration_seconds: i64,
}

/// The tokens that the volumes of `pod` need.
pub fn tokens(pod: &Pod) -> Vec<Token> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let projections = volumes.flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        sources.filter_map(|source| token(volume, source))
    });
    projections.collect()
}

fn token(volume: &Volume, projection: &VolumeProjection) -> Option<Token> {
    let source = projection.service_account_token.as_ref()?;
    Some(Token {
        volume: volume.name.clone(),
        path: source.path.clone(),
        audience: source.audience.clone().unwrap_or_default(),
        expiration_seconds: source.expiration_seconds.unwrap_or(3600),
    })
}

/// The files of a volume; `None` when it is not made of files.
pub(super) fn files(
    pod: &Pod,
    volume: &Volume,
    inputs: &Inputs,
) -> Result<Option<BTreeMap<String, File>>, VolumeError> {
    let mut writer = Writer { pod, volume, inputs, files: BTreeMap::new() };
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        writer.config_map(&source.name, source.optional, source.items.as_deref(), mode)?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        let name = source.secret_name.as_deref().unwrap_or_default();
        writer.secret(name, source.optional, source.items.as_deref(), mode)?;
    } else if let Some(source) = &volume.downward_api {
        writer.downward(source.items.as_deref(), source.default_mode.unwrap_or(MODE_DEFAULT))?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        for projection in source.sources.iter().flatten() {
            writer.projection(projection, mode)?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(writer.files))
}

struct Writer<'a> {
    pod: &'a Pod,
    volume: &'a Volume,
    inputs: &'a Inputs,
    files: BTreeMap<String, File>,
}

impl Writer<'_> {
    fn projection(&mut self, projection: &VolumeProjection, mode: i32) -> Result<(), VolumeError> {
        let VolumeProjection {
            cluster_trust_bundle,
            config_map,
            downward_api,
            pod_certificate,
            secret,
            service_account_token,
        } = projection;
        if cluster_trust_bundle.is_some() {
            return Err(not_supported(self.volume, "a clusterTrustBundle projection"));
        }
        if pod_certificate.is_some() {
            return Err(not_supported(self.volume, "a podCertificate projection"));
        }
        if let Some(source) = config_map {
            self.config_map(&source.name, source.optional, source.items.as_deref(), mode)?;
        }
        if let Some(source) = secret {
            self.secret(&source.name, source.optional, source.items.as_deref(), mode)?;
        }
        if let Some(source) = downward_api {
            self.downward(source.items.as_deref(), mode)?;
        }
        if service_account_token.is_some() {
            self.token(projection, mode)?;
        }
        Ok(())
    }

    fn config_map(
        &mut self,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
        mode: i32,
    ) -> Result<(), VolumeError> {
        let optional = optional.unwrap_or_default();
        let data = self.inputs.sources.config_map(name, optional).map_err(|source| self.missing(source))?;
        self.keys(data.unwrap_or_default(), "config", optional, items, mode)
    }

    fn secret(
        &mut self,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
        mode: i32,
    ) -> Result<(), VolumeError> {
        let optional = optional.unwrap_or_default();
        let data = self.inputs.sources.secret(name, optional).map_err(|source| self.missing(source))?;
        self.keys(data.unwrap_or_default(), "secret", optional, items, mode)
    }

    fn keys(
        &mut self,
        data: BTreeMap<&str, &[u8]>,
        kind: &'static str,
        optional: bool,
        items: Option<&[KeyToPath]>,
        mode: i32,
    ) -> Result<(), VolumeError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, value) in data {
                self.add(key, value, mode, None)?;
            }
            return Ok(());
        };
        for item in items {
            match data.get(item.key.as_str()) {
                Some(value) => self.add(&item.path, value, item.mode.unwrap_or(mode), None)?,
                None if optional => {}
                None => {
                    let (volume, key) = (self.volume.name.clone(), item.key.clone());
                    return Err(VolumeError::Key { volume, kind, key });
                }
            }
        }
        Ok(())
    }

    fn downward(&mut self, items: Option<&[DownwardAPIVolumeFile]>, mode: i32) -> Result<(), VolumeError> {
        for item in items.into_iter().flatten() {
            let place = &self.inputs.place;
            let value = if let Some(field) = &item.field_ref {
                fields::field(self.pod, place, &field.field_path)
            } else if let Some(selector) = &item.resource_field_ref {
                fields::resource(self.pod, place, None, selector)
            } else {
                continue;
            };
            let volume = || self.volume.name.clone();
            let value = value.map_err(|source| VolumeError::Field { volume: volume(), source })?;
            self.add(&item.path, value.as_bytes(), item.mode.unwrap_or(mode), None)?;
        }
        Ok(())
    }

    fn token(&mut self, projection: &VolumeProjection, mode: i32) -> Result<(), VolumeError> {
        let Some(token) = token(self.volume, projection) else { return Ok(()) };
        let value = self.inputs.tokens.get(&token).map(String::as_str).unwrap_or_default();
        let user = single_user(self.pod);
        let context = self.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let private = user.is_some() || context.is_some_and(|context| context.fs_group.is_some());
        let mode = if private { TOKEN_MODE } else { mode };
        self.add(&token.path, value.as_bytes(), mode, user)
    }

    fn add(&mut self, path: &str, data: &[u8], mode: i32, uid: Option<i64>) -> Result<(), VolumeError> {
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || !inside {
            return Err(VolumeError::Path { volume: self.volume.name.clone(), path: path.to_owned() });
        }
        let mode = u32::try_from(mode).unwrap_or(0o644) & 0o7777;
        self.files.insert(path.to_owned(), File { data: data.to_vec(), mode, uid });
        Ok(())
    }

    fn missing(&self, source: Missing) -> VolumeError {
        VolumeError::Missing { volume: self.volume.name.clone(), source }
    }
}

/// The user all containers run as, when the pod says that it is one and the same: a token then
/// belongs to it (KEP-2451).
fn single_user(pod: &Pod) -> Option<i64> {
    let of_pod = pod.spec.as_ref()?.security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = pod::members(pod).map(|member| {
        let own = member.container.security_context.as_ref().and_then(|context| context.run_as_user);
        own.or(of_pod)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}
