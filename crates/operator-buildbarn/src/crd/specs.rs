//! The specs of the five kinds.

use serde_json::{Value, json};

use super::fields::{
    choice, enabled, flag, foreign, ingress, int, list, long, name, number, object, platform, quantity,
    reference, ruled, service, service_type, spec, text, texts,
};

const MESSAGE_SIZE: &str = "Largest gRPC message; 2097152 when absent.";
const STORAGE_REF: &str = "The storage; the only BuildbarnStorage of the namespace when absent.";

pub(super) fn scheduler() -> Value {
    let execution = object(
        "How long actions may take.",
        &[],
        json!({
            "defaultTimeoutSeconds": long("Without a timeout of its own; 1800 when absent.", 1),
            "maximumTimeoutSeconds": long("At most; 7200 when absent.", 1),
        }),
    );
    let execution = ruled(
        execution,
        &[(
            "!has(self.defaultTimeoutSeconds) || !has(self.maximumTimeoutSeconds) || self.defaultTimeoutSeconds <= self.maximumTimeoutSeconds",
            "defaultTimeoutSeconds must not be greater than maximumTimeoutSeconds",
        )],
    );
    let queue = object(
        "A queue.",
        &["platform"],
        json!({
            "instanceNamePrefix": text("Instance names that it serves."),
            "platform": platform("The platform."),
            "sizeClasses": list("Its size classes, ascending; [0] when absent.", long("A size class.", 0)),
        }),
    );
    spec(
        json!({
            "replicas": int("0 or 1: the queue is in the memory of one process.", 0, 1),
            "serviceType": service_type("ClusterIP"),
            "service": service(),
            "storageRef": reference(STORAGE_REF),
            "browserRef": reference("The browser that links lead to; the only BuildbarnBrowser of the namespace when absent."),
            "browserUrl": text("Where links lead, instead of browserRef."),
            "maximumMessageSizeBytes": long(MESSAGE_SIZE, 1),
            "execution": execution,
            "platformQueueWithNoWorkersTimeoutSeconds": long("How long a queue without workers is kept; 900 when absent.", 0),
            "fairness": list("What is treated fairly, the outermost first.",
                choice("What.", &["ToolInvocationId", "CorrelatedInvocationsId", "AuthenticationMetadata"])),
            "sizeClassAnalysis": object("Learns which size class an action needs. Needs a storage with an ISCC.", &[], json!({
                "historySize": int("Outcomes kept of an action; 32 when absent.", 1, 10_000),
                "failureCacheDurationSeconds": long("How long a failure on a smaller class is remembered; 86400 when absent.", 0),
                "pageRank": object("Chooses classes by PageRank.", &[], json!({
                    "exponent": number("How much slower a smaller class may be; 0.2 when absent."),
                    "multiplier": number("Timeout on a smaller class; 1.5 when absent."),
                    "minimumTimeoutSeconds": long("Least timeout; 10 when absent.", 0),
                    "convergence": number("0.002 when absent."),
                })),
            })),
            "predeclaredQueues": list("Queues that exist without workers, besides those of pools that need one.", queue),
            "ingress": ingress("Ingress of the web interface; none when absent."),
            "auth": object("Who may do what, as Buildbarn's own policies.", &[], json!({
                "client": foreign("Authentication of frontends."),
                "worker": foreign("Authentication of workers."),
                "admin": foreign("Authentication of the web interface."),
                "execute": foreign("Who may execute."),
                "synchronize": foreign("Who may be a worker."),
                "modifyDrains": foreign("Who may drain workers."),
                "killOperations": foreign("Who may kill operations."),
            })),
            "restartPolicy": choice("When a change may restart the scheduler; WhenIdle when absent.", &["Immediate", "WhenIdle"]),
            "restartMaxWaitSeconds": long("The longest that WhenIdle waits; 600 when absent.", 0),
            "buildQueueState": object("How the operator reaches the queue.", &["address"], json!({
                "address": name("HOST:PORT of BuildQueueState, for an operator that cannot reach the Service."),
            })),
            "networkPolicy": enabled("Only the farm's own pods and the operator's reach the ports that are not for clients."),
        }),
        &[],
    )
}

