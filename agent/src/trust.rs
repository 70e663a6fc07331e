//! Which authorities of the cluster this node trusts, as they are now.
//!
//! A node begins with those that it was given to join by. It asks the server for all of them at every look ([`LOOK_EVERY`]), trusts what the server
//! says, and keeps that in its data folder, so that it finds its cluster again after a restart although the authority that it joined by was
//! followed by another. When another one signs than before, every certificate of this node is made anew; once all are, the node says so in an
//! annotation of its Node, and the cluster may forget the older ones.
//!
//! Invariants: nothing is trusted that no server of the cluster said, whose certificate leads to what was trusted before; an answer that names
//! nobody changes nothing; other authorities to join by put an end to what was kept.
//! Left to others: making certificates anew (`identity.rs`), checking others' (`weft_mesh`, `http.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_api::annotation;
use weft_mesh::Mesh;

use crate::identity::{Chain, Link};

/// Where the authorities are told.
const PATH: &str = "/weft/v1/roots";
/// How often they are asked for: a request of a kilobyte.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// The first look comes within this much of the beginning, so that nodes that start together do not ask together.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// Authorities that are taken in; a server has fewer.
const AUTHORITIES_MAX: usize = 16;
/// What was trusted last.
const FILE: &str = "roots.json";

/// The authorities, at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// Never empty.
    pub authorities: Vec<CertificateDer<'static>>,
    /// The name of the one that signs, once a server told it.
    pub signs: Option<String>,
    /// Grows when all certificates are to be made anew.
    pub renewal: u64,
}

/// Who holds certificates of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Node,
    Serving,
    Workloads,
}

/// What this node trusts. Clones share it.
#[derive(Clone)]
pub struct Trust {
    inner: Arc<Inner>,
}

struct Inner {
    now: watch::Sender<Arc<Trusted>>,
    /// What of [`Trusted::renewal`] each holder has done.
    done: [AtomicU64; 3],
    /// Where it is kept, and by which authorities this node joined.
    kept: Option<(PathBuf, String)>,
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    joined_by: String,
    /// PEM.
    authorities: Vec<String>,
}

/// What a server says.
#[derive(Deserialize)]
struct Told {
    roots: Vec<Root>,
}

#[derive(Deserialize)]
struct Root {
    id: String,
    certificate: String,
    signs: bool,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust")
    }
}

impl Trust {
    /// Trusts `given`, which is not empty, or, where this node joined by just these, what it trusted last; that is kept in `folder`.
    pub fn taken_up(folder: &Path, given: Vec<CertificateDer<'static>>) -> Self {
        let joined_by = digest(&given);
        let file = folder.join(FILE);
        let kept = read(&file).filter(|kept| kept.joined_by == joined_by);
        let kept = kept.and_then(|kept| certificates(kept.authorities.iter().map(String::as_str)));
        Self::of(kept.unwrap_or(given), Some((file, joined_by)))
    }

    /// Trusts `authorities`, and keeps nothing.
    pub fn given(authorities: Vec<CertificateDer<'static>>) -> Self {
        Self::of(authorities, None)
    }

    fn of(authorities: Vec<CertificateDer<'static>>, kept: Option<(PathBuf, String)>) -> Self {
        let trusted = Trusted {
            authorities,
            signs: None,
            renewal: 0,
        };
        Self {
            inner: Arc::new(Inner {
                now: watch::Sender::new(Arc::new(trusted)),
                done: Default::default(),
                kept,
            }),
        }
    }

    /// What is trusted now.
    pub fn now(&self) -> Arc<Trusted> {
        self.inner.now.borrow().clone()
    }

    /// That, and each change of it.
    pub fn changes(&self) -> watch::Receiver<Arc<Trusted>> {
        self.inner.now.subscribe()
    }

    /// `holder` has made its certificates anew.
    pub fn renewed(&self, holder: Holder, renewal: u64) {
        if let Some(done) = self.inner.done.get(holder as usize) {
            done.fetch_max(renewal, Ordering::AcqRel);
        }
    }

