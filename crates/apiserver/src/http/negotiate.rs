//! Which form of an answer the client wants, and which form a body has.

use http::{HeaderMap, HeaderValue, header};
use meta::{Reason, Status};
use resource::Resource;

use super::protobuf;

/// The media type of protobuf.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// An encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Yaml,
    Protobuf,
}

/// What of an answer can be written as protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    /// Nothing: the document has no such form.
    Nothing,
    /// Only metadata: a custom resource.
    Metadata,
    /// All of it.
    Whole,
}

impl Binary {
    /// Of the objects of a kind.
    pub(crate) fn of(resource: &Resource) -> Self {
        if !resource.custom && protobuf::has_form(&resource.schema) { Self::Whole } else { Self::Metadata }
    }
}

/// What is to be made of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object itself.
    Whole,
    /// A `meta.k8s.io/v1` Table.
    Table,
    /// A `meta.k8s.io/v1` PartialObjectMetadata.
    Partial,
}

/// The answer the client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) media: Media,
    pub(crate) form: Form,
    /// Indented, for people.
    pub(crate) pretty: bool,
}

impl Wanted {
    /// Compact JSON of the object itself: what is stored can be sent as it is.
    pub(crate) const PLAIN: Self = Self { media: Media::Json, form: Form::Whole, pretty: false };

    /// The `Content-Type` of the answer.
    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self.media {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => PROTOBUF,
        })
    }
}

/// Chooses from the `Accept` header; 406 when nothing in it is served. `pretty` is the query parameter, and
/// `tables` says whether there are any.
pub(crate) fn accept(
    headers: &HeaderMap,
    pretty: Option<&str>,
    binary: Binary,
    tables: bool,
) -> Result<Wanted, Status> {
    let indented = || match pretty {
        Some(value) => !matches!(value, "0" | "false"),
        None => person(headers),
    };
    let Some(accepted) = headers.get(header::ACCEPT) else {
        return Ok(Wanted { pretty: indented(), ..Wanted::PLAIN });
    };
    let text = accepted.to_str().map_err(|_| Status::bad_request("Accept header is not text"))?;
    let mut best: Option<(u16, Wanted)> = None;
    for range in text.split(',') {
        let Some((quality, media, form)) = read(range) else { continue };
        let served = match (media, form) {
            (Media::Protobuf, Form::Table) => false,
            (_, Form::Table) if !tables => false,
            (Media::Protobuf, Form::Partial) => binary != Binary::Nothing,
            (Media::Protobuf, Form::Whole) => binary == Binary::Whole,
            (Media::Json | Media::Yaml, _) => true,
        };
        if served && quality > 0 && best.is_none_or(|(found, _)| quality > found) {
            best = Some((quality, Wanted { media, form, pretty: false }));
        }
    }
    let (_, mut wanted) = best.ok_or_else(|| not_acceptable(binary))?;
    wanted.pretty = indented();
    Ok(wanted)
}

/// Quality in thousandths, encoding and form of one media range; `None` when it is not served.
fn read(range: &str) -> Option<(u16, Media, Form)> {
    let mut parts = range.split(';').map(str::trim);
    let media = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Media::Json,
        "application/yaml" => Media::Yaml,
        PROTOBUF => Media::Protobuf,
        _ => return None,
    };
    let (mut quality, mut kind, mut version, mut group) = (1000, "", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("q", q)) => quality = thousandths(q)?,
            Some(("as", value)) => kind = value,
            Some(("v", value)) => version = value,
            Some(("g", value)) => group = value,
            // `charset`, `stream` and the like do not change what is sent.
            _ => {}
        }
    }
    let form = match (kind, version, group) {
        ("", _, _) => Form::Whole,
        ("Table", "v1", "meta.k8s.io") => Form::Table,
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1", "meta.k8s.io") => Form::Partial,
        _ => return None,
    };
    Some((quality, media, form))
}

fn thousandths(q: &str) -> Option<u16> {
    let quality: f32 = q.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
    Some((quality.clamp(0.0, 1.0) * 1000.0) as u16)
}

/// Whether the client is a tool that people read the output of (upstream `isPrettyPrint`).
fn person(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
    [&b"curl"[..], b"Wget", b"Mozilla/5.0"].iter().any(|tool| agent.starts_with(tool))
}

/// 406.
pub(crate) fn not_acceptable(binary: Binary) -> Status {
    let more = if binary == Binary::Nothing { "" } else { ", application/vnd.kubernetes.protobuf" };
    let text =
        format!("only the following media types are accepted: application/json, application/yaml{more}");
    Status::new(406, Reason::NotAcceptable, text)
}

