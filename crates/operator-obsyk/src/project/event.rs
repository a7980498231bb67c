//! Events of core/v1.

use super::{Fields, Inventory, Meta, lite};
use crate::Kind;

lite! {
    Event {
        metadata: Meta, r#type: String, reason: String, message: String, involved_object: Involved,
        source: Source, first_timestamp: String, last_timestamp: String, count: i64,
    }
    Involved { kind: String, name: String, namespace: String, uid: String }
    Source { component: String, host: String }
}

impl Inventory for Event {
    const KIND: Kind = Kind::Event;

    fn split(self) -> (Meta, Fields) {
        let involved = self.involved_object.unwrap_or_default();
        let source = self.source.unwrap_or_default();
        let involved = Fields::default()
            .always("kind", involved.kind.unwrap_or_default())
            .always("name", involved.name.unwrap_or_default())
            .unless_empty("namespace", involved.namespace)
            .unless_empty("uid", involved.uid);
        let source =
            Fields::default().unless_empty("component", source.component).unless_empty("host", source.host);
        let fields = Fields::default()
            .always("type", self.r#type.unwrap_or_default())
            .always("reason", self.reason.unwrap_or_default())
            .always("message", self.message.unwrap_or_default())
            .always("involved_object", involved)
            .always("source", source)
            .unless_empty("first_timestamp", self.first_timestamp)
            .unless_empty("last_timestamp", self.last_timestamp)
            .always("count", self.count.unwrap_or(0));
        (self.metadata.unwrap_or_default(), fields)
    }
}
