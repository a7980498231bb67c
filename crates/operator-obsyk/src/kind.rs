//! The twenty kinds of the inventory, as one table: what the platform calls each, and where it is read.

/// One kind of the inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "upstream's kinds")]
pub enum Kind {
    Namespace,
    Pod,
    Service,
    Node,
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    Ingress,
    NetworkPolicy,
    ConfigMap,
    Secret,
    PersistentVolumeClaim,
    ServiceAccount,
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
    Event,
}

/// What the table says of one kind: its name, group, plural, list in a snapshot, counter in a status.
struct Row(Kind, &'static str, &'static str, &'static str, &'static str, &'static str);

const TABLE: [Row; 20] = [
    Row(Kind::Namespace, "Namespace", "", "namespaces", "namespaces", "namespaces"),
    Row(Kind::Pod, "Pod", "", "pods", "pods", "pods"),
    Row(Kind::Service, "Service", "", "services", "services", "services"),
    Row(Kind::Node, "Node", "", "nodes", "nodes", "nodes"),
    Row(Kind::Deployment, "Deployment", "apps", "deployments", "deployments", "deployments"),
    Row(Kind::StatefulSet, "StatefulSet", "apps", "statefulsets", "statefulsets", "statefulSets"),
    Row(Kind::DaemonSet, "DaemonSet", "apps", "daemonsets", "daemonsets", "daemonSets"),
    Row(Kind::Job, "Job", "batch", "jobs", "jobs", "jobs"),
    Row(Kind::CronJob, "CronJob", "batch", "cronjobs", "cronjobs", "cronJobs"),
    Row(Kind::Ingress, "Ingress", "networking.k8s.io", "ingresses", "ingresses", "ingresses"),
    Row(
        Kind::NetworkPolicy,
        "NetworkPolicy",
        "networking.k8s.io",
        "networkpolicies",
        "network_policies",
        "networkPolicies",
    ),
    Row(Kind::ConfigMap, "ConfigMap", "", "configmaps", "configmaps", "configMaps"),
    Row(Kind::Secret, "Secret", "", "secrets", "secrets", "secrets"),
    Row(Kind::PersistentVolumeClaim, "PersistentVolumeClaim", "", "persistentvolumeclaims", "pvcs", "pvcs"),
    Row(Kind::ServiceAccount, "ServiceAccount", "", "serviceaccounts", "service_accounts", "serviceAccounts"),
    Row(Kind::Role, "Role", RBAC, "roles", "roles", "roles"),
    Row(Kind::ClusterRole, "ClusterRole", RBAC, "clusterroles", "cluster_roles", "clusterRoles"),
    Row(Kind::RoleBinding, "RoleBinding", RBAC, "rolebindings", "role_bindings", "roleBindings"),
    Row(
        Kind::ClusterRoleBinding,
        "ClusterRoleBinding",
        RBAC,
        "clusterrolebindings",
        "cluster_role_bindings",
        "clusterRoleBindings",
    ),
    Row(Kind::Event, "Event", "", "events", "events", "events"),
];

const RBAC: &str = "rbac.authorization.k8s.io";

impl Kind {
    /// All of them, in the order of a snapshot's lists.
    pub const ALL: [Self; 20] = [
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::Node,
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::Ingress,
        Self::NetworkPolicy,
        Self::ConfigMap,
        Self::Secret,
        Self::PersistentVolumeClaim,
        Self::ServiceAccount,
        Self::Role,
        Self::ClusterRole,
        Self::RoleBinding,
        Self::ClusterRoleBinding,
        Self::Event,
    ];

    /// Its place in [`Kind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    fn row(self) -> &'static Row {
        // A test holds that every kind has a row.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }

    /// `kind` in an event, and in Kubernetes.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// API group; empty for core. All are read as `v1`.
    pub fn group(self) -> &'static str {
        self.row().2
    }

    /// Plural in the API.
    pub fn plural(self) -> &'static str {
        self.row().3
    }

    /// The list of a snapshot that holds them.
    pub fn list(self) -> &'static str {
        self.row().4
    }

    /// The counter of `status.resourceCounts`.
    pub fn counter(self) -> &'static str {
        self.row().5
    }

    /// The kind that the platform calls so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether its objects live in namespaces.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node | Self::ClusterRole | Self::ClusterRoleBinding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!((kind.index(), kind.row().0), (at, kind));
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
    }
}