/// The encoding of a request body by its `Content-Type`; 415 when it is not read here.
pub(crate) fn content(headers: &HeaderMap) -> Result<Media, Status> {
    match media_type(headers)? {
        "" | "application/json" | "*/*" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        PROTOBUF => Ok(Media::Protobuf),
        _ => Err(unsupported(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// `Content-Type` without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<&str, Status> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok("") };
    let text = value.to_str().map_err(|_| Status::bad_request("Content-Type header is not text"))?;
    Ok(text.split(';').next().unwrap_or_default().trim())
}

/// 415.
pub(crate) fn unsupported(why: &str) -> Status {
    Status::new(415, Reason::UnsupportedMediaType, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        accepted: Option<&str>,
        agent: &str,
        pretty: Option<&str>,
        expected: Result<(Media, Form, bool), u16>,
    ) {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_str(agent).unwrap());
        if let Some(accepted) = accepted {
            headers.insert(header::ACCEPT, HeaderValue::from_str(accepted).unwrap());
        }
        let got = accept(&headers, pretty, Binary::Metadata, true)
            .map(|w| (w.media, w.form, w.pretty))
            .map_err(|s| s.code);
        assert_eq!(got, expected, "{accepted:?}");
    }

    #[test]
    fn accept_chooses() {
        use Form::{Partial, Table, Whole};
        use Media::{Json, Yaml};
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(None, "kubectl", None, Ok((Json, Whole, false)));
        check(None, "curl/8", None, Ok((Json, Whole, true)));
        check(None, "curl/8", Some("false"), Ok((Json, Whole, false)));
        check(Some("application/json"), "x", Some("true"), Ok((Json, Whole, true)));
        check(Some("*/*"), "x", None, Ok((Json, Whole, false)));
        check(Some("application/yaml"), "x", None, Ok((Yaml, Whole, false)));
        check(Some(table), "kubectl", None, Ok((Json, Table, false)));
        check(Some("application/json;as=Table;v=v1beta1;g=meta.k8s.io"), "x", None, Err(406));
        check(
            Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            "x",
            None,
            Ok((Json, Partial, false)),
        );
        check(Some("application/vnd.kubernetes.protobuf, */*"), "x", None, Ok((Json, Whole, false)));
        check(
            Some("application/vnd.kubernetes.protobuf,application/json"),
            "x",
            None,
            Ok((Json, Whole, false)),
        );
        check(Some("application/vnd.kubernetes.protobuf"), "x", None, Err(406));
        check(
            Some("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
            "x",
            None,
            Ok((Media::Protobuf, Partial, false)),
        );
        check(Some("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1"), "x", None, Err(406));
        check(Some("text/html"), "x", None, Err(406));
        check(Some("application/json;q=0.5, application/yaml"), "x", None, Ok((Yaml, Whole, false)));
        check(Some("application/json;q=0"), "x", None, Err(406));
    }

    #[test]
    fn protobuf_is_for_what_has_it() {
        let mut headers = HeaderMap::new();
        let text = "application/vnd.kubernetes.protobuf,application/json;q=0.9";
        headers.insert(header::ACCEPT, HeaderValue::from_static(text));
        for (binary, expected) in [
            (Binary::Whole, Media::Protobuf),
            (Binary::Metadata, Media::Json),
            (Binary::Nothing, Media::Json),
        ] {
            assert_eq!(accept(&headers, None, binary, true).unwrap().media, expected, "{binary:?}");
        }
    }

    #[test]
    fn what_has_no_table_is_sent_otherwise_or_refused() {
        let mut headers = HeaderMap::new();
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        headers.insert(header::ACCEPT, HeaderValue::from_static(table));
        assert_eq!(accept(&headers, None, Binary::Whole, false).unwrap_err().code, 406);
        headers.insert(header::ACCEPT, HeaderValue::from_str(&format!("{table},application/json")).unwrap());
        assert_eq!(accept(&headers, None, Binary::Whole, false).unwrap(), Wanted::PLAIN);
    }

    #[test]
    fn content_types_are_read() {
        for (text, expected) in [
            ("application/json", Ok(Media::Json)),
            ("application/json; charset=utf-8", Ok(Media::Json)),
            ("application/yaml", Ok(Media::Yaml)),
            ("application/vnd.kubernetes.protobuf", Ok(Media::Protobuf)),
            ("text/plain", Err(415)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(text));
            assert_eq!(content(&headers).map_err(|s| s.code), expected, "{text}");
        }
        assert_eq!(content(&HeaderMap::new()), Ok(Media::Json));
    }
}
