//! What Services hold cluster-wide: addresses and node ports. Each is an object whose name is the thing
//! claimed, so that creating it is the claim and two servers cannot hand out the same
//! (KEP-1880 does this for addresses; upstream keeps node ports in a bitmap behind one lock instead).
//!
//! An address is an IPAddress, which users may look at. A node port is an object of a kind that has no
//! verbs: it is stored and never served.

use meta::{GroupResource, Object, Value};
use resource::{Claim, Context, Strategy};
use serde_json::json;

use crate::validate::{At, Errors, ip};

/// Group and plural of the hidden kind of node port claims.
pub(crate) const NODE_PORTS: (&str, &str) = ("claims.keelson.internal", "nodeports");

/// Where addresses are claimed.
pub(super) fn addresses() -> GroupResource {
    GroupResource::new("networking.k8s.io", "ipaddresses")
}

/// Where node ports are claimed.
pub(super) fn node_ports() -> GroupResource {
    GroupResource::new(NODE_PORTS.0, NODE_PORTS.1)
}

/// The claim of a Service to an address.
pub(super) fn address(service: &Object, address: &str) -> Claim {
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    let labels = json!({
        "ipaddress.kubernetes.io/ip-family": family,
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    });
    let value = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": address, "labels": labels}, "spec": {"parentRef": parent(service)},
    });
    Claim { resource: addresses(), object: object(value) }
}

/// The claim of a Service to a node port, whatever the protocol.
pub(super) fn node_port(service: &Object, port: i64) -> Claim {
    let value = json!({
        "apiVersion": format!("{}/v1", NODE_PORTS.0), "kind": "NodePort",
        "metadata": {"name": port.to_string()}, "spec": {"parentRef": parent(service)},
    });
    Claim { resource: node_ports(), object: object(value) }
}

fn parent(service: &Object) -> Value {
    json!({"resource": "services", "namespace": service.namespace(), "name": service.name()})
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap_or_default()
}

/// Behaviour of `networking.k8s.io/v1` IPAddress.
pub(crate) struct Address;

impl Strategy for Address {
    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let parent = At::root(new, "spec").get("parentRef");
        if !parent.is_set() {
            parent.required(errors, "");
        } else {
            parent.get("resource").must(errors, |_| Vec::new());
            parent.get("name").must(errors, |_| Vec::new());
        }
        if let Some(old) = old {
            parent.immutable(errors, &At::root(old, "spec").get("parentRef"));
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::first(ip(name))
    }
}
