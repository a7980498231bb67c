//! get and list.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use meta::{Entry, ObjectKey, Revision, Status};
use resource::{Resource, Verb};

use super::{At, ListOptions, Page, Rest, page, page::Continue, select::Selection};
use crate::cache::Snapshot;

impl Rest {
    /// One object. `at` is the `resourceVersion` parameter: the answer is not older than it; without it, not
    /// older than the request.
    pub async fn get(
        &self,
        resource: &Arc<Resource>,
        key: &ObjectKey,
        at: Option<Revision>,
    ) -> Result<Arc<Entry>, Status> {
        match at {
            Some(at) => self.cache.reach(at).await?,
            None => self.committer.newest().await?,
        }
        let entry = self.kind(resource).get(key);
        let entry = entry.ok_or_else(|| Status::not_found(&resource.group_resource(), &key.name))?;
        self.serve(resource, entry).await
    }

    /// One page of the objects of a kind, in one namespace or (with `None`) everywhere, from one state.
    pub async fn list(
        &self,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, Status> {
        if !resource.verbs.contains(&Verb::List) {
            return Err(Status::method_not_allowed(&resource.group_resource(), "list"));
        }
        let selection = Selection::new(resource, namespace, options)?;
        let from = options.continue_token.as_deref().map(Continue::decode).transpose()?;
        let (snapshot, revision) = self.state(resource, options, from.as_ref()).await?;
        let after = from.map(|from| from.after);
        self.page(resource, namespace, &snapshot, revision, &selection, after, options.limit).await
    }

    /// The state a list reads, and the revision it is announced at.
    async fn state(
        &self,
        resource: &Resource,
        options: &ListOptions,
        from: Option<&Continue>,
    ) -> Result<(Arc<Snapshot>, Revision), Status> {
        let kind = self.kind(resource);
        let exact = match (from, options.at) {
            (Some(Continue { revision: Some(revision), .. }), _) => Some(*revision),
            (Some(Continue { revision: None, .. }), _) | (None, At::Any) => None,
            (None, At::Newest) => {
                self.committer.newest().await?;
                None
            }
            (None, At::NotOlderThan(revision)) => {
                self.cache.reach(revision).await?;
                None
            }
            (None, At::Exact(revision)) => Some(revision),
        };
        let Some(revision) = exact else {
            // Read before the snapshot: every change up to here is in it.
            let head = self.cache.head();
            let snapshot = kind.snapshot();
            let revision = head.max(snapshot.revision);
            return Ok((snapshot, revision));
        };
        self.cache.reach(revision).await?;
        match (kind.snapshot_at(revision), from) {
            (Some(snapshot), _) => Ok((snapshot, revision)),
            (None, Some(from)) => Err(page::expired(from.after.clone())),
            (None, None) => Err(Status::expired(format!(
                "The resourceVersion for the provided list is too old: {revision}"
            ))),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one call site; a struct would only rename the list")]
    async fn page(
        &self,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        snapshot: &Snapshot,
        revision: Revision,
        selection: &Selection,
        after: Option<ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Page, Status> {
        let mut left = snapshot.valued(selection.fields(), namespace, after.as_ref()).peekable();
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let mut last = None;
        let kind = self.kind(resource);
        let (counts, mut looked_at) = (&kind.counts, 0);
        while let Some(entry) = left.next_if(|_| limit.is_none_or(|limit| entries.len() < limit)) {
            last = Some(&entry.header.key);
            looked_at += 1;
            if selection.matches(entry) {
                entries.push(entry.clone());
            }
        }
        let more =
            left.peek().is_some() && (!selection.has_selectors() || left.any(|e| selection.matches(e)));
        let token = last
            .filter(|_| more)
            .map(|last| Continue { revision: Some(revision), after: last.clone() }.encode());
        let remaining = match last.filter(|_| more && !selection.has_selectors()) {
            Some(last) => u64::try_from(snapshot.range(namespace, Some(last)).count()).ok(),
            None => None,
        };
        let mut entries = self.serve_all(resource, entries).await?;
        entries.retain(|entry| selection.shows(resource, entry));
        counts.lists.fetch_add(1, Relaxed);
        counts.fetched.fetch_add(looked_at, Relaxed);
        counts.returned.fetch_add(entries.len() as u64, Relaxed);
        Ok(Page { entries, revision, continue_token: token, remaining })
    }
}
