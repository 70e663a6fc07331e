//! `weft mesh check` and `weft mesh config`: how the meshes of the nodes stand.
//!
//! Each node is asked through the API (`nodes/NAME/proxy/stats/mesh`); what is wrong is a sentence and a next step, and makes the command fail.

use std::fmt::Write as _;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use weft_call::standing::NodeMesh;

use super::{Form, NODE_MAX, pretty, read};
use crate::commands::output::{lines, printable};
use crate::exit::Failure;
use crate::kubeconfig::api_failure;
use crate::stdout;

/// Nodes asked at the same time.
const NODES_AT_ONCE: usize = 16;
/// A certificate that ends sooner should have been replaced: they last for a day, and are renewed at half of it.
const ENDS_SOON_SECONDS: i64 = 3600;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// The node
    #[arg(value_name = "NODE")]
    node: String,
    /// And its view of this Service, as NAMESPACE/NAME
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// What was found of a node.
struct Found {
    node: String,
    mesh: Result<NodeMesh, String>,
    problems: Vec<String>,
}

/// # Errors
/// What keeps the nodes from being listed; and that something is wrong.
pub(super) async fn run(client: &kube::Client, args: &Args) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .map_err(|error| api_failure("cannot list the nodes", &error))?;
    let names = nodes
        .items
        .into_iter()
        .filter_map(|node| node.metadata.name);
    let asked = names.map(|name| async move {
        let mesh = standing(client, &name, None).await;
        found(name, mesh.map_err(|failure| failure.why))
    });
    let asked = futures::stream::iter(asked).buffered(NODES_AT_ONCE);
    let mut found: Vec<Found> = asked.collect().await;
    compare(&mut found);
    match args.output {
        Form::Json => stdout::text(&pretty(&value(&found)))?,
        Form::Text => stdout::text(&text(&found))?,
    }
    let problems: usize = found.iter().map(|found| found.problems.len()).sum();
    if problems > 0 {
        let what = format!("the mesh is not well: {problems} problems");
        let next = "see them above, and a node's own view with `weft mesh config NODE`";
        return Err(Failure::new(what, "they are listed with their nodes", next).into());
    }
    Ok(())
}

async fn standing(
    client: &kube::Client,
    node: &str,
    service: Option<&str>,
) -> Result<NodeMesh, Failure> {
    let cannot = format!("cannot ask node {node}");
    let mut path = format!("/api/v1/nodes/{node}/proxy/stats/mesh");
    if let Some(service) = service {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("service", service);
        let _ = write!(path, "?{}", query.finish());
    }
    let next = "see the node with `weft get node`";
    let answer = tokio::time::timeout(NODE_MAX, read(client, &path, &cannot)).await;
    let seconds = NODE_MAX.as_secs();
    let answer =
        answer.map_err(|_| Failure::new(&cannot, format!("no answer in {seconds} s"), next))??;
    serde_json::from_value(answer).map_err(|error| Failure::new(&cannot, error, next))
}

fn found(node: String, mesh: Result<NodeMesh, String>) -> Found {
    let mut problems = Vec::new();
    match &mesh {
        Err(why) => problems.push(format!("it cannot be asked: {why}")),
        Ok(mesh) => {
            for identity in &mesh.identities {
                let left = identity.ends_in_seconds;
                if left < 0 {
                    problems.push(format!(
                        "the certificate of {} ended {} ago: calls as it are refused; look at the node's clock and at CertificateSigningRequests",
                        identity.identity,
                        span(-left)
                    ));
                } else if left < ENDS_SOON_SECONDS {
                    problems.push(format!(
                        "the certificate of {} ends in {} and was not renewed; look at CertificateSigningRequests",
                        identity.identity,
                        span(left)
                    ));
                }
            }
            if mesh.identities.is_empty() {
                problems.push("it has no certificate: no call leaves or reaches it".to_owned());
            }
            if mesh.table_generation == 0 {
                problems.push("it has not heard of any Service yet: no call finds one".to_owned());
            }
            if mesh.edges_overflowed > 0 {
                problems.push(format!(
                    "{} times there was no room for an edge beside {} others: their calls are counted under overflow",
                    mesh.edges_overflowed, mesh.edges_limit
                ));
            }
        }
    }
    Found {
        node,
        mesh,
        problems,
    }
}

/// Nodes that know fewer Services than others are behind.
fn compare(found: &mut [Found]) {
    let known = found.iter().filter_map(|found| found.mesh.as_ref().ok());
    let most = known.map(|mesh| mesh.services).max().unwrap_or_default();
    for one in found {
        if let Ok(mesh) = &one.mesh
            && mesh.services < most
        {
            one.problems.push(format!(
                "it knows {} Services where another node knows {most}: it is behind, or has just started",
                mesh.services
            ));
        }
    }
}

fn span(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or_default();
    weft_api::time::short_duration(std::time::Duration::from_secs(seconds))
}

fn value(found: &[Found]) -> Value {
    let nodes = found.iter().map(|found| {
        json!({
            "node": found.node,
            "mesh": found.mesh.as_ref().ok(),
            "problems": found.problems,
        })
    });
    json!({"nodes": nodes.collect::<Vec<_>>()})
}

