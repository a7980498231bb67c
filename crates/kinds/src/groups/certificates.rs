//! `certificates.k8s.io/v1`.

use resource::{Resource, Subresource};

use crate::{columns::REQUEST, entry::Group, strategy::SigningRequest};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .cluster("CertificateSigningRequest", "certificatesigningrequests")
            .short("csr")
            .columns(REQUEST)
            .selectable(&[("spec.signerName", "")])
            .strategy(SigningRequest)
            .status()
            .subresource("approval", Subresource::Update)
            .done(),
    ]
}
