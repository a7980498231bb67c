//! A storage: its shards and the sizes of its stores.

use kube::ResourceExt;
use serde_json::Value;

use crate::{
    children::amount,
    types::{BuildbarnStorage, Geometry, Medium, ReshardingStrategy, Shard, StoreSettings},
    validate,
    verdict::Wrong,
};

/// Bytes of one record of the key-location map (`hashing_key_location_map.go`).
const RECORD_BYTES: i64 = 66;
/// Slots for each expected object: below 2 puts fail, above 10 memory is wasted.
const SLOTS_PER_OBJECT: i64 = 3;
/// Blocks are whole pages of the device.
const PAGE_BYTES: i64 = 4096;
/// Of a volume, in percent; files are sparse, and a full volume shows as I/O errors much later.
const USABLE_PERCENT: i64 = 95;
/// Most pods of a storage: each holder keeps a connection to every one.
const REPLICAS_MAX: i32 = 256;
/// Blocks that can be told apart.
const BLOCKS_MAX: i32 = 100;

/// The stores there are, with their default volume in GiB and their expected objects in KiB.
const STORES: [(&str, i64, i64); 4] = [("cas", 33, 16), ("ac", 1, 1), ("iscc", 1, 1), ("fsac", 1, 1)];

/// A storage whose spec can be carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Vault {
    /// The map that is wanted.
    pub(crate) shards: Vec<Shard>,
    pub(crate) stores: Vec<StorePlan>,
    pub(crate) ephemeral: bool,
    pub(crate) drop_data: bool,
    pub(crate) window_seconds: i64,
    pub(crate) maximum_message_bytes: i64,
}

/// One store of every pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StorePlan {
    pub(crate) name: &'static str,
    /// Requested of the volume.
    pub(crate) volume_bytes: i64,
    /// Its claim template as the user gave it.
    pub(crate) template: Option<Value>,
    pub(crate) geometry: Geometry,
    pub(crate) hierarchical: bool,
}

/// Checks a storage.
pub(crate) fn vault(storage: &BuildbarnStorage, wrong: &mut Wrong) -> Vault {
    let spec = &storage.spec;
    validate::common(&storage.name_any(), &spec.common, wrong);
    let resharding = spec.resharding.unwrap_or_default();
    let drop_data = resharding.strategy.unwrap_or_default() == ReshardingStrategy::Drop;
    if drop_data && spec.allow_data_loss != Some(true) {
        wrong.add(
            "spec.resharding.strategy",
            "Drop loses data: set spec.allowDataLoss to true as well, or use ReadFallback",
        );
    }
    let tree = spec.maximum_total_tree_size_bytes;
    wrong.range("spec.maximumTotalTreeSizeBytes", tree, 64 << 20, 1, i64::MAX);
    Vault {
        shards: shards(storage, wrong),
        stores: stores(storage, wrong),
        ephemeral: spec.medium.unwrap_or_default() == Medium::Ephemeral,
        drop_data,
        window_seconds: wrong.range(
            "spec.resharding.windowSeconds",
            resharding.window_seconds,
            604_800,
            0,
            366 * 86_400,
        ),
        maximum_message_bytes: wrong.range(
            "spec.maximumMessageSizeBytes",
            spec.maximum_message_size_bytes,
            2 << 20,
            1,
            1 << 30,
        ),
    }
}

fn shards(storage: &BuildbarnStorage, wrong: &mut Wrong) -> Vec<Shard> {
    let spec = &storage.spec;
    let replicas = wrong.range("spec.replicas", spec.replicas, 2, 0, REPLICAS_MAX);
    let mirrored = spec.mirroring.unwrap_or_default().enabled;
    let given = spec.shards.clone().unwrap_or_default();
    if mirrored && replicas % 2 != 0 {
        wrong.add(
            "spec.replicas",
            format!("must be even, since every mirrored shard is two pods; is {replicas}"),
        );
    }
    let count = if mirrored { replicas / 2 } else { replicas };
    let fits = |list: usize| usize::try_from(count).is_ok_and(|count| list == 0 || list == count);
    if !fits(given.keys.len()) {
        wrong.add(
            "spec.shards.keys",
            format!("{} keys for {count} shards: give one for each", given.keys.len()),
        );
    }
    if !fits(given.weights.len()) {
        wrong.add(
            "spec.shards.weights",
            format!("{} weights for {count} shards: give one for each", given.weights.len()),
        );
    }
    for (at, weight) in given.weights.iter().enumerate().filter(|(_, weight)| **weight == 0) {
        wrong.add(&format!("spec.shards.weights.{at}"), format!("must be greater than 0, is {weight}"));
    }
    for (at, key) in given.keys.iter().enumerate() {
        if key.is_empty() || given.keys.iter().take(at).any(|earlier| earlier == key) {
            wrong.add(&format!("spec.shards.keys.{at}"), format!("{key:?} must be unique and not empty"));
        }
    }
    (0..count)
        .zip(0_usize..)
        .map(|(number, at)| Shard {
            key: given.keys.get(at).cloned().unwrap_or_else(|| number.to_string()),
            weight: given.weights.get(at).copied().unwrap_or(1),
            pods: if mirrored { vec![number * 2, number * 2 + 1] } else { vec![number] },
        })
        .collect()
}

