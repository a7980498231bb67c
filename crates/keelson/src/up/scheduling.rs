//! The scheduler's configuration file.

use std::path::Path;

use meta::Random;
use scheduler::Configuration;

use crate::error::Failure;

/// Upstream's defaults, or what the file says.
pub(crate) fn configuration(path: Option<&Path>, random: &dyn Random) -> Result<Configuration, Failure> {
    let Some(path) = path else { return Ok(Configuration::new(random.next())) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::of(format!("read {}", path.display()), error))?;
    Configuration::read(&text, random.next())
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_refused_with_its_name_and_field() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scheduler.yaml");
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        std::fs::write(&path, format!("{head}extenders: []\n")).unwrap();
        let random = meta::Seeded::new(1);
        let refused = configuration(Some(&path), &random).unwrap_err().to_string();
        assert!(
            refused.contains("scheduler.yaml") && refused.contains("extenders: is not supported"),
            "{refused}"
        );
        std::fs::write(&path, head).unwrap();
        assert_eq!(configuration(Some(&path), &random).unwrap().profiles.len(), 1);
        assert!(configuration(Some(&directory.path().join("none")), &random).is_err());
    }
}
