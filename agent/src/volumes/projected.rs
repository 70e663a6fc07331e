//! `projected` volumes: several sources of files in one folder, a later one's file in place of an earlier one's of that path.

use super::credentials::TokenWish;
use super::files::{Files, Modes, config_map_named, secret_named};
use super::{config_map, downward_api, secret};
use crate::configuration::{Configuration, References};
use crate::downward::Downward;
use crate::user;
use crate::pod_view::PodView;
use k8s_openapi::api::core::v1::{ProjectedVolumeSource, VolumeProjection};

/// Of a token that belongs to somebody.
const TOKEN_MODE: u32 = 0o600;

/// The source that a component cannot have, by its field; others are served.
pub(super) fn refused(source: &ProjectedVolumeSource) -> Option<&'static str> {
    let mut sources = source.sources.iter().flatten();
    sources.find_map(|source| match source {
        VolumeProjection {
            cluster_trust_bundle: Some(_),
            ..
        } => Some("clusterTrustBundle"),
        VolumeProjection {
            pod_certificate: Some(_),
            ..
        } => Some("podCertificate"),
        _ => None,
    })
}

pub(super) fn references(pod: PodView<'_>, source: &ProjectedVolumeSource) -> References {
    let mut found = References::default();
    for source in source.sources.iter().flatten() {
        let map = source.config_map.iter();
        map.for_each(|map| found.extend(config_map_named(&map.name)));
        let secret = source.secret.iter();
        secret.for_each(|secret| found.extend(secret_named(&secret.name)));
        let token = source.service_account_token.iter();
        found
            .tokens
            .extend(token.map(|token| TokenWish::of(pod, token)));
    }
    found
}

pub(super) fn show(
    source: &ProjectedVolumeSource,
    at: Downward<'_>,
    configuration: &Configuration,
    files: &mut Files,
) -> Result<(), String> {
    let modes = Modes::new(source.default_mode);
    for source in source.sources.iter().flatten() {
        if let Some(map) = &source.config_map {
            let items = map.items.as_deref();
            config_map::show(&map.name, items, map.optional, modes, configuration, files)?;
        }
        if let Some(secret) = &source.secret {
            let items = secret.items.as_deref();
            secret::show(&secret.name, items, secret.optional, modes, configuration, files)?;
        }
        if let Some(downward) = &source.downward_api {
            let items = downward.items.as_deref().unwrap_or_default();
            downward_api::show(items, modes, at, files)?;
        }
        if let Some(source) = &source.service_account_token {
            let token = configuration.tokens.get(&TokenWish::of(at.pod, source));
            let token = token.ok_or("its token was not asked for")?;
            // Nobody else's, where it is said whose the pod is.
            let user = user::common(at.pod);
            let mode = match user.is_some() || user::fs_group(at.pod).is_some() {
                true => TOKEN_MODE,
                false => modes.of(None),
            };
            files.insert_of(&source.path, token.as_bytes(), mode, user.unwrap_or(0))?;
        }
    }
    Ok(())
}
