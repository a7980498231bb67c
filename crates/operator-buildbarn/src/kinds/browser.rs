//! BuildbarnBrowser.

use meta::Timestamp;

use super::{Held, Parts, Source, base, service_type, simple_pod};
use crate::{
    catalogue::RELEASE,
    children,
    component::{Component, Design, Workload},
    config, model,
    observe::World,
    types::{BuildbarnBrowser, Common, Ingress, Status},
    validate,
    verdict::{Verdict, Wrong},
};

const PORTS: [(&str, u16); 1] = [("http", 7984)];

impl Component for BuildbarnBrowser {
    const APP: &'static str = "browser";
    const CONTROLLER: &'static str = "buildbarn-browser";
    const FINALIZER: &'static str = "buildbarnbrowser.buildbarn.io";

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
        let kind = service_type(spec.service_type.as_ref(), "ClusterIP", &mut wrong);
        if spec.ingress.is_some() && spec.ingress_host.is_some() {
            wrong.add("spec.ingressHost", "is given by spec.ingress.host: remove one of the two");
        }
        let ingress = spec.ingress.clone().or_else(|| {
            spec.ingress_host
                .as_ref()
                .filter(|host| !host.is_empty())
                .map(|host| Ingress { host: host.clone(), ..Ingress::default() })
        });
        let field = if spec.ingress.is_some() { "spec.ingress.host" } else { "spec.ingressHost" };
        ingress.iter().for_each(|ingress| validate::ingress(field, ingress, &mut wrong));
        if spec.route_prefix.as_ref().is_some_and(|path| !path.starts_with('/') || !path.ends_with('/')) {
            wrong.add("spec.routePrefix", "must begin and end with a slash");
        }
        let auth = spec.auth.clone().unwrap_or_default();
        for (field, given, message) in [
            ("authentication", auth.authentication, "http.server.AuthenticationPolicy"),
            ("authorizer", auth.authorizer, "auth.AuthorizerConfiguration"),
        ] {
            for fault in given.iter().flat_map(|given| model::message(message, given)) {
                wrong.add(&format!("spec.auth.{field}"), fault);
            }
        }
        if let Some(verdict) = wrong.verdict() {
            return Err(verdict);
        }
        let mut map = None;
        let source = Source::find(world, || {
            let held = Held::find(&world.farm, spec.storage_ref.as_ref())?;
            map = Some(held.map());
            Ok(vec![config::browser(spec, &held.place(&namespace), held.message_bytes, |store| {
                held.has(store)
            })])
        })?;
        let base = base(world, &name, &namespace, None);
        let parts = Parts { init: Vec::new(), mounts: Vec::new(), volumes: Vec::new(), grace_seconds: 30 };
        let ports = [("http", 7984), ("metrics", 9980)];
        let template =
            simple_pod(&base, &source, ("browser", RELEASE.browser, "browser.jsonnet"), &ports, parts);
        let mut others = vec![children::service(&base, kind, spec.service.as_ref(), &PORTS)];
        others.extend(ingress.as_ref().map(|ingress| children::ingress(&base, ingress, "http")));
        others.extend(children::budget(&base, 1));
        Ok(Design {
            files: source.into_files(),
            workload: Workload::Deployment(Some(children::deployment(&base, replicas, false, &template))),
            others,
            replicas,
            map,
            status: Status::default(),
            fault: None,
            conditions: Vec::new(),
            recheck_seconds: None,
        })
    }
}
