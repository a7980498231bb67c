use super::*;
use crate::{
    profile::{DefaultSpread, Strategy},
    resources::Measure,
};

fn read(more: &str) -> Result<Configuration, ConfigError> {
    let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    Configuration::read(&format!("{head}{more}"), 1)
}

fn refused(more: &str, expected: &str) {
    let text = read(more).map(|_| String::new()).unwrap_or_else(|error| error.to_string());
    assert!(text.contains(expected), "{text:?} lacks {expected:?}");
}

#[test]
fn nothing_said_is_upstreams_default() {
    let read = read("").unwrap();
    let [profile] = read.profiles.as_slice() else { panic!("{read:?}") };
    let default = Profile::new(1);
    assert_eq!((&*profile.name, &profile.args), ("default-scheduler", &default.args));
    assert_eq!(format!("{:?}", profile.scores), format!("{:?}", default.scores));
    assert_eq!(
        format!("{:?}", profile.scores),
        "[TaintToleration*3, NodeAffinity*2, PodTopologySpread*2, InterPodAffinity*2, NodeResourcesFit*1, \
         NodeResourcesBalancedAllocation*1, ImageLocality*1]"
    );
    assert_eq!((read.backoff.first.as_secs(), read.backoff.longest.as_secs()), (1, 10));
}

#[test]
fn profiles_differ() {
    let read = read(
        r#"
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
percentageOfNodesToScore: 50
leaderElection: {leaderElect: false}
profiles:
- schedulerName: plain
- schedulerName: packing
  plugins:
    score:
      disabled: [{name: ImageLocality}, {name: PodTopologySpread}]
      enabled: [{name: NodeResourcesFit, weight: 9}]
    multiPoint:
      disabled: [{name: DefaultPreemption}, {name: NodeVolumeLimits}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      ignoredResourceGroups: [example.com]
      scoringStrategy:
        type: RequestedToCapacityRatio
        resources: [{name: cpu, weight: 3}, {name: example.com/gpu}]
        requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]}
  - name: PodTopologySpread
    args: {defaultConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]}
  - name: InterPodAffinity
    args: {hardPodAffinityWeight: 5}
- schedulerName: first-fit
  plugins:
    multiPoint: {disabled: [{name: "*"}], enabled: [{name: NodeResourcesFit, weight: 1}, {name: PrioritySort}]}
"#,
    )
    .unwrap();
    assert!(!read.leader_elect);
    assert_eq!((read.backoff.first.as_secs(), read.backoff.longest.as_secs()), (2, 20));
    let [plain, packing, first_fit] = read.profiles.as_slice() else { panic!("{read:?}") };
    assert_eq!((&*plain.name, plain.scores.len(), plain.preemption.is_some()), ("plain", 7, true));
    assert_eq!(packing.preemption, None);
    assert!(packing.filters.iter().all(|f| f.name != "NodeVolumeLimits"));
    assert_eq!(
        format!("{:?}", packing.scores),
        "[TaintToleration*3, NodeAffinity*2, InterPodAffinity*2, NodeResourcesBalancedAllocation*1, \
         NodeResourcesFit*9]"
    );
    let args = &packing.args;
    assert_eq!(args.fit.strategy, Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]));
    assert_eq!(args.fit.resources, [(Measure::Cpu, 3), (Measure::Extended("example.com/gpu".into()), 1)]);
    assert_eq!((args.hard_pod_affinity_weight, args.ignored_resource_groups.len()), (5, 1));
    assert!(matches!(&args.default_spread, DefaultSpread::List(list) if list.len() == 1));
    assert_eq!(
        format!("{:?} {:?}", first_fit.filters, first_fit.scores),
        "[NodeResourcesFit] [NodeResourcesFit*1]"
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_its_path() {
    let head = "kind: KubeSchedulerConfiguration\n";
    let old = Configuration::read(&format!("apiVersion: kubescheduler.config.k8s.io/v1beta3\n{head}"), 1);
    assert!(old.unwrap_err().to_string().contains("want kubescheduler.config.k8s.io/v1"));
    refused("extenders: []\n", "extenders: is not supported");
    refused("parallelism: 4\n", "parallelism: is not supported");
    refused("profile: []\n", "unknown field `profile`");
    refused("percentageOfNodesToScore: 101\n", "want 0 to 100");
    refused("podInitialBackoffSeconds: 11\n", "podMaxBackoffSeconds: is less than");
    refused("leaderElection: {resourceLock: leases}\n", "unknown field `resourceLock`");
    refused(
        "profiles: [{schedulerName: a}, {schedulerName: a}]\n",
        "profiles[1].schedulerName: another profile",
    );
    let plugins = |text: &str| format!("profiles: [{{plugins: {text}}}]\n");
    refused(
        &plugins("{score: {enabled: [{name: NodeResourcesMost}]}}"),
        "there is no plugin \"NodeResourcesMost\"",
    );
    refused(
        &plugins("{score: {enabled: [{name: NodePorts}]}}"),
        "profiles[0].plugins.score.enabled: there is no",
    );
    refused(
        &plugins("{score: {enabled: [{name: ImageLocality, weight: -1}]}}"),
        "weight of ImageLocality is -1",
    );
    refused(
        &plugins("{preFilter: {disabled: [{name: NodePorts}]}}"),
        "plugins.preFilter: plugins are switched at",
    );
    refused(
        &plugins("{multiPoint: {disabled: [{name: PrioritySort}]}}"),
        "PrioritySort cannot be turned off",
    );
    let args =
        |name: &str, text: &str| format!("profiles: [{{pluginConfig: [{{name: {name}, args: {text}}}]}}]\n");
    refused(&args("Mine", "{}"), "plugin \"Mine\" takes no arguments here");
    refused(
        &args("InterPodAffinity", "{hardPodAffinityWeight: 101}"),
        "hardPodAffinityWeight: is 101; want 0 to 100",
    );
    refused(&args("InterPodAffinity", "{soft: 1}"), "unknown field `soft`");
    refused(
        &args("NodeResourcesFit", "{scoringStrategy: {type: Best}}"),
        "scoringStrategy.type: is \"Best\"",
    );
    refused(
        &args("NodeAffinity", "{addedAffinity: {preferredDuringSchedulingIgnoredDuringExecutio: []}}"),
        "addedAffinity.preferredDuringSchedulingIgnoredDuringExecutio: is no field",
    );
    refused(
        &args(
            "PodTopologySpread",
            "{defaultConstraints: [{maxSkew: 0, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]}",
        ),
        "defaultConstraints[0].maxSkew: is 0",
    );
    refused(
        &args("PodTopologySpread", "{defaultingType: System, defaultConstraints: [{}]}"),
        "must be empty",
    );
    refused(&args("VolumeBinding", "{shape: []}"), "unknown field `shape`");
    refused(
        &args("DefaultPreemption", "{minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}"),
        "both 0",
    );
}
