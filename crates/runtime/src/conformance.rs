//! What every runtime must do, as cases that run against any implementation: [`run`] is the whole
//! suite. A case says what it found, so a failure reads as a sentence.
//!
//! Real runtimes are told what to do by a command in a busybox image, the simulated one by annotations;
//! every case gives both. Cases wait for events, never for time.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture};

use crate::{
    Action, ContainerSpec, ContainerState, Done, ErrorKind, Event, ObservedPod, PodSandboxSpec, PullPolicy,
    Runtime, SandboxState, Step,
    action::{Resources, SPEC_HASH},
    log::{Line, Log},
};

/// What the suite runs against.
pub struct Environment {
    /// The runtime; empty, with an address range of at least ten addresses.
    pub runtime: Arc<dyn Runtime>,
    /// A busybox image on the machine, full name.
    pub image: String,
    /// The full name of an image that cannot be had.
    pub missing_image: String,
    /// Where log directories can be made.
    pub log_dir: PathBuf,
    /// Cgroup parent for pods; empty for the runtime's default.
    pub cgroup_parent: String,
    /// Whether containers have processes: exec, logs of commands and memory limits work.
    pub real: bool,
}

/// What one case says when it fails.
pub type Verdict = Result<(), String>;

/// A case.
pub type Case = fn(&Environment) -> BoxFuture<'_, Verdict>;

/// Longest wait for one event. Generous: a shared machine may be slow, and only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The suite, in order.
pub const CASES: &[(&str, Case)] = &[
    ("is ready and has a version", |e| is_ready(e).boxed()),
    ("a sandbox lives and dies", |e| sandbox_lives(e).boxed()),
    ("a sandbox on the host's network has no address", |e| host_network(e).boxed()),
    ("an attempt exists once", |e| attempts_are_unique(e).boxed()),
    ("a container runs, stops and runs again", |e| container_runs(e).boxed()),
    ("exit code and log are kept", |e| exit_code_and_log(e).boxed()),
    ("grace is bounded", |e| grace_is_bounded(e).boxed()),
    ("a command that is not there", |e| no_such_command(e).boxed()),
    ("an image that cannot be had", |e| missing_image(e).boxed()),
    ("unknown ids", |e| unknown_ids(e).boxed()),
    ("removing a sandbox removes its containers", |e| removal_is_whole(e).boxed()),
    ("exec tells output, exit code and timeout", |e| exec(e).boxed()),
    ("a container over its memory limit is OOMKilled", |e| oom(e).boxed()),
];

