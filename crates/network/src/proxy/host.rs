//! Kernel switches that service traffic depends on.

use std::{fs, io, path::Path};

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const BRIDGE: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";

/// Turns on forwarding between pods and, where the kernel can, filtering of bridged packets. Returns
/// whether bridged packets pass through the IP hooks: where they do not, the answer of a pod on the
/// same bridge would reach the client with the pod's address instead of the service's, so such
/// traffic has to be masqueraded.
pub(crate) fn prepare(localhost_node_ports: bool) -> io::Result<bool> {
    turn_on(FORWARD)?;
    if localhost_node_ports {
        turn_on(ROUTE_LOCALNET)?;
    }
    if !Path::new(BRIDGE).exists() {
        tracing::warn!(
            "kernel module br_netfilter is not loaded (modprobe br_netfilter): \
             service traffic between pods is masqueraded, so pods see the node as the client"
        );
        return Ok(false);
    }
    turn_on(BRIDGE)?;
    Ok(true)
}

fn turn_on(path: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() == "1" {
        return Ok(());
    }
    tracing::info!(path, "turning on a kernel switch");
    fs::write(path, "1")
}
