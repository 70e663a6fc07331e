//! What the claims of a pod say about where it may go, read off the view: [`weft_scheduler::VolumeNeeds`] knows what follows from it. Pure.

use weft_controllers::persistent_volume::{self, Brought, Claim, Class, PodVolumes, Volume};
use weft_controllers::{Key, Reads, View};
use weft_scheduler::{ClaimFacts, PodFacts, Storage, VolumeFacts, VolumeNeeds};

/// What is read for it.
pub(super) fn reads(reads: &mut Reads) {
    persistent_volume::read_users(reads);
    reads.kind::<Claim>().kind::<Volume>().kind::<Class>();
}

/// Whether a pod uses claims at all.
pub(super) fn has_claims(view: &View, key: &Key) -> bool {
    let pod = view.get::<PodVolumes>(key);
    pod.is_some_and(|row| row.body.0.is_some())
}

/// What there is for a pod.
struct Of<'a> {
    view: &'a View,
    pod: &'a Key,
}

impl Storage for Of<'_> {
    fn claim(&self, name: &str) -> Option<ClaimFacts<'_>> {
        let claim = self.view.get::<Claim>(&self.pod.sibling(name))?;
        Some(ClaimFacts {
            spec: &claim.body.spec,
            is_deleting: claim.meta.is_deleting(),
        })
    }

    fn volume(&self, name: &str) -> Option<VolumeFacts<'_>> {
        let volume = self.view.get::<Volume>(&Key::new("", name))?;
        Some(VolumeFacts {
            spec: &volume.body.spec,
            labels: &volume.meta.labels,
        })
    }

    fn waits(&self, class: &str) -> bool {
        let class = self.view.get::<Class>(&Key::new("", class));
        class.is_some_and(|class| class.body.waits)
    }
}

/// The pod with what its volumes ask of nodes.
///
/// # Errors
/// Why it can go nowhere yet, in Kubernetes' words.
pub(super) fn constrain(view: &View, key: &Key, pod: PodFacts) -> Result<PodFacts, String> {
    let uses = view.get::<PodVolumes>(key);
    let Some(uses) = uses.and_then(|row| row.body.0.as_deref()) else {
        return Ok(pod);
    };
    let claims = uses.claims.iter();
    let claims = claims.map(|(name, brought)| (name.as_str(), *brought != Brought::No));
    let volumes = VolumeNeeds::of(claims, &Of { view, pod: key })?;
    if volumes.is_empty() {
        return Ok(pod);
    }
    Ok(PodFacts {
        needs: pod.needs.with_volumes(volumes).into(),
        ..pod
    })
}
