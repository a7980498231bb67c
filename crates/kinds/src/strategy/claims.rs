//! What Services hold cluster-wide: addresses and node ports. Each is an object whose name is the thing
//! claimed, so that creating it is the claim and two servers cannot hand out the same
//! (KEP-1880 does this for addresses; upstream keeps node ports in a bitmap behind one lock instead).
//!
//! An address is an IPAddress, which users may look at. A node port is an object of a kind that has no
//! verbs: it is stored and never served.

use meta::{GroupResource, Object, ObjectKey, Timestamp, Value, format_second};
use resource::{Claim, ClaimFault, Context, Holder, Strategy};
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

/// The label of those IPAddresses that the server made for Services, and its value.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

fn family(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}

/// The claim of a Service to an address.
pub(super) fn address(service: &Object, address: &str) -> Claim {
    let labels = json!({
        "ipaddress.kubernetes.io/ip-family": family(address),
        MANAGED_BY: ALLOCATOR,
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

/// The object that a claim of ours names, where that is a Service.
fn named(claim: &Object) -> Holder {
    let field = |name: &str| claim.str(&["spec", "parentRef", name]).unwrap_or_default();
    if field("group").is_empty() && field("resource") == "services" {
        Holder::Of(ObjectKey::new(field("namespace"), field("name")))
    } else {
        Holder::Nobody
    }
}

/// What an event says, in upstream's words.
struct Told {
    component: &'static str,
    reason: &'static str,
    action: &'static str,
    message: String,
}

/// The event that tells of an object.
fn event(about: &Object, told: Told, now: Timestamp) -> Object {
    let Told { component, reason, action, message } = told;
    let namespace = if about.namespace().is_empty() { "default" } else { about.namespace() };
    let time = format_second(now);
    object(json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"generateName": format!("{}.", about.name()), "namespace": namespace},
        "involvedObject": {
            "apiVersion": about.api_version(), "kind": about.kind(), "namespace": about.namespace(),
            "name": about.name(), "uid": about.str(&["metadata", "uid"]).unwrap_or_default(),
        },
        "type": "Warning", "reason": reason, "action": action, "message": message,
        "source": {"component": component}, "reportingComponent": component, "reportingInstance": component,
        "firstTimestamp": time, "lastTimestamp": time, "count": 1,
    }))
}

fn parent(service: &Object) -> Value {
    json!({"resource": "services", "namespace": service.namespace(), "name": service.name()})
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap_or_default()
}

/// Behaviour of the hidden kind of node port claims.
pub(crate) struct NodePort;

impl Strategy for NodePort {
    fn held_by(&self) -> Option<GroupResource> {
        Some(GroupResource::new("", "services"))
    }

    fn holder(&self, claim: &Object) -> Holder {
        named(claim)
    }

    /// As upstream's `portallocator/controller/repair.go`, which tells nobody of a port that leaked.
    fn report(
        &self,
        claim: &Object,
        holder: Option<&Object>,
        fault: ClaimFault,
        now: Timestamp,
    ) -> Option<Object> {
        let port = claim.name();
        let (reason, message) = match fault {
            ClaimFault::Missing | ClaimFault::Misnamed => {
                ("PortNotAllocated", format!("Port {port} is not allocated; repairing"))
            }
            ClaimFault::Taken => (
                "PortAlreadyAllocated",
                format!("Port {port} was assigned to multiple services; please recreate service"),
            ),
            ClaimFault::Leaked | ClaimFault::Unheld | ClaimFault::Nameless => return None,
        };
        let told = Told {
            component: "portallocator-repair-controller",
            reason,
            action: "NodePortAllocation",
            message,
        };
        Some(event(holder?, told, now))
    }
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

    fn held_by(&self) -> Option<GroupResource> {
        Some(GroupResource::new("", "services"))
    }

    fn holder(&self, claim: &Object) -> Holder {
        if claim.label(MANAGED_BY) == Some(ALLOCATOR) { named(claim) } else { Holder::Foreign }
    }

    /// As upstream's `ipallocator/controller/repairip.go`.
    fn report(
        &self,
        claim: &Object,
        holder: Option<&Object>,
        fault: ClaimFault,
        now: Timestamp,
    ) -> Option<Object> {
        let (address, family) = (claim.name(), family(claim.name()));
        let parent = |field: &str| claim.str(&["spec", "parentRef", field]).unwrap_or_default();
        let service = format!("{}/{}", parent("namespace"), parent("name"));
        let (reason, message) = match fault {
            ClaimFault::Missing => (
                "ClusterIPNotAllocated",
                format!("Cluster IP [{family}]: {address} is not allocated; repairing"),
            ),
            ClaimFault::Misnamed => (
                "ClusterIPNotAllocated",
                format!(
                    "the ClusterIP [{family}]: {address} for Service {service} has a wrong reference; repairing"
                ),
            ),
            ClaimFault::Taken => (
                "ClusterIPAlreadyAllocated",
                format!(
                    "Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service"
                ),
            ),
            ClaimFault::Leaked => (
                "IPAddressNotAllocated",
                format!("IPAddress: {address} for Service {service} appears to have leaked: cleaning up"),
            ),
            ClaimFault::Unheld => (
                "IPAddressWrongReference",
                format!("IPAddress: {address} for Service {service} has a wrong reference; cleaning up"),
            ),
            ClaimFault::Nameless => (
                "IPAddressNotAllocated",
                format!(
                    "IPAddress {address} appears to have been modified, not referencing a Service: cleaning up"
                ),
            ),
        };
        let about_service = matches!(fault, ClaimFault::Missing | ClaimFault::Misnamed | ClaimFault::Taken);
        let (about, action) =
            if about_service { (holder?, "ClusterIPAllocation") } else { (claim, "IPAddressAllocation") };
        let told = Told { component: "ipallocator-repair-controller", reason, action, message };
        Some(event(about, told, now))
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::first(ip(name))
    }
}
