//! `authorization.k8s.io/v1`: kinds that are asked, never stored. The answers are the server's.

use std::sync::Arc;

use resource::Resource;

use crate::{Acts, entry::Group};

/// The kinds of the group that have somebody to answer them.
pub(super) fn kinds(group: &Group<'_>, acts: &Acts) -> Vec<Resource> {
    let mut kinds: Vec<Resource> = [
        ("SelfSubjectAccessReview", "selfsubjectaccessreviews", &acts.self_subject_access_review),
        ("SelfSubjectRulesReview", "selfsubjectrulesreviews", &acts.self_subject_rules_review),
        ("SubjectAccessReview", "subjectaccessreviews", &acts.subject_access_review),
    ]
    .into_iter()
    .filter_map(|(kind, plural, act)| {
        act.as_ref().map(|act| group.cluster(kind, plural).answered_by(Arc::clone(act)).done())
    })
    .collect();
    if let Some(act) = &acts.local_subject_access_review {
        let entry = group.namespaced("LocalSubjectAccessReview", "localsubjectaccessreviews");
        kinds.push(entry.answered_by(Arc::clone(act)).done());
    }
    kinds
}