pub(super) fn worker() -> Value {
    let runner = object(
        "A runner.",
        &["name"],
        json!({
            "name": name("Name of its container."),
            "image": text("Image that its actions run in."),
            "concurrency": int("Actions at a time.", 1, 1024),
            "platform": platform("Its platform; the pool's when absent."),
            "sizeClass": long("Its size class; the pool's when absent.", 0),
            "resources": foreign("Resources."),
            "securityContext": foreign("Security context, instead of the operator's."),
            "env": texts("Environment of its actions."),
            "runAsUser": long("User of its actions; 65534 when absent.", 0),
        }),
    );
    let autoscaling = object(
        "Pods follow the queue, instead of replicas.",
        &["min", "max"],
        json!({
            "min": int("Fewest pods; 0 scales to zero.", 0, 10_000),
            "max": int("Most pods.", 1, 10_000),
            "targetQueuedPerSlot": {"type": "number", "minimum": 0,
                "description": "Queued actions for each slot that are not worth another pod; 0 when absent."},
            "scaleUpStabilizationSeconds": long("How long the queue has to ask for more; 0 when absent.", 0),
            "scaleDownStabilizationSeconds": long("How long it has to ask for less; 300 when absent.", 0),
        }),
    );
    let cost = object(
        "A cost.",
        &["currency", "cost"],
        json!({"currency": text("ISO 4217."), "cost": number("Amount.")}),
    );
    spec(
        json!({
            "replicas": int("Pods; 8 when absent and not autoscaled.", 0, 10_000),
            "runnerImage": text("Image that actions run in."),
            "runnerInstallerImage": text("Image that brings bb_runner."),
            "runnerResources": foreign("Resources of the runner: of the actions."),
            "instance": {"type": "string", "maxLength": 63, "description": "Label of the pods and part of file names; ubuntu22-04 when absent."},
            "schedulerRef": reference("Whose queue is served; the only BuildbarnScheduler of the namespace when absent."),
            "storageRef": reference(STORAGE_REF),
            "instanceNamePrefix": text("Instance names that are served; all when absent."),
            "platform": platform("The platform of actions that are run."),
            "sizeClass": long("Size class; 0 when there is only one.", 0),
            "concurrency": int("Actions at a time and pod; 8 when absent.", 1, 1024),
            "runners": list("Several runners in a pod.", runner),
            "buildDirectory": object("The cache of inputs.", &[], json!({
                "cacheFiles": long("Files; 10000 when absent.", 1),
                "cacheSize": quantity("1Gi when absent."),
            })),
            "volume": foreign("A volume source instead of an emptyDir, for builds and their inputs."),
            "inputDownloadConcurrency": int("Inputs fetched at a time; 10 when absent.", 1, 10_000),
            "outputUploadConcurrency": int("Outputs stored at a time; 11 when absent.", 1, 10_000),
            "directoryCache": object("The cache of directories.", &[], json!({
                "maximumCount": long("1000 when absent.", 1), "maximumSizeBytes": long("1024000 when absent.", 1),
            })),
            "prefetching": flag("Fetches what earlier runs of an action read. Needs a storage with an FSAC."),
            "costsPerSecond": {"type": "object", "description": "What a second of a runner costs.", "additionalProperties": cost},
            "drain": object("How workers end.", &[], json!({
                "mode": choice("How the runner outlives its worker; Sidecar when absent.", &["Sidecar", "StopGracefully"]),
                "timeoutSeconds": long("The longest that an action is waited for; the scheduler's maximum timeout and 300 when absent.", 0),
            })),
            "autoscaling": ruled(autoscaling, &[("self.min <= self.max", "max must not be less than min")]),
        }),
        &[(
            "!(has(self.replicas) && has(self.autoscaling))",
            "replicas is decided by autoscaling: remove one of the two",
        )],
    )
}

fn store(description: &str) -> Value {
    object(
        description,
        &[],
        json!({
            "enabled": flag("Whether there is one; CAS and AC always."),
            "volumeSize": quantity("Size of the volume; 33Gi for the CAS, 1Gi for others."),
            "size": quantity("Size of the blocks; what the volume has room for when absent."),
            "keyLocationMapSize": quantity("Size of the key-location map; from the expected objects when absent."),
            "expectedAverageObjectSize": quantity("16Ki for the CAS, 1Ki for others."),
            "oldBlocks": int("8 when absent.", 0, 100),
            "currentBlocks": int("24 when absent.", 1, 100),
            "newBlocks": int("3 for the CAS, 1 for others.", 1, 100),
            "spareBlocks": int("3 when absent.", 1, 100),
            "hierarchicalInstanceNames": flag("Objects are visible below the instance name that they were stored under; CAS only."),
        }),
    )
}

