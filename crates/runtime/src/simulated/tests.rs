use super::*;
use crate::{ContainerSpec, ContainerState, PodSandboxSpec, action::Map, conformance};

/// Shows tokio's time, which these tests pause: both advance together.
struct Virtual(tokio::time::Instant);

impl Clock for Virtual {
    fn now(&self) -> meta::Timestamp {
        meta::Timestamp::UNIX_EPOCH + self.0.elapsed()
    }
}

fn simulated(range: &str) -> Simulated {
    let settings = Settings { pod_cidr: Some(range.into()), ..Settings::default() };
    Simulated::new(Arc::new(Virtual(tokio::time::Instant::now())), settings).unwrap()
}

fn pod(uid: &str, annotations: &[(&str, &str)]) -> PodSandboxSpec {
    let annotations: Map =
        annotations.iter().map(|(k, v)| (format!("simulated.keelson.dev/{k}"), (*v).to_owned())).collect();
    PodSandboxSpec {
        uid: uid.into(),
        namespace: "ns".into(),
        name: uid.into(),
        annotations,
        ..PodSandboxSpec::default()
    }
}

async fn run(runtime: &Simulated, pod: PodSandboxSpec) -> String {
    let sandbox = runtime.act(&Action::CreateSandbox(Box::new(pod.clone()))).await.unwrap().id().to_owned();
    let spec = ContainerSpec { name: "main".into(), image: "x".into(), ..ContainerSpec::default() };
    let create = Action::CreateContainer { sandbox, pod: Box::new(pod), spec: Box::new(spec) };
    let id = runtime.act(&create).await.unwrap().id().to_owned();
    runtime.act(&Action::StartContainer { id: id.clone() }).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn conformance() {
    let runtime = simulated("10.1.0.0/24");
    let environment = conformance::Environment {
        image: "docker.io/library/busybox:1.36".into(),
        missing_image: "missing.invalid/x:1".into(),
        log_dir: "/nonexistent".into(),
        cgroup_parent: String::new(),
        real: false,
        runtime: Arc::new(runtime),
    };
    conformance::run(&environment).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_container_ends_by_itself_and_wakes_the_node() {
    let runtime = simulated("10.1.0.0/24");
    let mut events = runtime.events();
    run(&runtime, pod("a", &[("exit-after", "10s"), ("oom", "true")])).await;
    let mut woken = 0;
    let state = loop {
        assert_eq!(events.next().await, Some(Event::Pod { uid: "a".into() }));
        woken += 1;
        let seen = runtime.observe_pod("a").await.unwrap().unwrap();
        match seen.container("main").map(|container| container.state.clone()) {
            Some(ContainerState::Exited { .. }) => break seen.container("main").unwrap().state.clone(),
            _ => assert!(woken < 10),
        }
    };
    let ContainerState::Exited { started_at, finished_at, exit_code, reason, .. } = state else { panic!() };
    assert_eq!((exit_code, reason.as_str()), (137, "OOMKilled"));
    assert_eq!(finished_at.duration_since(started_at.unwrap()).as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn probes_follow_the_annotations() {
    let runtime = simulated("10.1.0.0/24");
    let id = run(&runtime, pod("a", &[("readiness", "5s"), ("liveness", "5s"), ("startup", "false")])).await;
    let ask = async |probe| runtime.simulated_probe(&id, probe).await.unwrap().is_ok();
    assert_eq!((ask(Probe::Readiness).await, ask(Probe::Liveness).await), (false, true));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!((ask(Probe::Readiness).await, ask(Probe::Liveness).await), (true, false));
    assert!(!ask(Probe::Startup).await);
}

#[tokio::test(start_paused = true)]
async fn delays_grace_and_start_errors_are_honoured() {
    let runtime = simulated("10.1.0.0/24");
    let before = runtime.0.clock.now();
    let id = run(&runtime, pod("a", &[("start-delay", "3s"), ("stop-delay", "1h")])).await;
    assert_eq!(runtime.0.clock.now().duration_since(before).as_secs(), 3);
    runtime.act(&Action::StopContainer { id, grace: Duration::from_secs(30) }).await.unwrap();
    assert!((33..=34).contains(&runtime.0.clock.now().duration_since(before).as_secs()));
    assert_eq!(
        runtime.observe_pod("a").await.unwrap().unwrap().container("main").unwrap().exit_code(),
        Some(137)
    );

    let broken = pod("b", &[("start-error", "no such file")]);
    let sandbox =
        runtime.act(&Action::CreateSandbox(Box::new(broken.clone()))).await.unwrap().id().to_owned();
    let spec = Box::new(ContainerSpec { name: "main".into(), image: "x".into(), ..ContainerSpec::default() });
    let create = Action::CreateContainer { sandbox, pod: Box::new(broken), spec };
    let id = runtime.act(&create).await.unwrap().id().to_owned();
    let error = runtime.act(&Action::StartContainer { id }).await.unwrap_err();
    assert_eq!((error.reason(), error.message.as_str()), ("RunContainerError", "no such file"));
}

#[tokio::test(start_paused = true)]
async fn image_names_choose_the_failure() {
    let runtime = simulated("10.1.0.0/24");
    for (image, policy, expected) in [
        ("missing.invalid/x", PullPolicy::Always, ErrorKind::ImageNotFound),
        ("missing.invalid/x", PullPolicy::Never, ErrorKind::ImageNeverPull),
        ("unauthorized.invalid/x", PullPolicy::IfNotPresent, ErrorKind::Unauthorized),
        ("unreachable.invalid/x", PullPolicy::IfNotPresent, ErrorKind::RegistryUnavailable),
        ("UPPER", PullPolicy::IfNotPresent, ErrorKind::InvalidImageName),
    ] {
        let pull = Action::PullImage { image: image.into(), policy, credentials: None };
        assert_eq!(runtime.act(&pull).await.unwrap_err().kind, expected, "{image}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_range_is_needed_bounded_and_given_back() {
    let runtime =
        Simulated::new(Arc::new(Virtual(tokio::time::Instant::now())), Settings::default()).unwrap();
    assert!(!runtime.status().await.unwrap().network.is_ready());
    let create = |uid: &str| Action::CreateSandbox(Box::new(pod(uid, &[])));
    assert!(runtime.act(&create("a")).await.unwrap_err().message.contains("podCIDR"));
    runtime.set_pod_cidr("10.1.0.0/30").await.unwrap();
    let id = runtime.act(&create("a")).await.unwrap().id().to_owned();
    assert!(runtime.act(&create("b")).await.unwrap_err().message.contains("in use"));
    runtime.act(&Action::StopSandbox { id }).await.unwrap();
    runtime.act(&create("b")).await.unwrap();
    assert!(
        Simulated::new(
            Arc::new(Virtual(tokio::time::Instant::now())),
            Settings { pod_cidr: Some("x".into()), ..Settings::default() }
        )
        .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_told_that_it_lost_events() {
    let runtime = simulated("10.0.0.0/16");
    let mut events = runtime.events();
    for n in 0..2000 {
        run(&runtime, pod(&format!("p{n:04}"), &[])).await;
    }
    assert_eq!(events.next().await, Some(Event::Lost));
    assert_eq!(runtime.observe().await.unwrap().len(), 2000);
    assert_eq!(runtime.stats().await.unwrap().containers.len(), 2000);
}
