//! Streams to nodes: log, exec, attach, port-forward and proxy.

/// Reaches the kubelet endpoints of nodes.
pub struct Kubelets;
