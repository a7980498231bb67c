//! Images: what is there, how one gets there.

use runtime::{
    Credentials, Done, Error, ErrorKind, Image, PullPolicy, Result, Step, image::full_name,
    stats::FilesystemUsage,
};

use crate::{
    connection::{Connection, PULL, QUICK, SLOW},
    cri, pause,
};

/// Whether images may be fetched from registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registries {
    /// Only what was loaded on this machine exists; policy `Always` takes what is there.
    #[default]
    Off,
    /// containerd asks registries, as its configuration says.
    On,
}

/// The name to ask containerd for: completed, or an id as it is.
fn reference(step: Step, image: &str) -> Result<String> {
    let is_id = image.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64);
    if is_id {
        return Ok(image.to_owned());
    }
    full_name(image).ok_or_else(|| {
        Error::new(
            step,
            image,
            ErrorKind::InvalidImageName,
            "not an image name; want [HOST/]NAME[:TAG][@DIGEST] in lower case",
        )
    })
}

fn spec(image: String) -> Option<cri::ImageSpec> {
    Some(cri::ImageSpec { image, ..Default::default() })
}

/// The image a name or id stands for.
pub(crate) async fn status(connection: &Connection, image: &str) -> Result<Option<Image>> {
    let request = cri::ImageRequest { image: spec(reference(Step::InspectImage, image)?) };
    let about = (Step::InspectImage, image);
    let answer: cri::ImageStatusResponse =
        connection.call(about, "/runtime.v1.ImageService/ImageStatus", request, QUICK).await?;
    Ok(answer.image.map(from_cri))
}

/// All images.
pub(crate) async fn list(connection: &Connection) -> Result<Vec<Image>> {
    let about = (Step::ListImages, "containerd");
    let answer: cri::ListImagesResponse =
        connection.call(about, "/runtime.v1.ImageService/ListImages", cri::Empty {}, QUICK).await?;
    Ok(answer.images.into_iter().map(from_cri).collect())
}

/// Makes sure that an image is there.
pub(crate) async fn pull(
    connection: &Connection,
    registries: Registries,
    image: &str,
    policy: PullPolicy,
    credentials: Option<&Credentials>,
) -> Result<Done> {
    let name = reference(Step::PullImage, image)?;
    let fail = |kind, message: &str| Err(Error::new(Step::PullImage, image, kind, message));
    let ask = policy == PullPolicy::Always && registries == Registries::On;
    if !ask && let Some(found) = status(connection, image).await? {
        return Ok(Done::Image { id: found.id });
    }
    if policy == PullPolicy::Never {
        return fail(
            ErrorKind::ImageNeverPull,
            "the image is not on this machine and imagePullPolicy Never forbids to pull it",
        );
    }
    if registries == Registries::Off {
        return fail(
            ErrorKind::ImageNotFound,
            "the image is not on this machine and registries are switched off; load it with `keelson image load FILE.tar`, or start without `--registries off`",
        );
    }
    let request = cri::PullImageRequest { image: spec(name), auth: credentials.map(auth) };
    let about = (Step::PullImage, image);
    let answer: Result<cri::PullImageResponse> =
        connection.call(about, "/runtime.v1.ImageService/PullImage", request, PULL).await;
    match answer {
        Ok(answer) => Ok(Done::Image { id: answer.image_ref }),
        Err(mut error) => {
            if error.kind == ErrorKind::NotFound {
                error.kind = ErrorKind::ImageNotFound;
            }
            Err(error)
        }
    }
}

/// Removes an image by name or id; one that is not there is removed.
pub(crate) async fn remove(connection: &Connection, image: &str) -> Result<Done> {
    let request = cri::ImageRequest { image: spec(reference(Step::RemoveImage, image)?) };
    let about = (Step::RemoveImage, image);
    let _: cri::Empty = connection.call(about, "/runtime.v1.ImageService/RemoveImage", request, SLOW).await?;
    Ok(Done::Done)
}

/// The file system that images are on.
pub(crate) async fn filesystem(connection: &Connection) -> Result<Option<FilesystemUsage>> {
    let about = (Step::Stats, "images");
    let answer: cri::ImageFsInfoResponse =
        connection.call(about, "/runtime.v1.ImageService/ImageFsInfo", cri::Empty {}, QUICK).await?;
    Ok(answer.image_filesystems.into_iter().next().map(|usage| FilesystemUsage {
        mountpoint: usage.fs_id.unwrap_or_default().mountpoint,
        used_bytes: usage.used_bytes.map_or(0, |n| n.value),
        used_inodes: usage.inodes_used.map_or(0, |n| n.value),
    }))
}

fn auth(credentials: &Credentials) -> cri::AuthConfig {
    let Credentials { username, password, auth, server_address, identity_token, registry_token } =
        credentials.clone();
    cri::AuthConfig { username, password, auth, server_address, identity_token, registry_token }
}

fn from_cri(image: cri::Image) -> Image {
    let cri::Image { id, repo_tags, repo_digests, size, uid, username, pinned } = image;
    // containerd 1.6 does not pin its own sandbox image
    let pinned = pinned || repo_tags.iter().any(|name| name == pause::NAME);
    Image { id, repo_tags, repo_digests, size_bytes: size, uid: uid.map(|uid| uid.value), username, pinned }
}