fn text(found: &[Found]) -> String {
    let head = [
        "NODE",
        "SERVICES",
        "ENDPOINTS",
        "EJECTED",
        "EDGES",
        "CERTIFICATES",
        "NEXT END",
        "WATCHED BY",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in found {
        let Ok(mesh) = &one.mesh else {
            rows.push(vec![one.node.clone(), "?".to_owned()]);
            continue;
        };
        let next = mesh.identities.iter().map(|one| one.ends_in_seconds).min();
        rows.push(vec![
            one.node.clone(),
            mesh.services.to_string(),
            mesh.endpoints.to_string(),
            mesh.ejected.to_string(),
            format!("{}/{}", mesh.edges, mesh.edges_limit),
            mesh.identities.len().to_string(),
            next.map_or("-".to_owned(), |left| span(left.max(0))),
            mesh.watches.to_string(),
        ]);
    }
    let mut text = lines(&rows, &mut Vec::new());
    let problems = found.iter().flat_map(|found| {
        let node = &found.node;
        found
            .problems
            .iter()
            .map(move |told| format!("{node}: {told}\n"))
    });
    let problems: String = problems.collect();
    if problems.is_empty() {
        text.push_str("\nThe mesh is well.\n");
    } else {
        text.push('\n');
        text.push_str(&problems);
    }
    // What nodes say may be anything.
    text.split_inclusive('\n')
        .map(|line| printable(line.trim_end_matches('\n')) + "\n")
        .collect()
}

/// # Errors
/// What the server or the node says.
pub(super) async fn config(client: &kube::Client, args: &ConfigArgs) -> anyhow::Result<()> {
    let mesh = standing(client, &args.node, args.service.as_deref()).await?;
    let text = match args.output {
        Form::Json => pretty(&serde_json::to_value(&mesh)?),
        Form::Text => config_text(&mesh),
    };
    Ok(stdout::text(&text)?)
}

fn config_text(mesh: &NodeMesh) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "node {}: table {}, {} Services, {} endpoints, {} left alone",
        mesh.node, mesh.table_generation, mesh.services, mesh.endpoints, mesh.ejected
    );
    for identity in &mesh.identities {
        let left = identity.ends_in_seconds;
        let ends = match left {
            0.. => format!("ends in {}", span(left)),
            over => format!("ended {} ago", span(-over)),
        };
        let _ = writeln!(out, "certificate {} {ends}", printable(&identity.identity));
    }
    for port in &mesh.ports {
        let by = if port.routed { ", by routes" } else { "" };
        let _ = writeln!(out, "port {}{by}:", port.port);
        for endpoint in &port.endpoints {
            let state = if endpoint.ejected {
                "left alone"
            } else {
                "in use"
            };
            let _ = writeln!(
                out,
                "  {} {} on {}: {state}, {} calls unanswered",
                printable(&endpoint.pod),
                endpoint.address,
                printable(&endpoint.node),
                endpoint.pending
            );
        }
        if port.endpoints.is_empty() {
            out.push_str("  no endpoint\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use weft_call::standing::{EndpointStanding, IdentityStanding, PortStanding};

    use super::*;

    fn mesh(services: usize, ends: &[i64]) -> NodeMesh {
        let identities = ends.iter().map(|ends| IdentityStanding {
            identity: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
            ends_in_seconds: *ends,
        });
        NodeMesh {
            node: "a".to_owned(),
            table_generation: 7,
            services,
            endpoints: 9,
            edges: 3,
            edges_limit: 4096,
            identities: identities.collect(),
            ..NodeMesh::default()
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_a_next_step() {
        let mut all = vec![
            found("a".to_owned(), Ok(mesh(12, &[80_000]))),
            found("b".to_owned(), Ok(mesh(11, &[-90, 600]))),
            found(
                "c".to_owned(),
                Ok(NodeMesh {
                    edges_overflowed: 5,
                    ..mesh(12, &[])
                }),
            ),
            found("d".to_owned(), Err("connection refused".to_owned())),
        ];
        compare(&mut all);
        insta::assert_snapshot!(text(&all), @r"
        NODE   SERVICES   ENDPOINTS   EJECTED   EDGES    CERTIFICATES   NEXT END   WATCHED BY
        a      12         9           0         3/4096   1              22h        0
        b      11         9           0         3/4096   2              0s         0
        c      12         9           0         3/4096   0              -          0
        d      ?

        b: the certificate of spiffe://cluster.local/ns/shop/sa/web ended 90s ago: calls as it are refused; look at the node's clock and at CertificateSigningRequests
        b: the certificate of spiffe://cluster.local/ns/shop/sa/web ends in 10m and was not renewed; look at CertificateSigningRequests
        b: it knows 11 Services where another node knows 12: it is behind, or has just started
        c: it has no certificate: no call leaves or reaches it
        c: 5 times there was no room for an edge beside 4096 others: their calls are counted under overflow
        d: it cannot be asked: connection refused
        ");
        let well = [found("a".to_owned(), Ok(mesh(12, &[80_000])))];
        assert!(text(&well).ends_with("\nThe mesh is well.\n"));
        assert_eq!(value(&well)["nodes"][0]["problems"], json!([]));
    }

    #[test]
    fn what_a_node_goes_by() {
        let endpoint = |pod: &str, ejected| EndpointStanding {
            pod: pod.to_owned(),
            address: "10.42.0.7:8080".to_owned(),
            node: "b".to_owned(),
            ejected,
            pending: 2,
        };
        let mesh = NodeMesh {
            ports: vec![
                PortStanding {
                    port: 80,
                    routed: true,
                    endpoints: vec![endpoint("pay-1", false), endpoint("pay-2", true)],
                },
                PortStanding {
                    port: 81,
                    ..PortStanding::default()
                },
            ],
            ..mesh(12, &[7200, -60])
        };
        insta::assert_snapshot!(config_text(&mesh), @r"
        node a: table 7, 12 Services, 9 endpoints, 0 left alone
        certificate spiffe://cluster.local/ns/shop/sa/web ends in 120m
        certificate spiffe://cluster.local/ns/shop/sa/web ended 60s ago
        port 80, by routes:
          pay-1 10.42.0.7:8080 on b: in use, 2 calls unanswered
          pay-2 10.42.0.7:8080 on b: left alone, 2 calls unanswered
        port 81:
          no endpoint
        ");
    }
}
