//! What the scheduler and the controller manager answer over gRPC: messages, clients and servers, generated
//! from `proto/` by `xtask/proto-gen` and committed, so that nobody needs a compiler of protos to build.
//!
//! Guarantees: the generated code and [`DESCRIPTORS`] are of the same protos. Knows nothing of sockets, nor
//! of who may ask.

/// `keelson.scheduler.v1`.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod scheduler {
    include!("generated/keelson.scheduler.v1.rs");
}

/// `keelson.controllermanager.v1`.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod controllermanager {
    include!("generated/keelson.controllermanager.v1.rs");
}

/// A `google.protobuf.FileDescriptorSet` of all of it, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

#[cfg(test)]
mod tests {
    use prost::Message;

    #[test]
    fn descriptors_name_what_is_generated() {
        let set = prost_types::FileDescriptorSet::decode(super::DESCRIPTORS).unwrap();
        let mut methods: Vec<String> = Vec::new();
        for file in &set.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                methods.extend(service.method.iter().map(|m| format!("{name}/{}", m.name())));
            }
        }
        for method in &methods {
            let generated = [
                include_str!("generated/keelson.scheduler.v1.rs"),
                include_str!("generated/keelson.controllermanager.v1.rs"),
            ];
            assert!(generated.iter().any(|code| code.contains(&format!("/{method}"))), "{method}");
        }
        assert_eq!(methods.len(), 8, "{methods:?}");
    }
}