pub(super) fn storage() -> Value {
    spec(
        json!({
            "replicas": int("Pods; 2 when absent. Each is a shard, or half of a mirrored one.", 0, 256),
            "volumeClaimTemplates": list("Volumes by name of the store, instead of the sizes below.", foreign("A claim.")),
            "shards": object("Identity and weight of the shards, in the order of the pods.", &[], json!({
                "keys": list("Keys; 0, 1, ... when absent. A key is a shard's identity and cannot be changed.", name("A key.")),
                "weights": list("Weights; 1 when absent.", long("A weight.", 1)),
            })),
            "mirroring": enabled("Every shard is a pair of pods that hold the same."),
            "cas": store("Content-addressable storage."),
            "ac": store("Action cache."),
            "iscc": store("Initial size class cache; off when absent."),
            "fsac": store("File system access cache; off when absent."),
            "medium": choice("Where data lives; PersistentVolume when absent.", &["PersistentVolume", "Ephemeral"]),
            "storageClassName": text("Class of the volumes."),
            "persistentVolumeClaimRetentionPolicy": object("What becomes of claims, as in a StatefulSet.", &[], json!({
                "whenDeleted": choice("With the object.", &["Retain", "Delete"]),
                "whenScaled": choice("With the pod.", &["Retain", "Delete"]),
            })),
            "maximumTotalTreeSizeBytes": long("Largest tree that is checked for completeness; 67108864 when absent.", 1),
            "maximumMessageSizeBytes": long(MESSAGE_SIZE, 1),
            "resharding": object("How shards come and go.", &[], json!({
                "strategy": choice("ReadFallback when absent.", &["ReadFallback", "Drop"]),
                "windowSeconds": long("How long the earlier map is still read; 604800 when absent.", 0),
            })),
            "allowDataLoss": flag("Allows changes that lose data."),
        }),
        &[(
            "!has(self.mirroring) || !has(self.mirroring.enabled) || !self.mirroring.enabled || !has(self.replicas) || self.replicas % 2 == 0",
            "replicas must be even, since every mirrored shard is two pods",
        )],
    )
}

fn store_auth(description: &str) -> Value {
    object(
        description,
        &[],
        json!({
            "get": foreign("Reading."), "put": foreign("Writing."), "findMissing": foreign("Asking what is missing; CAS only."),
        }),
    )
}

pub(super) fn frontend() -> Value {
    let route = object(
        "Who executes actions of some instance names.",
        &[],
        json!({
            "instanceNamePrefix": text("Instance names; taken off before the scheduler sees them."),
            "schedulerRef": reference("A scheduler of this namespace."),
            "address": text("Or the address of any."),
            "addInstanceNamePrefix": text("Put before the rest of the instance name."),
        }),
    );
    spec(
        json!({
            "replicas": int("Pods; 3 when absent.", 0, 1000),
            "serviceType": service_type("LoadBalancer"),
            "service": service(),
            "storageRef": reference(STORAGE_REF),
            "schedulers": list("Who executes what; the only BuildbarnScheduler, for every instance name, when absent.", route),
            "cacheOnly": flag("A cache without execution."),
            "acUploads": choice("Whether clients may store action results; Deny with execution, Allow without, when absent.", &["Deny", "Allow"]),
            "tls": object("TLS of the endpoint.", &["secretName"], json!({"secretName": name("Secret of type kubernetes.io/tls.")})),
            "auth": object("Who may do what, as Buildbarn's own policies.", &[], json!({
                "authentication": foreign("Who is who."),
                "cas": store_auth("The CAS."), "ac": store_auth("The AC."), "execute": foreign("Execution."),
            })),
            "existenceCache": object("Remembers which objects of the CAS exist.", &["size", "durationSeconds"], json!({
                "size": long("Objects.", 1),
                "durationSeconds": long("For how long; must be less than the storage keeps data.", 1),
            })),
            "keepalive": object("Keeps connections moving between frontends.", &["maxConnectionAgeSeconds"], json!({
                "maxConnectionAgeSeconds": long("Connections are closed after this long.", 1),
            })),
            "externalHost": text("Name that clients use, for the endpoint in the status."),
            "maximumMessageSizeBytes": long(MESSAGE_SIZE, 1),
        }),
        &[(
            "!has(self.cacheOnly) || !self.cacheOnly || !has(self.schedulers) || size(self.schedulers) == 0",
            "schedulers must be empty where cacheOnly is true",
        )],
    )
}

pub(super) fn browser() -> Value {
    spec(
        json!({
            "replicas": int("Pods; 3 when absent.", 0, 1000),
            "serviceType": service_type("ClusterIP"),
            "service": service(),
            "ingressHost": text("Host of an Ingress; none when absent. The short form of ingress."),
            "ingress": ingress("The Ingress."),
            "storageRef": reference(STORAGE_REF),
            "routePrefix": text("Path below which it is served."),
            "auth": object("Who may look, as Buildbarn's own policies.", &[], json!({
                "authentication": foreign("Who is who."), "authorizer": foreign("Who may."),
            })),
            "requestMetadataLinks": text("JMESPath expression that makes links of an action's metadata."),
            "bbClientdInstanceNamePrefix": text("Instance name of bb_clientd, for links to its mount."),
        }),
        &[(
            "!(has(self.ingressHost) && has(self.ingress))",
            "ingressHost is given by ingress.host: remove one of the two",
        )],
    )
}
