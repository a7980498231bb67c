//! BuildbarnFrontend.

use kube::ResourceExt;
use meta::Timestamp;
use serde_json::json;

use super::{Held, Parts, Source, base, client, service_type, simple_pod};
use crate::{
    catalogue::RELEASE,
    children,
    component::{Component, Design, Workload},
    config::{self, Routes},
    model,
    observe::World,
    types::{BuildbarnFrontend, Common, Status},
    validate,
    verdict::{Verdict, Wrong},
};

const PORTS: [(&str, u16); 1] = [("grpc", 8980)];

impl Component for BuildbarnFrontend {
    const APP: &'static str = "frontend";
    const CONTROLLER: &'static str = "buildbarn-frontend";
    const FINALIZER: &'static str = "buildbarnfrontend.buildbarn.io";

    fn common(&self) -> &Common {
        &self.spec.common
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn design(world: &World<Self>, _: Timestamp) -> Result<Design, Verdict> {
        let (name, namespace, spec) = (world.name(), world.namespace(), &world.object.spec);
        let mut wrong = Wrong::default();
        validate::common(&name, &spec.common, &mut wrong);
        let replicas = wrong.range("spec.replicas", spec.replicas, 3, 0, 1000);
        let kind = service_type(spec.service_type.as_ref(), "LoadBalancer", &mut wrong);
        check(world, &mut wrong);
        if let Some(verdict) = wrong.verdict() {
            return Err(verdict);
        }
        let mut map = None;
        let source = Source::find(world, || {
            let held = Held::find(&world.farm, spec.storage_ref.as_ref())?;
            let routes = routes(world, &namespace)?;
            map = Some(held.map());
            Ok(vec![config::frontend(spec, &held.place(&namespace), &routes, |store| held.has(store))])
        })?;
        let base = base(world, &name, &namespace, None);
        let tls = spec.tls.as_ref();
        let parts = Parts {
            init: Vec::new(),
            mounts: tls
                .map(|_| json!({"name": "tls", "mountPath": "/tls", "readOnly": true}))
                .into_iter()
                .collect(),
            volumes: tls
                .map(|tls| json!({"name": "tls", "secret": {"secretName": tls.secret_name}}))
                .into_iter()
                .collect(),
            grace_seconds: 30,
        };
        // The container's name is the original's.
        let ports = [("grpc", 8980), ("metrics", 9980)];
        let template =
            simple_pod(&base, &source, ("storage", RELEASE.storage, "frontend.jsonnet"), &ports, parts);
        let mut others = vec![
            children::service(&base, kind, spec.service.as_ref(), &PORTS),
            // For clients in the cluster that balance by themselves.
            children::headless(&base, &format!("{name}-headless"), &PORTS),
        ];
        others.extend(children::budget(&base, 1));
        let mut status = Status::default();
        let endpoint = client::endpoint(world);
        status.bazelrc = Some(client::bazelrc(world, &endpoint));
        status.endpoint = Some(endpoint);
        Ok(Design {
            files: source.into_files(),
            workload: Workload::Deployment(Some(children::deployment(&base, replicas, false, &template))),
            others,
            replicas,
            map,
            status,
            fault: None,
            conditions: Vec::new(),
            recheck_seconds: None,
        })
    }
}

fn check(world: &World<BuildbarnFrontend>, wrong: &mut Wrong) {
    let spec = &world.object.spec;
    let auth = spec.auth.clone().unwrap_or_default();
    let authorizer = "auth.AuthorizerConfiguration";
    let (cas, ac) = (auth.cas.unwrap_or_default(), auth.ac.unwrap_or_default());
    for (field, given, message) in [
        ("authentication", auth.authentication, "grpc.AuthenticationPolicy"),
        ("execute", auth.execute, authorizer),
        ("cas.get", cas.get, authorizer),
        ("cas.put", cas.put, authorizer),
        ("cas.findMissing", cas.find_missing, authorizer),
        ("ac.get", ac.get, authorizer),
        ("ac.put", ac.put, authorizer),
    ] {
        for fault in given.iter().flat_map(|given| model::message(message, given)) {
            wrong.add(&format!("spec.auth.{field}"), fault);
        }
    }
    if ac.find_missing.is_some() {
        wrong.add("spec.auth.ac.findMissing", "is for the CAS only, remove it");
    }
    if spec.cache_only == Some(true) && !spec.schedulers.is_empty() {
        wrong.add("spec.schedulers", "must be empty where cacheOnly is true");
    }
    let mut prefixes: Vec<String> = Vec::new();
    for (at, route) in spec.schedulers.iter().enumerate() {
        let field = format!("spec.schedulers.{at}");
        if route.scheduler_ref.is_some() == route.address.is_some() {
            wrong.add(&field, "set one of schedulerRef and address");
        }
        let prefix = route.instance_name_prefix.clone().unwrap_or_default();
        if let Some(why) = model::bad_instance_name(&prefix) {
            wrong.add(&format!("{field}.instanceNamePrefix"), why);
        }
        if prefixes.contains(&prefix) {
            wrong.add(&format!("{field}.instanceNamePrefix"), format!("{prefix:?} is given twice"));
        }
        prefixes.push(prefix);
    }
    if let Some(host) = &spec.external_host {
        validate::host("spec.externalHost", host, wrong);
    }
    if let Some(cache) = spec.existence_cache {
        wrong.range("spec.existenceCache.size", Some(cache.size), 1, 1, 100_000_000);
        wrong.range("spec.existenceCache.durationSeconds", Some(cache.duration_seconds), 1, 1, 86_400);
    }
}

fn routes(world: &World<BuildbarnFrontend>, namespace: &str) -> Result<Routes, Verdict> {
    let spec = &world.object.spec;
    if spec.cache_only == Some(true) {
        return Ok(Routes::new());
    }
    let address = |name: String| format!("{name}.{namespace}.svc:8982");
    if spec.schedulers.is_empty() {
        let only = world.farm.scheduler(None).map_err(|verdict| Verdict {
            message: format!(
                "{}, or set spec.cacheOnly to true",
                verdict.message.replace("spec.schedulerRef", "spec.schedulers")
            ),
            ..verdict
        })?;
        return Ok(vec![(String::new(), address(only.name_any()), String::new())]);
    }
    let mut routes = Routes::new();
    for (at, route) in spec.schedulers.iter().enumerate() {
        let to = match (&route.address, &route.scheduler_ref) {
            (Some(given), _) => given.clone(),
            (None, by) => {
                let found = world.farm.scheduler(by.as_ref()).map_err(|verdict| Verdict {
                    message: verdict
                        .message
                        .replace("spec.schedulerRef", &format!("spec.schedulers.{at}.schedulerRef")),
                    ..verdict
                })?;
                address(found.name_any())
            }
        };
        let prefix = route.instance_name_prefix.clone().unwrap_or_default();
        routes.push((prefix, to, route.add_instance_name_prefix.clone().unwrap_or_default()));
    }
    Ok(routes)
}