    /// Follows the server's authorities until `shutdown`.
    pub async fn run(self, link: Link, mesh: Mesh, node: String, shutdown: CancellationToken) {
        let mut pause = FIRST_WITHIN.mul_f64(rand::random::<f64>());
        let mut said: Option<String> = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = LOOK_EVERY;
            match ask(&link).await {
                Ok(told) => self.take(told, &mesh),
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "the cluster's authorities are not told now");
                    continue;
                }
            }
            let now = self.now();
            let done = self.inner.done.iter();
            let is_done = done
                .map(|done| done.load(Ordering::Acquire))
                .all(|done| done >= now.renewal);
            if !is_done {
                // It takes a moment, and is told as soon as it is so.
                pause = FIRST_WITHIN;
            } else if said != now.signs {
                match say(&link, &node, now.signs.as_deref()).await {
                    Ok(()) => said.clone_from(&now.signs),
                    Err(error) => {
                        tracing::debug!(error = %Chain(&error), "which authority this node's certificates are of is told later");
                    }
                }
            }
        }
    }

    /// Trusts what a server says, if it says anything.
    fn take(&self, told: Told, mesh: &Mesh) {
        let signs = told.roots.iter().find(|root| root.signs);
        let Some(signs) = signs.map(|root| root.id.clone()) else {
            return;
        };
        let pem = told.roots.iter().map(|root| root.certificate.as_str());
        let Some(authorities) = certificates(pem.take(AUTHORITIES_MAX)) else {
            tracing::warn!(
                "the server names authorities that cannot be read; this node goes on with those of before"
            );
            return;
        };
        let before = self.now();
        let is_another = match &before.signs {
            Some(before) => *before != signs,
            // Whose certificates this node took up is not known; of one there is no question.
            None => authorities.len() > 1,
        };
        let trusted = Trusted {
            authorities,
            signs: Some(signs),
            renewal: before.renewal + u64::from(is_another),
        };
        if *before == trusted {
            return;
        }
        if before.authorities != trusted.authorities {
            if let Err(error) = mesh.identities().set_roots(&trusted.authorities) {
                tracing::warn!(%error, "the server names an authority that is none; this node goes on with those of before");
                return;
            }
            if let Some((file, joined_by)) = &self.inner.kept
                && let Err(error) = write(file, joined_by, &told.roots)
            {
                tracing::warn!(%error, file = %file.display(), "what this node trusts is not kept");
            }
            tracing::info!(
                trusted = trusted.authorities.len(),
                signs = trusted.signs,
                "the cluster's authorities are others"
            );
        }
        self.inner.now.send_replace(Arc::new(trusted));
    }
}

/// All of them, or none where one cannot be read or there is none.
fn certificates<'p>(pem: impl Iterator<Item = &'p str>) -> Option<Vec<CertificateDer<'static>>> {
    let read: Option<Vec<_>> = pem
        .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok())
        .collect();
    read.filter(|read| !read.is_empty())
}

fn digest(authorities: &[CertificateDer<'_>]) -> String {
    let mut digest = Sha256::new();
    for authority in authorities {
        digest.update(authority);
    }
    let digest = digest.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(file: &Path) -> Option<Kept> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

fn write(file: &Path, joined_by: &str, roots: &[Root]) -> std::io::Result<()> {
    let kept = Kept {
        joined_by: joined_by.to_owned(),
        authorities: roots.iter().map(|root| root.certificate.clone()).collect(),
    };
    let beside = file.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec(&kept)?)?;
    std::fs::File::open(&beside)?.sync_all()?;
    std::fs::rename(&beside, file)
}

async fn ask(link: &Link) -> Result<Told, kube::Error> {
    let request = http::Request::get(PATH).body(Vec::new());
    let request = request.map_err(kube::Error::HttpError)?;
    link.client().request(request).await
}

/// Says of which authority all certificates of this node are.
async fn say(link: &Link, node: &str, signs: Option<&str>) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(link.client());
    let patch = serde_json::json!({"metadata": {"annotations": {annotation::ROOT: signs}}});
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
    nodes
        .patch_metadata(node, &parameters, &patch)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(name: &str) -> String {
        let mut parameters = rcgen::CertificateParams::default();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        parameters.self_signed(&key).expect("an authority").pem()
    }

    fn told(roots: &[(&str, &str, bool)]) -> Told {
        let root = |(id, certificate, signs): &(&str, &str, bool)| Root {
            id: (*id).to_owned(),
            certificate: (*certificate).to_owned(),
            signs: *signs,
        };
        Told {
            roots: roots.iter().map(root).collect(),
        }
    }

    #[tokio::test]
    async fn a_node_follows_keeps_and_begins_anew_where_it_joins_by_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let mesh = Mesh::builder("a", "cluster.local").build();
        let (first, second, other) = (authority("1"), authority("2"), authority("3"));
        let der = |pem: &str| certificates([pem].into_iter()).expect("a certificate");
        let trust = Trust::taken_up(folder.path(), der(&first));
        let state = |trust: &Trust| {
            let now = trust.now();
            (now.authorities.len(), now.signs.clone(), now.renewal)
        };
        for (said, expected) in [
            // Nothing is to be made anew where there is one.
            (told(&[("1", &first, true)]), (1, Some("1"), 0)),
            (
                told(&[("2", &second, true), ("1", &first, false)]),
                (2, Some("2"), 1),
            ),
            (told(&[]), (2, Some("2"), 1)),
            (told(&[("9", "no certificate", true)]), (2, Some("2"), 1)),
            (told(&[("2", &second, true)]), (1, Some("2"), 1)),
        ] {
            trust.take(said, &mesh);
            let (count, signs, renewal) = expected;
            assert_eq!(state(&trust), (count, signs.map(str::to_owned), renewal));
        }
        let again = Trust::taken_up(folder.path(), der(&first));
        assert_eq!(again.now().authorities, der(&second));
        // It may have been away while another followed.
        again.take(told(&[("3", &other, true), ("2", &second, false)]), &mesh);
        assert_eq!(again.now().renewal, 1);
        let anew = Trust::taken_up(folder.path(), der(&other));
        assert_eq!(anew.now().authorities, der(&other));
    }
}
