//! `weft images`: what is in the cluster's own registry, and taking names out of it.

use http::header::ACCEPT;
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::{Value, json};
use weft_api::ImageReference;

use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only this repository, as `vote/web` [default: all]
    #[arg(value_name = "NAME")]
    repository: Option<String>,
    /// How to print them, instead of as a table
    #[arg(short, long)]
    output: Option<Output>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Remove images, by name and tag; what runs goes on
    Rm(RmArgs),
}

#[derive(Debug, clap::Args)]
struct RmArgs {
    /// As `vote/web:0.1`
    #[arg(value_name = "NAME:TAG", required = true)]
    images: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// Largest answer of the registry that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const MANIFEST_TYPES: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
/// What the registry says of a manifest's digest.
const CONTENT_DIGEST: &str = "docker-content-digest";
/// Digits of a digest that a table shows: enough to tell any two apart.
const DIGITS_SHOWN: usize = "sha256:".len() + 12;

/// An image of the registry.
#[derive(Debug, PartialEq, Eq)]
struct Image {
    repository: String,
    tag: String,
    digest: String,
    /// Bytes of all its layers.
    size: u64,
}

/// # Errors
/// When the registry cannot be read, or an image that is to be removed is not there.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Some(Command::Rm(args)) => remove(args).await,
        None => list(args).await,
    }
}

async fn list(args: Args) -> anyhow::Result<()> {
    let registry = Registry {
        client: args.client.client().await?,
    };
    let repositories = match args.repository {
        Some(repository) => vec![repository],
        None => texts(&registry.json("/v2/_catalog").await?.1["repositories"]),
    };
    let mut images = Vec::new();
    for repository in repositories {
        let tags = registry
            .json(&format!("/v2/{repository}/tags/list"))
            .await?;
        for tag in texts(&tags.1["tags"]) {
            let path = format!("/v2/{repository}/manifests/{tag}");
            let (digest, manifest) = registry.json(&path).await?;
            images.push(Image {
                repository: repository.clone(),
                tag,
                digest,
                size: size_of(&manifest),
            });
        }
    }
    if args.output == Some(Output::Json) {
        let images = images.iter().map(|image| {
            json!({"repository": image.repository, "tag": image.tag, "digest": image.digest, "size": image.size})
        });
        stdout::line(json!(images.collect::<Vec<_>>()))?;
    } else if images.is_empty() {
        eprintln!("No images found in the cluster's registry.");
    } else {
        stdout::text(&table(&images))?;
    }
    Ok(())
}

async fn remove(args: RmArgs) -> anyhow::Result<()> {
    let mut targets = Vec::new();
    for image in args.images {
        match image.parse() {
            Ok(ImageReference::Registry(target))
                if target.host.is_none() && target.digest.is_none() && target.tag.is_some() =>
            {
                let reference = target.reference().to_owned();
                targets.push((image, target.repository, reference));
            }
            _ => {
                return Err(Failure::new(
                    format!("cannot remove {image}"),
                    "an image is removed by its name and tag in the cluster's registry",
                    "use a name such as vote/web:0.1",
                )
                .usage()
                .into());
            }
        }
    }
    let registry = Registry {
        client: args.client.client().await?,
    };
    let mut failed = Vec::new();
    for (image, repository, tag) in targets {
        let path = format!("/v2/{repository}/manifests/{tag}");
        match registry.send(http::Request::delete(&path)).await {
            Ok(_) => stdout::line(format_args!("{image} removed"))?,
            // The others were named too.
            Err(failure) => failed.push(failure),
        }
    }
    Failure::all(failed, "images were not removed").map_err(Into::into)
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|text| Some(text.as_str()?.to_owned()))
        .collect()
}

fn size_of(manifest: &Value) -> u64 {
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let sizes = layers.filter_map(|layer| layer["size"].as_u64());
    sizes.fold(0, u64::saturating_add)
}

fn table(images: &[Image]) -> String {
    let mut rows = vec![["REPOSITORY", "TAG", "DIGEST", "SIZE"].map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        let digest = image.digest.get(..DIGITS_SHOWN).unwrap_or(&image.digest);
        [
            image.repository.clone(),
            image.tag.clone(),
            digest.to_owned(),
            format!("{} KiB", image.size.div_ceil(1024)),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [repository, tag, digest, size] in &rows {
        let [first, second, third] = widths;
        text += &format!("{repository:first$}   {tag:second$}   {digest:third$}   {size}\n");
    }
    text
}

struct Registry {
    client: kube::Client,
}

impl Registry {
    /// The digest and the document at a path.
    async fn json(&self, path: &str) -> Result<(String, Value), Failure> {
        let request = http::Request::get(path).header(ACCEPT, MANIFEST_TYPES);
        let (digest, body) = self.send(request).await?;
        let document = serde_json::from_slice(&body).map_err(|error| {
            let next = "look at the server's log";
            Failure::new("the registry's answer cannot be read", error, next)
        })?;
        Ok((digest, document))
    }

    async fn send(&self, request: http::request::Builder) -> Result<(String, Vec<u8>), Failure> {
        let what = "the registry refused";
        let request = request
            .body(Body::empty())
            .map_err(|error| Failure::new(what, error, "correct the name"))?;
        let answer = self.client.send(request).await;
        let answer =
            answer.map_err(|error| api_failure("cannot ask the registry".to_owned(), &error))?;
        let (head, body) = answer.into_parts();
        let digest = head.headers.get(CONTENT_DIGEST);
        let digest = digest.and_then(|digest| digest.to_str().ok());
        let digest = digest.unwrap_or_default().to_owned();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body
            .map(|body| body.to_bytes().to_vec())
            .unwrap_or_default();
        if head.status.is_success() {
            return Ok((digest, body));
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let why = answer["errors"][0]["message"]
            .as_str()
            .or(answer["message"].as_str())
            .unwrap_or("it gave no reason");
        let next = "see what there is with `weft images`";
        Err(Failure::new(what, format!("{why} ({})", head.status), next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_shown_as_a_table() {
        let image = |repository: &str, tag: &str, size: u64| Image {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            digest: format!("sha256:{}", "a".repeat(64)),
            size,
        };
        let images = [image("vote/web", "0.1", 2049), image("a", "latest", 0)];
        assert_eq!(
            table(&images),
            "REPOSITORY   TAG      DIGEST                SIZE\n\
             vote/web     0.1      sha256:aaaaaaaaaaaa   3 KiB\n\
             a            latest   sha256:aaaaaaaaaaaa   0 KiB\n"
        );
        let manifest = json!({"layers": [{"size": 5}, {"size": 7}, {"size": -1}]});
        assert_eq!(size_of(&manifest), 12);
    }
}
