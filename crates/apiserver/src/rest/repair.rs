//! The writes of `crate::repair`.

use super::*;

impl Rest {
    /// Waits until the cache shows everything that was committed before this call, by whomever.
    pub(crate) async fn newest(&self) -> Result<(), Status> {
        self.committer.newest().await
    }

    /// Gives back the claim that stands at `found`, and claims it anew where `wanted`. `false` when somebody else has
    /// written meanwhile.
    pub(crate) async fn mend(
        &self,
        kind: &Resource,
        claim: &Object,
        found: Option<Revision>,
        wanted: bool,
    ) -> Result<bool, Status> {
        let commit = |expect, put| Commit { kind: kind.stored_as.clone(), key: claim.key(), expect, put };
        if let Some(revision) = found {
            match self.commit(commit(Expect::At(revision), None)).await? {
                Committed::Done(_) | Committed::Gone(_) => {}
                Committed::Clash => return Ok(false),
            }
        }
        if !wanted {
            return Ok(true);
        }
        let mut object = claim.clone();
        self.begin(kind, &mut object);
        let put = Some(self.put(kind, object).await?);
        Ok(!matches!(self.commit(commit(Expect::Absent, put)).await?, Committed::Clash))
    }
}
