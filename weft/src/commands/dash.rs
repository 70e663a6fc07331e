//! `weft dash`: a link that signs a browser in to the dashboard, as the user of the kubeconfig.
//!
//! The link is good once and for some minutes, and holds no credential itself. It is printed; nothing is opened unless that is asked for.

use std::process::{Command, Stdio};

use http::Request;
use serde::Deserialize;
use serde_json::json;

use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

/// Programs that open a link, the first of which that there is does.
const OPENERS: [&str; 3] = ["xdg-open", "open", "wslview"];
/// The part of the server's paths that the page is below.
const PAGE: &str = "/dashboard/";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Open it in the browser of this machine, too
    #[arg(long)]
    open: bool,
    /// Begin at this place of the page, as `graph` or `workloads`
    #[arg(value_name = "PLACE")]
    place: Option<String>,
    /// Print it as one JSON line
    #[arg(short, long)]
    output: Option<Output>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// What the server says of a link.
#[derive(Deserialize)]
struct Made {
    path: String,
    expires: String,
}

/// A link to the page of a server, and when it ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    pub url: String,
    pub expires: String,
}

/// Has a server make a link for whoever `client` is.
///
/// # Errors
/// What the server says, and what keeps it from being asked.
pub async fn link(client: &kube::Client, server: &str) -> Result<Link, Failure> {
    let cannot = "cannot make a link to the dashboard";
    let request = Request::post("/dashboard/links").body(Vec::new());
    let request = request.map_err(|error| Failure::new(cannot, error, ""))?;
    let made = client.request::<Made>(request).await;
    let Made { path, expires } = made.map_err(|error| api_failure(cannot, &error))?;
    let server = server.trim_end_matches('/');
    Ok(Link {
        url: format!("{server}{path}"),
        expires,
    })
}

/// # Errors
/// When the cluster does not answer, the user is none of it, or nothing is there that opens links.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (client, server) = args.client.client_of().await?;
    let mut link = link(&client, &server).await?;
    if let Some(place) = &args.place {
        link.url.push_str(&to(place));
    }
    match args.output {
        Some(Output::Json) => stdout::line(json!({"url": link.url, "expires": link.expires}))?,
        None => stdout::text(&format!(
            "{}\n\nIt signs in once, until {}; `weft dash` makes another one.\n",
            link.url, link.expires
        ))?,
    }
    match args.open {
        true => Ok(open(&link.url)?),
        false => Ok(()),
    }
}

/// What has the page go on to a place once it has signed in.
pub(super) fn to(place: &str) -> String {
    let place = place.trim_start_matches('/');
    let place = place.strip_prefix("dashboard/").unwrap_or(place);
    let place: String =
        form_urlencoded::byte_serialize(format!("{PAGE}{place}").as_bytes()).collect();
    format!("&to={place}")
}

/// Has a browser open it. Whoever lists processes may see the link meanwhile; it is good once.
fn open(url: &str) -> Result<(), Failure> {
    for program in OPENERS {
        let started = Command::new(program)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if started.is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    Err(Failure::new(
        "cannot open the link",
        format!("none of {} did", OPENERS.join(", ")),
        "copy it into a browser",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_of_the_page() {
        for (place, expected) in [
            ("graph", "&to=%2Fdashboard%2Fgraph"),
            (
                "/dashboard/graph?ns=a b",
                "&to=%2Fdashboard%2Fgraph%3Fns%3Da+b",
            ),
            ("//evil.example", "&to=%2Fdashboard%2Fevil.example"),
        ] {
            assert_eq!(to(place), expected);
        }
    }
}
