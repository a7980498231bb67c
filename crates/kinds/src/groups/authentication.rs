//! `authentication.k8s.io/v1`: kinds that are asked, never stored. The answers are the server's.

use std::sync::Arc;

use resource::Resource;

use crate::{Acts, entry::Group};

/// The kinds of the group that have somebody to answer them.
pub(super) fn kinds(group: &Group<'_>, acts: &Acts) -> Vec<Resource> {
    [
        ("SelfSubjectReview", "selfsubjectreviews", &acts.self_subject_review),
        ("TokenReview", "tokenreviews", &acts.token_review),
    ]
    .into_iter()
    .filter_map(|(kind, plural, act)| {
        act.as_ref().map(|act| group.cluster(kind, plural).answered_by(Arc::clone(act)).done())
    })
    .collect()
}
