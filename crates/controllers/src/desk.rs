//! The controller manager's gRPC service: look at the controllers, hold one, have an object reconciled.
//!
//! Guarantees: pausing holds a queue at once and until it is resumed or the process ends; nothing is lost
//! meanwhile. A controller that is not driven by a queue says so.

use meta::ObjectKey;
use reconcile::{Control, NoQueue};
use rpc::controllermanager::{
    self as wire, ListRequest, ListResponse, PauseRequest, PauseResponse, QueuesRequest, QueuesResponse,
    ResumeRequest, ResumeResponse, TriggerRequest, TriggerResponse,
    controller_manager_server::ControllerManager,
};
use tonic::{Request, Response, Status};

/// Keys listed when nobody says how many.
const KEYS_LIMIT: usize = 100;

/// The service, for a tonic server.
#[derive(Clone)]
pub struct Desk {
    controls: Vec<Control>,
}

impl Desk {
    /// Answers for these controllers, by name.
    pub fn new(mut controls: Vec<Control>) -> Self {
        controls.sort_by_key(Control::name);
        Self { controls }
    }

    fn find(&self, name: &str) -> Result<&Control, Status> {
        self.controls.iter().find(|control| control.name() == name).ok_or_else(|| {
            let names: Vec<&str> = self.controls.iter().map(Control::name).collect();
            Status::not_found(format!("there is no controller {name:?}; there are {}", names.join(", ")))
        })
    }

    fn pause(&self, name: &str, paused: bool) -> Result<wire::Controller, Status> {
        let control = self.find(name)?;
        control.pause(paused).map_err(refused)?;
        tracing::info!(controller = name, paused, "a controller was paused or resumed");
        Ok(controller(control))
    }
}

fn refused(error: NoQueue) -> Status {
    Status::failed_precondition(format!("{error}: it cannot be paused, resumed or triggered"))
}

fn controller(control: &Control) -> wire::Controller {
    let counted = control.metrics();
    let queue = control.list(0);
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    wire::Controller {
        name: control.name().to_owned(),
        paused: control.is_paused(),
        queued: number(queue.waiting_count),
        active: number(queue.active_count),
        reconciles: counted.reconciles,
        errors: counted.errors,
        conflicts: counted.conflicts,
        writes: counted.writes,
        queue_driven: control.has_queue(),
    }
}

#[tonic::async_trait]
impl ControllerManager for Desk {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Ok(Response::new(ListResponse { controllers: self.controls.iter().map(controller).collect() }))
    }

    async fn queues(&self, request: Request<QueuesRequest>) -> Result<Response<QueuesResponse>, Status> {
        let QueuesRequest { controller, limit } = request.into_inner();
        let limit = match usize::try_from(limit).unwrap_or(usize::MAX) {
            0 => KEYS_LIMIT,
            limit => limit,
        };
        let chosen = if controller.is_empty() {
            self.controls.iter().filter(|control| control.has_queue()).collect()
        } else {
            vec![self.find(&controller)?]
        };
        let texts = |keys: Vec<ObjectKey>| keys.iter().map(ToString::to_string).collect();
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let queue = |control: &Control| {
            let listed = control.list(limit);
            wire::Queue {
                controller: control.name().to_owned(),
                paused: control.is_paused(),
                waiting: number(listed.waiting_count),
                active: number(listed.active_count),
                keys: texts(listed.waiting),
                active_keys: texts(listed.active),
            }
        };
        Ok(Response::new(QueuesResponse { queues: chosen.into_iter().map(queue).collect() }))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        let controller = Some(self.pause(&request.into_inner().controller, true)?);
        Ok(Response::new(PauseResponse { controller }))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        let controller = Some(self.pause(&request.into_inner().controller, false)?);
        Ok(Response::new(ResumeResponse { controller }))
    }

    async fn trigger(&self, request: Request<TriggerRequest>) -> Result<Response<TriggerResponse>, Status> {
        let TriggerRequest { controller: name, namespace, name: object } = request.into_inner();
        if object.is_empty() {
            return Err(Status::invalid_argument("the name of the object is needed"));
        }
        let control = self.find(&name)?;
        control.trigger(ObjectKey { namespace, name: object }).map_err(refused)?;
        Ok(Response::new(TriggerResponse { controller: Some(controller(control)) }))
    }
}

#[cfg(test)]
mod tests {
    use reconcile::Controller;

    use super::*;
    use crate::ServiceAccounts;

    fn desk() -> Desk {
        let custom = Controller::custom("own-loop", |_, _| async {});
        Desk::new(vec![custom.control(), Controller::new(ServiceAccounts).control()])
    }

    #[tokio::test]
    async fn a_paused_controller_holds_what_is_triggered() {
        let desk = desk();
        let name = desk.controls.last().unwrap().name().to_owned();
        let pause = PauseRequest { controller: name.clone() };
        let paused = ControllerManager::pause(&desk, Request::new(pause)).await.unwrap().into_inner();
        assert!(paused.controller.unwrap().paused);
        let trigger =
            TriggerRequest { controller: name.clone(), namespace: "ns".into(), name: "default".into() };
        desk.trigger(Request::new(trigger)).await.unwrap();
        let queues = QueuesRequest { controller: String::new(), limit: 0 };
        let queues = desk.queues(Request::new(queues)).await.unwrap().into_inner().queues;
        assert_eq!(
            (queues.len(), queues[0].paused, queues[0].keys.as_slice()),
            (1, true, &["ns/default".to_owned()][..])
        );
        let resume = ResumeRequest { controller: name };
        let resumed = desk.resume(Request::new(resume)).await.unwrap().into_inner();
        let resumed = resumed.controller.unwrap();
        assert_eq!((resumed.paused, resumed.queued), (false, 1));
    }

    #[tokio::test]
    async fn what_is_not_there_or_has_no_queue_is_said() {
        let desk = desk();
        let listed = desk.list(Request::new(ListRequest {})).await.unwrap().into_inner().controllers;
        assert_eq!(
            listed.iter().map(|c| (c.name.as_str(), c.queue_driven)).next(),
            Some(("own-loop", false))
        );
        let pause = |name: &str| PauseRequest { controller: name.into() };
        let unknown = ControllerManager::pause(&desk, Request::new(pause("nobody"))).await.unwrap_err();
        assert!(unknown.message().contains("there are own-loop, "), "{unknown}");
        let own = ControllerManager::pause(&desk, Request::new(pause("own-loop"))).await.unwrap_err();
        assert_eq!(own.code(), tonic::Code::FailedPrecondition);
    }
}
