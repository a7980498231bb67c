//! Who may approve and sign certificate requests, and for whom nobody may ask (upstream
//! `plugin/pkg/admission/certificates`).
//!
//! Permission to write `approval` or `status` is not enough: the signer named in the request must be granted
//! too, by `approve` and `sign` on `signers.certificates.k8s.io`.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::{BoxFuture, FutureExt as _, ready};
use meta::{GroupResource, Object, Status};
use resource::{Admission, Attributes, Context, Operation};

use super::{Ask, Asked, Authorizer, MASTERS};

const GROUP: &str = "certificates.k8s.io";

fn is_request(attributes: &Attributes, operation: Operation, subresource: &str) -> bool {
    attributes.resource == GroupResource::new(GROUP, "certificatesigningrequests")
        && attributes.operation == operation
        && attributes.subresource == subresource
}

/// Approving or denying needs `approve` on the signer.
pub struct CertificateApproval(pub Arc<dyn Authorizer>);

impl Admission for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        is_request(attributes, Operation::Update, "approval")
    }

    fn validate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        _: Option<&'a Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        ready(for_signer(cx, &*self.0, "approve", old)).boxed()
    }
}

/// Setting a certificate, or a condition beside the approval, needs `sign` on the signer.
pub struct CertificateSigning(pub Arc<dyn Authorizer>);

impl Admission for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        is_request(attributes, Operation::Update, "status")
    }

    fn validate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let changed = |field: &str| {
            object.and_then(|o| o.get(&["status", field])) != old.and_then(|o| o.get(&["status", field]))
        };
        let verdict = if changed("certificate") || changed("conditions") {
            for_signer(cx, &*self.0, "sign", old)
        } else {
            Ok(())
        };
        ready(verdict).boxed()
    }
}

/// Whether the user may `verb` for the signer of the request: by its name, or `domain/*`.
fn for_signer(
    cx: &Context<'_>,
    authorizer: &dyn Authorizer,
    verb: &str,
    request: Option<&Object>,
) -> Result<(), Status> {
    let signer = request.and_then(|r| r.str(&["spec", "signerName"])).unwrap_or_default();
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    let wildcard = format!("{domain}/*");
    let may = |name: &str| {
        let object = Asked::Resource {
            group: GROUP,
            version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
        };
        authorizer.allows(&Ask::new(&cx.attributes.user, verb, object))
    };
    if may(signer) || may(&wildcard) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Status::forbidden(&cx.attributes.resource, &cx.attributes.name, &why))
}

/// Nobody asks the API server's client signer for the group that passes every authorization.
pub struct CertificateSubjectRestriction;

impl Admission for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        is_request(attributes, Operation::Create, "")
    }

    fn validate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a Object>,
        _: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let asked = object.filter(|o| o.str(&["spec", "signerName"]) == Some(csr::API_CLIENT));
        let request = asked.and_then(|o| o.str(&["spec", "request"]));
        let parsed = request.and_then(|text| STANDARD.decode(text).ok()).map(|pem| csr::Request::parse(&pem));
        let verdict = match parsed {
            Some(Ok(request)) if request.organizations.iter().any(|o| o == MASTERS) => {
                let why = format!("use of {} signer with {MASTERS} group is not allowed", csr::API_CLIENT);
                Err(Status::forbidden(&cx.attributes.resource, &cx.attributes.name, &why))
            }
            // One that cannot be read was refused by its kind's own rules.
            _ => Ok(()),
        };
        ready(verdict).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::{Decision, Rule},
        testing::Objects,
    };
    use meta::Value;
    use resource::User;
    use serde_json::json;

    /// Who is called after a signer's name may do what its verb says for it.
    struct ByName;

    impl Authorizer for ByName {
        fn allows(&self, ask: &Ask<'_>) -> bool {
            let Asked::Resource { resource: "signers", name, group: GROUP, .. } = ask.object else {
                return false;
            };
            ask.user.name == format!("{} {name}", ask.verb)
        }
        fn decide(&self, _: &Ask<'_>) -> Decision {
            Decision::NoOpinion(String::new())
        }
        fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
            Vec::new()
        }
    }

    fn request(signer: &str, status: Value) -> Object {
        Object::from_value(
            json!({"metadata": {"name": "r"}, "spec": {"signerName": signer}, "status": status}),
        )
        .unwrap()
    }

    fn check(
        plugin: &dyn Admission,
        user: &str,
        path: (Operation, &str),
        new: &Object,
        old: Option<&Object>,
    ) -> bool {
        let attributes = Attributes {
            user: User { name: user.to_owned(), ..User::default() },
            operation: path.0,
            resource: GroupResource::new(GROUP, "certificatesigningrequests"),
            version: "v1".to_owned(),
            kind: "CertificateSigningRequest".to_owned(),
            subresource: path.1.to_owned(),
            namespace: String::new(),
            name: "r".to_owned(),
            dry_run: false,
            options: Value::Null,
            notes: Arc::default(),
            kind_version: meta::GroupVersion::new(GROUP, "v1"),
        };
        let (view, clock) = (Objects::default(), meta::Fixed::new(meta::Timestamp::UNIX_EPOCH));
        let random = meta::Seeded::new(1);
        let cx = Context { attributes: &attributes, view: &view, clock: &clock, random: &random };
        assert!(plugin.handles(&attributes));
        plugin.validate(&cx, Some(new), old).now_or_never().unwrap().is_ok()
    }

    #[test]
    fn only_who_is_granted_the_signer_approves_and_signs() {
        let authorizer: Arc<dyn Authorizer> = Arc::new(ByName);
        let old = request("a.b/c", json!({}));
        let approved = request("a.b/c", json!({"conditions": [{"type": "Approved"}]}));
        let approval = CertificateApproval(authorizer.clone());
        for (user, expected) in [
            ("approve a.b/c", true),
            ("approve a.b/*", true),
            ("approve a.b/d", false),
            ("sign a.b/c", false),
            ("ann", false),
        ] {
            let path = (Operation::Update, "approval");
            assert_eq!(check(&approval, user, path, &approved, Some(&old)), expected, "{user}");
        }
        // The signer that counts is the one stored, not one that the update names.
        let other = request("x.y/z", json!({}));
        assert!(!check(&approval, "approve x.y/z", (Operation::Update, "approval"), &other, Some(&old)));
        let signing = CertificateSigning(authorizer);
        let issued = request("a.b/c", json!({"certificate": "eA=="}));
        let path = (Operation::Update, "status");
        assert!(check(&signing, "sign a.b/*", path, &issued, Some(&old)));
        assert!(!check(&signing, "approve a.b/c", path, &issued, Some(&old)));
        assert!(check(&signing, "ann", path, &old, Some(&old)), "nothing that a signer says was changed");
    }

    #[test]
    fn nobody_asks_for_masters() {
        let ask = |signer: &str, organization: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
            let key = rcgen::KeyPair::generate().unwrap();
            let pem = params.serialize_request(&key).unwrap().pem().unwrap();
            let mut object = request(signer, json!({}));
            object.set(&["spec", "request"], STANDARD.encode(pem));
            check(&CertificateSubjectRestriction, "ann", (Operation::Create, ""), &object, None)
        };
        assert!(!ask(csr::API_CLIENT, MASTERS));
        assert!(ask(csr::API_CLIENT, "dev"));
        assert!(ask("example.com/own", MASTERS));
    }
}
