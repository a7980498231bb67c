//! ImageLocality: prefers nodes that have the pod's images, scaled by how many nodes have them, so
//! that one node does not draw everything.

use crate::{
    plugins::{Cycle, Normalize, Reach, SCORE_MAX, Score},
    snapshot::Slot,
};

pub(crate) const SCORE: Score =
    Score { name: "ImageLocality", weight: 1, reach: Reach::Nodes, normalize: Normalize::No, score };

const MEGABYTE: i64 = 1024 * 1024;
/// Less than this on the node is worth nothing.
const BYTES_MIN: i64 = 23 * MEGABYTE;
/// More than this for each container is worth no more.
const BYTES_MAX_EACH: i64 = 1000 * MEGABYTE;

fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    let (images, nodes) = (&cycle.shape.images, cycle.snapshot.nodes());
    let Some(node) = cycle.snapshot.node(slot).filter(|n| nodes > 0 && !n.images.is_empty()) else {
        return 0;
    };
    let present = images.iter().filter_map(|image| {
        let spread = i128::try_from(cycle.snapshot.nodes_with_image(image)).ok()?;
        let size = i128::from(*node.images.get(image)?);
        i64::try_from(size * spread / i128::try_from(nodes).ok()?).ok()
    });
    let most = BYTES_MAX_EACH.saturating_mul(i64::try_from(images.len()).unwrap_or(1).max(1));
    let bytes = present.fold(0, i64::saturating_add).clamp(BYTES_MIN, most);
    SCORE_MAX * (bytes - BYTES_MIN) / (most - BYTES_MIN)
}
