//! `admissionregistration.k8s.io/v1`: who is asked before something is written. Asking is the server's.

use resource::Resource;

use crate::{
    columns::{MUTATING_POLICY, POLICY_BINDING, VALIDATING_POLICY, WEBHOOKS},
    entry::Group,
    strategy::{Policy, PolicyBinding, Webhooks},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .cluster("MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
            .category("api-extensions")
            .columns(WEBHOOKS)
            .strategy(Webhooks)
            .done(),
        group
            .cluster("ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
            .category("api-extensions")
            .columns(WEBHOOKS)
            .strategy(Webhooks)
            .done(),
        group
            .cluster("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
            .category("api-extensions")
            .columns(VALIDATING_POLICY)
            .strategy(Policy { mutating: false })
            .status()
            .done(),
        group
            .cluster("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
            .category("api-extensions")
            .columns(POLICY_BINDING)
            .strategy(PolicyBinding { mutating: false })
            .done(),
        group
            .cluster("MutatingAdmissionPolicy", "mutatingadmissionpolicies")
            .category("api-extensions")
            .columns(MUTATING_POLICY)
            .strategy(Policy { mutating: true })
            .done(),
        group
            .cluster("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
            .category("api-extensions")
            .columns(POLICY_BINDING)
            .strategy(PolicyBinding { mutating: true })
            .done(),
    ]
}
