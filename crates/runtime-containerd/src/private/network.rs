//! The pod network's CNI configuration: a bridge, addresses from the node's range, host ports.
//! containerd adds the loopback by itself.

use std::path::PathBuf;

use runtime::{Error, ErrorKind, Result, Step};
use serde_json::{Value, json};

use super::Settings;

/// Where the configuration goes and what is in it besides the range.
pub(crate) struct Network {
    directory: PathBuf,
    bridge: String,
    ip_masquerade: bool,
    mtu: Option<u32>,
    portmap_backend: Option<&'static str>,
}

impl Network {
    pub(super) fn new(settings: &Settings, portmap_backend: Option<&'static str>) -> Self {
        Self {
            directory: settings.directory.join("cni"),
            bridge: settings.bridge.clone(),
            ip_masquerade: settings.ip_masquerade,
            mtu: settings.mtu,
            portmap_backend,
        }
    }

    /// Writes the configuration for a range, unless it is there already.
    pub(crate) async fn write(&self, cidr: &str) -> Result<()> {
        let failed = |message: String| Error::new(Step::Network, cidr, ErrorKind::Internal, message);
        if !is_ipv4_range(cidr) {
            let message = "want an IPv4 range such as 10.244.0.0/24";
            return Err(Error::new(Step::Network, cidr, ErrorKind::Invalid, message));
        }
        let text = format!("{:#}\n", self.configuration(cidr));
        let path = self.directory.join("net.d/10-keelson.conflist");
        if tokio::fs::read_to_string(&path).await.is_ok_and(|found| found == text) {
            return Ok(());
        }
        // In place: containerd reloads on a write, not when another file takes the name. Should we end
        // in the middle, the next call finds another text and writes again.
        tokio::fs::write(&path, text)
            .await
            .map_err(|error| failed(format!("cannot write {}: {error}", path.display())))
    }

    fn configuration(&self, cidr: &str) -> Value {
        let mut portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
        if let (Some(backend), Some(portmap)) = (self.portmap_backend, portmap.as_object_mut()) {
            portmap.insert("backend".into(), json!(backend));
        }
        let mut bridge = json!({
            "type": "bridge",
            "bridge": self.bridge,
            "isGateway": true,
            "ipMasq": self.ip_masquerade,
            // a pod reaches itself through its Service
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": self.directory.join("ipam"),
                "ranges": [[{"subnet": cidr}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        });
        if let (Some(mtu), Some(bridge)) = (self.mtu, bridge.as_object_mut()) {
            bridge.insert("mtu".into(), json!(mtu));
        }
        json!({"cniVersion": "0.4.0", "name": "keelson", "plugins": [bridge, portmap]})
    }
}

fn is_ipv4_range(cidr: &str) -> bool {
    cidr.split_once('/').is_some_and(|(address, prefix)| {
        address.parse::<std::net::Ipv4Addr>().is_ok() && prefix.parse::<u8>().is_ok_and(|prefix| prefix <= 30)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_range_is_checked_and_written() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { mtu: Some(1450), ..Settings::new(directory.path()) };
        let network = Network::new(&settings, Some("nftables"));
        std::fs::create_dir_all(directory.path().join("cni/net.d")).unwrap();
        for bad in ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/24, 10.0.1.0/24"] {
            assert_eq!(network.write(bad).await.unwrap_err().kind, ErrorKind::Invalid, "{bad}");
        }
        network.write("10.9.0.0/24").await.unwrap();
        let text = std::fs::read_to_string(directory.path().join("cni/net.d/10-keelson.conflist")).unwrap();
        let written: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written.pointer("/plugins/0/ipam/ranges/0/0/subnet"), Some(&json!("10.9.0.0/24")));
        assert_eq!(written.pointer("/plugins/0/mtu"), Some(&json!(1450)));
        assert_eq!(written.pointer("/plugins/1/backend"), Some(&json!("nftables")));
    }
}