/// Runs every case; the error lists all failures.
pub async fn run(environment: &Environment) -> Verdict {
    let mut failures = Vec::new();
    for (name, case) in CASES {
        if let Err(why) = case(environment).await {
            failures.push(format!("{name}: {why}"));
        }
        clean(environment, name, &mut failures).await;
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Removes what a case left, so that one failure does not make others.
async fn clean(e: &Environment, name: &str, failures: &mut Vec<String>) {
    let pods = e.runtime.observe().await.unwrap_or_default();
    for sandbox in pods.into_iter().flat_map(|pod| pod.sandboxes) {
        for action in
            [Action::StopSandbox { id: sandbox.id.clone() }, Action::RemoveSandbox { id: sandbox.id.clone() }]
        {
            if let Err(why) = e.runtime.act(&action).await {
                failures.push(format!("{name}: clean up: {why}"));
            }
        }
    }
}

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn pod(e: &Environment, uid: &str, simulated: &[(&str, &str)]) -> PodSandboxSpec {
    let annotation =
        |(key, value): &(&str, &str)| (format!("simulated.keelson.dev/{key}"), (*value).to_owned());
    let mut annotations: crate::action::Map = simulated.iter().map(annotation).collect();
    annotations.insert("example.com/a".into(), "b".into());
    PodSandboxSpec {
        uid: format!("conformance-{uid}"),
        namespace: "default".into(),
        name: uid.to_owned(),
        hostname: uid.to_owned(),
        log_dir: e.log_dir.join(uid),
        cgroup_parent: e.cgroup_parent.clone(),
        labels: [("app".to_owned(), uid.to_owned())].into(),
        annotations,
        ..PodSandboxSpec::default()
    }
}

async fn create_sandbox(e: &Environment, pod: &PodSandboxSpec) -> Result<String, String> {
    match e.runtime.act(&Action::CreateSandbox(Box::new(pod.clone()))).await.map_err(words)? {
        Done::Sandbox { id } if !id.is_empty() => Ok(id),
        other => Err(format!("creating a sandbox answered {other:?}")),
    }
}

async fn container_spec(e: &Environment, attempt: u32, script: &str) -> Result<ContainerSpec, String> {
    let pull =
        Action::PullImage { image: e.image.clone(), policy: PullPolicy::IfNotPresent, credentials: None };
    let Done::Image { id: image } = e.runtime.act(&pull).await.map_err(words)? else {
        return Err("pulling an image did not answer its id".to_owned());
    };
    Ok(ContainerSpec {
        name: "main".into(),
        attempt,
        image,
        image_name: e.image.clone(),
        command: vec!["/bin/sh".into(), "-c".into(), script.to_owned()],
        env: vec![("GREETING".into(), "hello world".into())],
        log_path: format!("main/{attempt}.log"),
        annotations: [(SPEC_HASH.to_owned(), "1a2b".to_owned())].into(),
        ..ContainerSpec::default()
    })
}

async fn create(
    e: &Environment,
    sandbox: &str,
    pod: &PodSandboxSpec,
    spec: ContainerSpec,
) -> crate::Result<String> {
    let (sandbox, pod, spec) = (sandbox.to_owned(), Box::new(pod.clone()), Box::new(spec));
    e.runtime.act(&Action::CreateContainer { sandbox, pod, spec }).await.map(|done| done.id().to_owned())
}

/// A pod with one started container that runs `script`.
async fn start(e: &Environment, pod: &PodSandboxSpec, script: &str) -> Result<(String, String), String> {
    let sandbox = create_sandbox(e, pod).await?;
    let id = create(e, &sandbox, pod, container_spec(e, 0, script).await?).await.map_err(words)?;
    e.runtime.act(&Action::StartContainer { id: id.clone() }).await.map_err(words)?;
    Ok((sandbox, id))
}

async fn observed(e: &Environment, pod: &PodSandboxSpec) -> Result<ObservedPod, String> {
    let one = e.runtime.observe_pod(&pod.uid).await.map_err(words)?.ok_or("the pod is not observed")?;
    let all = e.runtime.observe().await.map_err(words)?;
    ensure!(all.iter().any(|other| other.uid == pod.uid), "observe does not show what observe_pod shows");
    Ok(one)
}

/// Waits until the pod's newest container has ended; its state.
async fn ended(e: &Environment, pod: &PodSandboxSpec) -> Result<ContainerState, String> {
    let mut events = e.runtime.events();
    loop {
        let seen = observed(e, pod).await?;
        let container = seen.container("main").ok_or("the container is not observed")?;
        if container.exit_code().is_some() {
            return Ok(container.state.clone());
        }
        loop {
            match tokio::time::timeout(PATIENCE, events.next()).await {
                Ok(Some(Event::Pod { uid })) if uid != pod.uid => {}
                Ok(Some(Event::Pod { .. } | Event::Lost)) => break,
                Ok(None) => return Err("the event stream ended".to_owned()),
                Err(_elapsed) => return Err("no event tells of the container's end".to_owned()),
            }
        }
    }
}

async fn is_ready(e: &Environment) -> Verdict {
    let version = e.runtime.version().await.map_err(words)?;
    ensure!(!version.name.is_empty() && !version.version.is_empty(), "{version:?} is incomplete");
    let status = e.runtime.status().await.map_err(words)?;
    ensure!(status.runtime.is_ready() && status.network.is_ready(), "not ready: {status:?}");
    Ok(())
}

async fn sandbox_lives(e: &Environment) -> Verdict {
    let pod = pod(e, "sandbox", &[]);
    let id = create_sandbox(e, &pod).await?;
    let seen = observed(e, &pod).await?;
    ensure!(
        seen.name == pod.name && seen.namespace == pod.namespace,
        "observed as {}/{}",
        seen.namespace,
        seen.name
    );
    let sandbox = seen.sandbox().ok_or("no sandbox observed")?;
    ensure!(sandbox.id == id && sandbox.attempt == 0, "observed as {sandbox:?}");
    ensure!(
        sandbox.state == SandboxState::Ready && sandbox.ips.len() == 1,
        "not ready or no address: {sandbox:?}"
    );
    ensure!(
        pod.labels.iter().all(|label| sandbox.labels.get(label.0) == Some(label.1)),
        "labels: {sandbox:?}"
    );
    ensure!(sandbox.annotations == pod.annotations, "annotations are {:?}", sandbox.annotations);
    for _ in 0..2 {
        e.runtime.act(&Action::StopSandbox { id: id.clone() }).await.map_err(words)?;
        let seen = observed(e, &pod).await?;
        let sandbox = seen.sandbox().ok_or("no sandbox observed")?;
        ensure!(
            sandbox.state == SandboxState::NotReady && sandbox.ips.is_empty(),
            "stopped, but {sandbox:?}"
        );
    }
    let next = PodSandboxSpec { attempt: 1, ..pod.clone() };
    let next_id = create_sandbox(e, &next).await?;
    let seen = observed(e, &pod).await?;
    let ids: Vec<&str> = seen.sandboxes.iter().map(|sandbox| sandbox.id.as_str()).collect();
    ensure!(ids == [next_id.as_str(), id.as_str()], "newest attempt is not first: {ids:?}");
    for id in [&id, &next_id, &next_id] {
        e.runtime.act(&Action::RemoveSandbox { id: id.clone() }).await.map_err(words)?;
    }
    ensure!(e.runtime.observe_pod(&pod.uid).await.map_err(words)?.is_none(), "removed, but still observed");
    Ok(())
}

async fn host_network(e: &Environment) -> Verdict {
    let mut pod = pod(e, "hostnet", &[]);
    pod.namespaces.host_network = true;
    create_sandbox(e, &pod).await?;
    let seen = observed(e, &pod).await?;
    let sandbox = seen.sandbox().ok_or("no sandbox observed")?;
    ensure!(sandbox.host_network && sandbox.ips.is_empty(), "observed as {sandbox:?}");
    Ok(())
}

async fn attempts_are_unique(e: &Environment) -> Verdict {
    let pod = pod(e, "twice", &[]);
    let sandbox = create_sandbox(e, &pod).await?;
    let again = e.runtime.act(&Action::CreateSandbox(Box::new(pod.clone()))).await;
    ensure!(
        again.as_ref().is_err_and(|error| error.step == Step::CreateSandbox),
        "second sandbox: {again:?}"
    );
    create(e, &sandbox, &pod, container_spec(e, 0, "exit 0").await?).await.map_err(words)?;
    let again = create(e, &sandbox, &pod, container_spec(e, 0, "exit 0").await?).await;
    ensure!(
        again.as_ref().is_err_and(|error| error.step == Step::CreateContainer),
        "second container: {again:?}"
    );
    Ok(())
}

async fn container_runs(e: &Environment) -> Verdict {
    let pod = pod(e, "runs", &[]);
    let sandbox = create_sandbox(e, &pod).await?;
    let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    for attempt in 0..2 {
        let id = create(e, &sandbox, &pod, container_spec(e, attempt, script).await?).await.map_err(words)?;
        let seen = observed(e, &pod).await?;
        let container = seen.container("main").ok_or("the container is not observed")?;
        ensure!(
            container.id == id && container.attempt == attempt,
            "newest attempt is not first: {container:?}"
        );
        ensure!(container.state == ContainerState::Created, "before its start it is {:?}", container.state);
        ensure!(container.sandbox_id == sandbox, "it is in sandbox {}", container.sandbox_id);
        ensure!(container.image == e.image && !container.image_id.is_empty(), "image: {container:?}");
        ensure!(container.annotations.get(SPEC_HASH).is_some_and(|hash| hash == "1a2b"), "spec hash is lost");
        e.runtime.act(&Action::StartContainer { id: id.clone() }).await.map_err(words)?;
        let seen = observed(e, &pod).await?;
        ensure!(seen.container("main").is_some_and(|c| c.is_running()), "started, but not running");
        let stats = e.runtime.stats().await.map_err(words)?;
        ensure!(stats.containers.iter().any(|c| c.id == id && c.pod_uid == pod.uid), "no statistics of it");
        let stop = Action::StopContainer { id: id.clone(), grace: PATIENCE };
        e.runtime.act(&stop).await.map_err(words)?;
        let seen = observed(e, &pod).await?;
        let code = seen.container("main").and_then(|container| container.exit_code());
        ensure!(code == Some(0), "stopped with exit code {code:?}");
        e.runtime.act(&stop).await.map_err(words)?;
    }
    let first = observed(e, &pod).await?.containers.pop().ok_or("the first attempt is gone")?;
    for _ in 0..2 {
        e.runtime.act(&Action::RemoveContainer { id: first.id.clone() }).await.map_err(words)?;
    }
    let left = observed(e, &pod).await?.containers.len();
    ensure!(left == 1, "{left} containers are left of two after one was removed");
    Ok(())
}

async fn exit_code_and_log(e: &Environment) -> Verdict {
    let pod = pod(e, "exits", &[("exit-code", "3"), ("log", "hello world")]);
    let (_, id) = start(e, &pod, "echo $GREETING; exit 3").await?;
    let state = ended(e, &pod).await?;
    let ContainerState::Exited { started_at, finished_at, exit_code, reason, message: _ } = &state else {
        return Err(format!("ended as {state:?}"));
    };
    ensure!(*exit_code == 3 && reason == "Error", "ended with {exit_code} {reason}");
    ensure!(started_at.is_some_and(|at| at <= *finished_at), "its times are {state:?}");
    let lines = match e.runtime.log(&id).await.map_err(words)? {
        Log::Lines(lines) => lines,
        Log::File(path) => {
            let text = tokio::task::spawn_blocking(move || std::fs::read(path))
                .await
                .map_err(words)?
                .map_err(words)?;
            text.split_inclusive(|byte| *byte == b'\n').filter_map(Line::parse).collect()
        }
    };
    let texts: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect();
    ensure!(texts == ["hello world"], "its log says {texts:?}");
    let restart = e.runtime.act(&Action::StartContainer { id }).await;
    ensure!(restart.is_err(), "an ended container was started again");
    Ok(())
}

async fn grace_is_bounded(e: &Environment) -> Verdict {
    let pod = pod(e, "stubborn", &[("stop-delay", "1h")]);
    let (_, id) = start(e, &pod, "trap '' TERM; while :; do sleep 1; done").await?;
    let stop = Action::StopContainer { id, grace: Duration::from_secs(1) };
    let stopped = tokio::time::timeout(PATIENCE, e.runtime.act(&stop)).await;
    stopped.map_err(|_| "stopping takes longer than its grace")?.map_err(words)?;
    let state = ended(e, &pod).await?;
    ensure!(matches!(&state, ContainerState::Exited { exit_code: 137, .. }), "killed as {state:?}");
    Ok(())
}

async fn no_such_command(e: &Environment) -> Verdict {
    let pod = pod(e, "nocommand", &[("start-error", "no such file")]);
    let sandbox = create_sandbox(e, &pod).await?;
    let spec = ContainerSpec { command: vec!["/no/such/file".into()], ..container_spec(e, 0, "").await? };
    let error = match create(e, &sandbox, &pod, spec).await {
        Ok(id) => match e.runtime.act(&Action::StartContainer { id }).await {
            Ok(_) => return Err("it started".to_owned()),
            Err(error) => error,
        },
        Err(error) => error,
    };
    ensure!(
        matches!(error.reason(), "RunContainerError" | "CreateContainerError"),
        "reason {}",
        error.reason()
    );
    ensure!(error.message.contains("no such file"), "it does not say what is missing: {error}");
    let seen = observed(e, &pod).await?;
    ensure!(seen.container("main").is_none_or(|container| !container.is_running()), "it runs");
    Ok(())
}

async fn missing_image(e: &Environment) -> Verdict {
    ensure!(e.runtime.image_status(&e.image).await.map_err(words)?.is_some(), "{} is not there", e.image);
    let absent = e.runtime.image_status(&e.missing_image).await.map_err(words)?;
    ensure!(absent.is_none(), "{} is there", e.missing_image);
    for (policy, reason) in [
        (PullPolicy::Never, "ErrImageNeverPull"),
        (PullPolicy::IfNotPresent, "ErrImagePull"),
        (PullPolicy::Always, "ErrImagePull"),
    ] {
        let pull = Action::PullImage { image: e.missing_image.clone(), policy, credentials: None };
        let Err(error) = e.runtime.act(&pull).await else { return Err(format!("{policy:?} found it")) };
        ensure!(error.reason() == reason, "{policy:?} gives {}: {error}", error.reason());
        ensure!(error.to_string().contains(&e.missing_image), "it does not name the image: {error}");
    }
    let pull =
        Action::PullImage { image: "Not A Name".into(), policy: PullPolicy::IfNotPresent, credentials: None };
    let Err(error) = e.runtime.act(&pull).await else {
        return Err("a name that is none was pulled".to_owned());
    };
    ensure!(error.kind == ErrorKind::InvalidImageName, "a name that is none gives {:?}", error.kind);
    let pod = pod(e, "noimage", &[]);
    let sandbox = create_sandbox(e, &pod).await?;
    let spec = ContainerSpec { image: e.missing_image.clone(), ..container_spec(e, 0, "exit 0").await? };
    let Err(error) = create(e, &sandbox, &pod, spec).await else {
        return Err("made without an image".to_owned());
    };
    ensure!(error.reason() == "CreateContainerError", "reason {}", error.reason());
    Ok(())
}

async fn unknown_ids(e: &Environment) -> Verdict {
    let id = "0".repeat(64);
    for action in [
        Action::StopSandbox { id: id.clone() },
        Action::RemoveSandbox { id: id.clone() },
        Action::StopContainer { id: id.clone(), grace: Duration::ZERO },
        Action::RemoveContainer { id: id.clone() },
    ] {
        e.runtime.act(&action).await.map_err(words)?;
    }
    let start = e.runtime.act(&Action::StartContainer { id: id.clone() }).await;
    ensure!(start.as_ref().is_err_and(|error| error.kind == ErrorKind::NotFound), "start: {start:?}");
    let log = e.runtime.log(&id).await;
    ensure!(log.as_ref().is_err_and(|error| error.kind == ErrorKind::NotFound), "log: {log:?}");
    let resources = Resources::default();
    let update = e.runtime.act(&Action::UpdateContainer { id: id.clone(), resources }).await;
    ensure!(update.as_ref().is_err_and(|error| error.kind == ErrorKind::NotFound), "update: {update:?}");
    ensure!(
        e.runtime.observe_pod("no-such-uid").await.map_err(words)?.is_none(),
        "a pod that is none is observed"
    );
    Ok(())
}

async fn removal_is_whole(e: &Environment) -> Verdict {
    let pod = pod(e, "removed", &[]);
    let (sandbox, id) = start(e, &pod, "sleep 1000").await?;
    e.runtime.act(&Action::RemoveSandbox { id: sandbox }).await.map_err(words)?;
    ensure!(e.runtime.observe_pod(&pod.uid).await.map_err(words)?.is_none(), "the pod is still observed");
    ensure!(e.runtime.log(&id).await.is_err(), "its container is still known");
    Ok(())
}

async fn exec(e: &Environment) -> Verdict {
    let pod = pod(e, "exec", &[]);
    let (_, id) = start(e, &pod, "sleep 1000").await?;
    let shell = |script: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let said = e.runtime.exec_sync(&id, &shell("echo out; echo err >&2; exit 7"), PATIENCE).await;
    if !e.real {
        ensure!(said.as_ref().is_err_and(|error| error.kind == ErrorKind::NotSupported), "exec: {said:?}");
        return Ok(());
    }
    let said = said.map_err(words)?;
    ensure!(said.exit_code == 7, "exit code {}", said.exit_code);
    ensure!(said.stdout.as_ref() == b"out\n" && said.stderr.as_ref() == b"err\n", "it said {said:?}");
    let said = e.runtime.exec_sync(&id, &shell("head -c 100000 /dev/zero"), PATIENCE).await.map_err(words)?;
    ensure!(
        said.truncated && said.stdout.len() == crate::contract::EXEC_OUTPUT_BYTES_MAX,
        "output has no bound"
    );
    let late = e.runtime.exec_sync(&id, &shell("sleep 1000"), Duration::from_secs(1)).await;
    ensure!(late.as_ref().is_err_and(|error| error.kind == ErrorKind::TimedOut), "timeout: {late:?}");
    Ok(())
}

async fn oom(e: &Environment) -> Verdict {
    let pod = pod(e, "oom", &[("oom", "true")]);
    let sandbox = create_sandbox(e, &pod).await?;
    let resources = Resources { memory_limit_bytes: 32 << 20, ..Resources::default() };
    // containerd begins to watch for it when the process runs, and misses what happens at once
    let spec = ContainerSpec { resources, ..container_spec(e, 0, "sleep 1; exec tail /dev/zero").await? };
    let id = create(e, &sandbox, &pod, spec).await.map_err(words)?;
    e.runtime.act(&Action::StartContainer { id }).await.map_err(words)?;
    let state = ended(e, &pod).await?;
    let killed =
        matches!(&state, ContainerState::Exited { exit_code: 137, reason, .. } if reason == "OOMKilled");
    ensure!(killed, "ended as {state:?}");
    Ok(())
}
