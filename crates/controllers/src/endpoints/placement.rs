//! Which endpoint goes into which slice: as few writes as possible, at most 100 to a slice. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::ResourceExt;

use super::backends::Port;

/// Upstream's default `--max-endpoints-per-slice`.
pub(super) const ENDPOINTS_MAX: usize = 100;

/// Endpoints that may share a slice: of one address family and with the same ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) address_type: &'static str,
    pub(super) ports: Vec<Port>,
}

/// What is to be in the slices.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Placement {
    /// Endpoints of each slice that stays, by its name.
    pub(super) keep: BTreeMap<String, Vec<Endpoint>>,
    /// New slices.
    pub(super) create: Vec<(Group, Vec<Endpoint>)>,
    /// Names of slices that go.
    pub(super) delete: Vec<String>,
}

impl Group {
    /// The ports as a slice has them.
    pub(super) fn slice_ports(&self) -> Vec<EndpointPort> {
        let wire = |port: &Port| EndpointPort {
            name: Some(port.name.clone()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone()),
            app_protocol: port.app_protocol.clone(),
        };
        self.ports.iter().map(wire).collect()
    }

    fn fits(&self, slice: &EndpointSlice) -> bool {
        let mut theirs: Vec<Port> = slice.ports.iter().flatten().map(read).collect();
        theirs.sort();
        slice.address_type == self.address_type && theirs == self.ports
    }
}

fn read(port: &EndpointPort) -> Port {
    Port {
        name: port.name.clone().unwrap_or_default(),
        port: port.port.unwrap_or(0),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        app_protocol: port.app_protocol.clone(),
    }
}

/// By what an endpoint is known again: its pod, or the address of one that is no pod.
fn identity(endpoint: &Endpoint) -> Option<&str> {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    uid.or_else(|| endpoint.addresses.first().map(String::as_str))
}

/// Places `wanted` into `existing` slices: each endpoint stays where it is, new ones fill what room
/// there is, the rest makes new slices, empty slices go. A group in `empty` gets a slice even without
/// endpoints (upstream's placeholder), so that there is always one to be found.
pub(super) fn place(
    wanted: BTreeMap<Group, Vec<Endpoint>>,
    empty: &[Group],
    existing: &[Arc<EndpointSlice>],
) -> Placement {
    let mut placement = Placement::default();
    let nothing = wanted.values().all(Vec::is_empty);
    for (group, mut endpoints) in wanted {
        let slices: Vec<_> = existing.iter().filter(|slice| group.fits(slice)).collect();
        for slice in &slices {
            let mut stays = Vec::new();
            for old in slice.endpoints.iter().flatten() {
                let at =
                    identity(old).and_then(|old| endpoints.iter().position(|new| identity(new) == Some(old)));
                stays.extend(at.map(|at| endpoints.remove(at)));
            }
            placement.keep.insert(slice.name_any(), stays);
        }
        for slice in &slices {
            if let Some(stays) = placement.keep.get_mut(&slice.name_any()) {
                let room = ENDPOINTS_MAX.saturating_sub(stays.len()).min(endpoints.len());
                stays.extend(endpoints.drain(..room));
            }
        }
        for chunk in endpoints.chunks(ENDPOINTS_MAX) {
            placement.create.push((group.clone(), chunk.to_vec()));
        }
    }
    let mut placeholders: Vec<&Group> = if nothing { empty.iter().collect() } else { Vec::new() };
    for slice in existing {
        let name = slice.name_any();
        let filled = placement.keep.get(&name).is_some_and(|stays| !stays.is_empty());
        let stands_in = placeholders.iter().position(|group| group.address_type == slice.address_type);
        if filled {
            continue;
        }
        if let Some(at) = stands_in {
            placeholders.remove(at);
            placement.keep.insert(name, Vec::new());
        } else {
            placement.keep.remove(&name);
            placement.delete.push(name);
        }
    }
    placement.create.extend(placeholders.into_iter().map(|group| (group.clone(), Vec::new())));
    placement
}
