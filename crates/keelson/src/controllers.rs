//! `keelson controllers`: the loops of the controller manager, seen and held.

use rpc::controllermanager::{
    Controller, ListRequest, ListResponse, PauseRequest, Queue, QueuesRequest, ResumeRequest, TriggerRequest,
    controller_manager_client::ControllerManagerClient,
};

use crate::{
    cli::{ControllersCommand, ControllersOptions},
    error::Failure,
    line::{self, ANSWER_MAX},
    term,
};

pub(crate) async fn controllers(options: ControllersOptions) -> Result<(), Failure> {
    let ControllersOptions { command, reach, output } = options;
    let line = line::connect(&reach).await?;
    let origin = line.origin.clone();
    let mut client = ControllerManagerClient::with_origin(line, origin).max_decoding_message_size(ANSWER_MAX);
    let refused = |what: String| move |status: tonic::Status| line::refused(&what, &status);
    let changed = |controller: Option<Controller>, what: &str| match (output, controller) {
        (Some(output), controller) => term::machine(&controller, output),
        (None, controller) => {
            let name = controller.map(|c| c.name).unwrap_or_default();
            term::line(&format!("{} {name} {what}", term::good("✓")));
            Ok(())
        }
    };
    match command {
        None => {
            let told =
                client.list(ListRequest {}).await.map_err(refused("list controllers".into()))?.into_inner();
            match output {
                Some(output) => term::machine(&told, output),
                None => {
                    term::line(&list(&told));
                    Ok(())
                }
            }
        }
        Some(ControllersCommand::Queues { controller, limit }) => {
            let request = QueuesRequest { controller: controller.unwrap_or_default(), limit };
            let told = client.queues(request).await.map_err(refused("show queues".into()))?.into_inner();
            match output {
                Some(output) => term::machine(&told, output),
                None => {
                    term::line(&queues(&told.queues));
                    Ok(())
                }
            }
        }
        Some(ControllersCommand::Pause { controller }) => {
            let what = format!("pause {controller}");
            let told = client.pause(PauseRequest { controller }).await.map_err(refused(what))?.into_inner();
            changed(told.controller, "is paused: its queue is held until `keelson controllers resume`")
        }
        Some(ControllersCommand::Resume { controller }) => {
            let what = format!("resume {controller}");
            let told = client.resume(ResumeRequest { controller }).await.map_err(refused(what))?.into_inner();
            changed(told.controller, "goes on")
        }
        Some(ControllersCommand::Trigger { controller, name, namespace }) => {
            let what = format!("trigger {controller}");
            let request = TriggerRequest { controller, namespace: namespace.unwrap_or_default(), name };
            let told = client.trigger(request).await.map_err(refused(what))?.into_inner();
            let held = told.controller.as_ref().is_some_and(|c| c.paused);
            let what = if held { "has it in its queue, and is paused" } else { "looks at it" };
            changed(told.controller, what)
        }
    }
}

fn list(told: &ListResponse) -> String {
    let width = told.controllers.iter().map(|c| c.name.len()).max().unwrap_or(0);
    let head = format!("  {:<width$}  waiting  active  reconciled  errors  writes", "controller");
    let row = |c: &Controller| {
        let mark = if c.paused { term::warn("‖") } else { term::good("✓") };
        let Controller { name, queued, active, reconciles, errors, writes, .. } = c;
        if !c.queue_driven {
            return format!("{mark} {name:<width$}  {}", term::dim("a loop of its own"));
        }
        let paused = if c.paused { term::warn("  paused") } else { String::new() };
        format!(
            "{mark} {name:<width$}  {queued:>7}  {active:>6}  {reconciles:>10}  {errors:>6}  {writes:>6}{paused}"
        )
    };
    let rows = told.controllers.iter().map(row);
    std::iter::once(term::bold(&head)).chain(rows).collect::<Vec<_>>().join("\n")
}

fn queues(queues: &[Queue]) -> String {
    let mut lines = Vec::new();
    for queue in queues.iter().filter(|q| q.waiting + q.active > 0 || q.paused) {
        let paused = if queue.paused { term::warn(", paused") } else { String::new() };
        let counts = format!("{} waiting, {} active{paused}", queue.waiting, queue.active);
        lines.push(format!("{} {counts}", term::bold(&queue.controller)));
        lines.extend(queue.active_keys.iter().map(|key| format!("  {} {key}", term::good("→"))));
        lines.extend(queue.keys.iter().map(|key| format!("    {key}")));
    }
    if lines.is_empty() { "nothing waits".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        let one = |name: &str, paused, queue_driven| Controller {
            name: name.into(),
            paused,
            queue_driven,
            queued: 3,
            reconciles: 12,
            ..Controller::default()
        };
        let told = ListResponse { controllers: vec![one("job", true, true), one("monitors", false, false)] };
        let shown = list(&told);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "  controller  waiting  active  reconciled  errors  writes");
        assert!(lines[1].starts_with("‖ job ") && lines[1].ends_with("paused"), "{shown}");
        assert!(lines[2].ends_with("a loop of its own"), "{shown}");
        assert_eq!(queues(&[]), "nothing waits");
        let queue =
            Queue { controller: "job".into(), waiting: 1, keys: vec!["ns/a".into()], ..Queue::default() };
        assert_eq!(queues(&[queue]), "job 1 waiting, 0 active\n    ns/a");
    }
}
