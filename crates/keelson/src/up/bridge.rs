//! The machine's end of the pod network. The bridge is made before the first pod, because the API server and
//! the DNS server are reached on it.

use std::net::Ipv4Addr;

use tokio::process::Command;

use crate::error::Failure;

/// The bridge that CNI attaches pods to.
const NAME: &str = "keelson0";
/// Where DNS is served on the bridge.
pub(crate) const DNS_PORT: u16 = 53;

/// Makes the bridge, or has the one that is there have the machine's address among its pods.
pub(crate) async fn make(gateway: Ipv4Addr, pod_cidr: &str) -> Result<(), Failure> {
    let (_, bits) = pod_cidr.split_once('/').unwrap_or((pod_cidr, "24"));
    let address = format!("{gateway}/{bits}");
    // Asked of the kernel, not of /sys: that may show another network namespace.
    if ip(&["link", "show", NAME]).await.is_err() {
        ip(&["link", "add", NAME, "type", "bridge"]).await?;
    }
    ip(&["address", "replace", &address, "dev", NAME]).await?;
    ip(&["link", "set", NAME, "up"]).await
}

async fn ip(arguments: &[&str]) -> Result<(), Failure> {
    let doing = format!("ip {}", arguments.join(" "));
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .await
        .map_err(|error| Failure::of(doing.clone(), error).advise("install the package iproute2"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::of(doing, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
