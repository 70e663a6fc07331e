//! Another authority, twice, while calls are made that nobody may try again: none of them fails, whichever node hears of it first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Request, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use weft_mesh::{Body, Mesh};

use crate::world::{Authority, describe, endpoint, gauge, pod, sa, service, text, workload, world};

const CALLERS: usize = 8;
/// Calls that have to be made between two steps of a rotation.
const CALLS_A_STEP: u64 = 20;

/// Another authority, and it as the one before it signed for it.
fn successor(of: &Authority, name: &str) -> (Authority, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("a root").der().clone();
    let cross = params.signed_by(&key, &of.issuer).expect("signed");
    let cross = cross.der().clone();
    let issuer = Issuer::new(params, key);
    (Authority { issuer, root }, cross)
}

fn renew(mesh: &Mesh, account: &str, by: &Authority, cross: &CertificateDer<'static>) {
    let (mut chain, key) = by.issue(&[&sa(account).to_string()]);
    chain.push(cross.clone());
    let set = mesh.identities().set(sa(account), chain, key);
    set.expect("a matching certificate");
}

#[tokio::test]
async fn the_authority_is_another_twice_under_load_and_no_call_fails() {
    let world = Arc::new(world());
    world.b.attach(pod(2), workload("voting", describe));
    let endpoints = vec![endpoint("voting", 2, "b", world.b_address)];
    world.publish(1, vec![service("voting", endpoints)]);
    let made = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (world, made) = (Arc::clone(&world), Arc::clone(&made));
            tokio::spawn(async move {
                loop {
                    let request = Request::post("http://voting/").body(Body::full("once"));
                    let answered = world.call(request.expect("a request")).await;
                    let (status, line) = match answered {
                        Ok(response) => text(response).await.expect("text"),
                        Err(failure) => return failure.to_string(),
                    };
                    if status != StatusCode::OK || !line.contains("attempt 0") {
                        return line;
                    }
                    made.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let some_calls = || async {
        let until = made.load(Ordering::Relaxed) + CALLS_A_STEP;
        let waited = async {
            while made.load(Ordering::Relaxed) < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waited).await;
        waited.expect("calls go on");
    };

    let mut signs: Option<Authority> = None;
    for (name, first, second) in [
        ("second", (&world.a, "web"), (&world.b, "voting")),
        ("third", (&world.b, "voting"), (&world.a, "web")),
    ] {
        let before = signs.as_ref().unwrap_or(&world.authority);
        let (next, cross) = successor(before, name);
        let both = [next.root.clone(), before.root.clone()];
        for (mesh, account) in [first, second] {
            // The other one has heard of nothing yet.
            mesh.identities().set_roots(&both).expect("roots");
            some_calls().await;
            renew(mesh, account, &next, &cross);
            some_calls().await;
        }
        for (mesh, _) in [second, first] {
            let only = std::slice::from_ref(&next.root);
            mesh.identities().set_roots(only).expect("a root");
            some_calls().await;
        }
        signs = Some(next);
    }

    for caller in callers {
        assert!(!caller.is_finished(), "{:?}", caller.await);
        caller.abort();
    }
    let opened = gauge(&world.b, "weft_mesh_connections_accepted_total");
    assert!(opened > 4, "each step is proven anew: {opened}");
}
