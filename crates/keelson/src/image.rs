//! `keelson image load`.

use crate::{cli::ImageCommand, data_dir::DataDir, error::Failure, term};

pub(crate) async fn image(command: ImageCommand) -> Result<(), Failure> {
    let ImageCommand::Load { data, files } = command;
    let data = DataDir::locate(&data)?;
    for file in &files {
        if !file.is_file() {
            return Err(Failure::new(format!("{} is no file", file.display()))
                .advise("name a tar archive: an OCI layout, or what `docker save` writes"));
        }
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("loading images needs root, as running containers does")
            .advise("run it as root; simulated nodes need no images"));
    }
    data.prepare()?;
    let settings = crate::up::settings(&data);
    let private = runtime_containerd::private::Private::start(settings)
        .await
        .map_err(|error| Failure::of("start containerd", error))?;
    if private.origin() == runtime_containerd::private::Origin::Started {
        term::note(&format!(
            "started a containerd in {}; `keelson up` takes it over, `keelson down` stops it",
            data.containerd().display()
        ));
    }
    for file in files {
        let names = private
            .load_image(&file)
            .await
            .map_err(|error| Failure::of(format!("load {}", file.display()), error))?;
        for name in names {
            term::line(&name);
        }
    }
    Ok(())
}