fn stores(storage: &BuildbarnStorage, wrong: &mut Wrong) -> Vec<StorePlan> {
    let spec = &storage.spec;
    let templates = &spec.volume_claim_templates;
    for (at, template) in templates.iter().enumerate() {
        let name = template_name(template);
        if !STORES.iter().any(|(store, _, _)| Some(*store) == name) {
            wrong.add(
                &format!("spec.volumeClaimTemplates.{at}.metadata.name"),
                "must be that of a store: cas, ac, iscc or fsac",
            );
        }
    }
    let all = [&spec.cas, &spec.ac, &spec.iscc, &spec.fsac];
    let mut plans = Vec::new();
    for ((name, gigabytes, kilobytes), settings) in STORES.into_iter().zip(all) {
        let template = templates.iter().find(|template| template_name(template) == Some(name));
        let settings = settings.clone().unwrap_or_default();
        let always = ["cas", "ac"].contains(&name);
        if always && settings.enabled == Some(false) {
            wrong.add(&format!("spec.{name}.enabled"), "every storage has one, remove the field");
        }
        if !always && !settings.enabled.unwrap_or(template.is_some()) {
            continue;
        }
        if template.is_some() && settings.volume_size.is_some() {
            wrong.add(
                &format!("spec.{name}.volumeSize"),
                "is given by spec.volumeClaimTemplates: remove one of the two",
            );
        }
        let size =
            template.and_then(|t| t.pointer("/spec/resources/requests/storage")).and_then(Value::as_str);
        if template.is_some() && size.is_none() {
            wrong.add("spec.volumeClaimTemplates", format!("{name} has no spec.resources.requests.storage"));
        }
        let field = format!("spec.{name}.volumeSize");
        let volume_bytes = wrong.bytes(&field, size.or(settings.volume_size.as_deref()), gigabytes << 30);
        plans.push(StorePlan {
            name,
            volume_bytes,
            template: template.cloned(),
            geometry: geometry(name, &settings, volume_bytes, kilobytes << 10, wrong),
            hierarchical: hierarchical(name, &settings, wrong),
        });
    }
    plans
}

fn hierarchical(name: &str, settings: &StoreSettings, wrong: &mut Wrong) -> bool {
    let wanted = settings.hierarchical_instance_names.unwrap_or(false);
    if wanted && name != "cas" {
        wrong.add(&format!("spec.{name}.hierarchicalInstanceNames"), "is for the CAS only");
    }
    wanted
}

fn template_name(template: &Value) -> Option<&str> {
    template.pointer("/metadata/name").and_then(Value::as_str)
}

fn geometry(name: &str, given: &StoreSettings, volume: i64, object: i64, wrong: &mut Wrong) -> Geometry {
    let field = |of: &str| format!("spec.{name}.{of}");
    let most = BLOCKS_MAX;
    let old_blocks = wrong.range(&field("oldBlocks"), given.old_blocks, 8, 0, most);
    let current_blocks = wrong.range(&field("currentBlocks"), given.current_blocks, 24, 1, most);
    let new_blocks =
        wrong.range(&field("newBlocks"), given.new_blocks, if name == "cas" { 3 } else { 1 }, 1, most);
    let spare_blocks = wrong.range(&field("spareBlocks"), given.spare_blocks, 3, 1, most);
    if name != "cas" && new_blocks != 1 {
        wrong.add(&field("newBlocks"), format!("must be 1 for all stores but the CAS, is {new_blocks}"));
    }
    let blocks = old_blocks + current_blocks + new_blocks + spare_blocks;
    if blocks > BLOCKS_MAX {
        wrong.add(
            &format!("spec.{name}"),
            format!(
                "oldBlocks, currentBlocks, newBlocks and spareBlocks are {blocks} together, at most {BLOCKS_MAX} are allowed"
            ),
        );
    }
    let usable = volume / 100 * USABLE_PERCENT;
    let object = wrong.bytes(
        &field("expectedAverageObjectSize"),
        given.expected_average_object_size.as_deref(),
        object,
    );
    // Of every object's bytes, its records' share.
    let records = RECORD_BYTES * SLOTS_PER_OBJECT;
    let share = i128::from(usable) * i128::from(records) / (i128::from(object) + i128::from(records));
    let map = wrong.bytes(
        &field("keyLocationMapSize"),
        given.key_location_map_size.as_deref(),
        pages(i64::try_from(share).unwrap_or(i64::MAX)).max(PAGE_BYTES),
    );
    let unit = i64::from(blocks.max(1)) * PAGE_BYTES;
    let room = (usable - map).max(0) / unit * unit;
    let size = wrong.bytes(&field("size"), given.size.as_deref(), room);
    if size < unit {
        let least = format!("{size} bytes are too few for {blocks} blocks of at least {PAGE_BYTES} bytes");
        wrong.add(&field(if given.size.is_some() { "size" } else { "volumeSize" }), least);
    } else if size.saturating_add(map) > usable {
        wrong.add(
            &field("size"),
            format!(
                "{} of blocks and {} of the key-location map do not fit a volume of {}, of which {USABLE_PERCENT}% can be \
                 used: lower it to {} or less, or raise {}",
                amount(size),
                amount(map),
                amount(volume),
                amount(room),
                field("volumeSize"),
            ),
        );
    }
    Geometry {
        key_location_map_bytes: map,
        blocks_bytes: size / unit * unit,
        old_blocks,
        current_blocks,
        new_blocks,
        spare_blocks,
    }
}

fn pages(bytes: i64) -> i64 {
    bytes / PAGE_BYTES * PAGE_BYTES
}
