//! The host's end of the pod network. The bridge is made before the first pod, because the API server and
//! the DNS server are reached on it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::process::Command;

use crate::{
    error::Failure,
    up::{bootstrap::Addresses, server::ApiServer},
};

/// The bridge that CNI attaches pods to.
const NAME: &str = "keelson0";
/// The host on it: the first address of the node's range, as the CNI plugins choose it.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
/// Where DNS is served on the bridge.
pub(crate) const DNS_PORT: u16 = 53;

/// Makes the bridge and listens on it for requests from pods.
pub(crate) async fn prepare(server: &mut ApiServer) -> Result<Addresses, Failure> {
    let address = format!("{GATEWAY}/24");
    // Asked of the kernel, not of /sys: that may show another network namespace.
    if ip(&["link", "show", NAME]).await.is_err() {
        ip(&["link", "add", NAME, "type", "bridge"]).await?;
    }
    ip(&["address", "replace", &address, "dev", NAME]).await?;
    ip(&["link", "set", NAME, "up"]).await?;
    let host = IpAddr::V4(GATEWAY);
    let port = server.address.port();
    let listening = server.address.ip();
    if !listening.is_unspecified() && listening != host {
        server.listen(SocketAddr::new(host, port)).await?;
    }
    Ok(Addresses { host, api_port: port, dns_port: DNS_PORT })
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
