//! Checks that more than one kind needs, in upstream's words (`pkg/apis/*/validation`).

mod at;
mod pod_spec;
mod resources;
mod selectors;
mod text;
mod volumes;

pub(crate) use at::{At, Errors};
pub(crate) use pod_spec::{pod_spec, pod_template};
pub(crate) use resources::{quantity, resource_list, storage_request};
pub(crate) use selectors::{label_selector, labels, node_selector};
pub(crate) use text::*;
