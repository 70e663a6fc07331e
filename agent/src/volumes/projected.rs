//! `projected` volumes: several sources of files in one folder, a later one's file in place of an earlier one's of that path.

use super::certificates::{CertificateWish, Credential};
use super::credentials::TokenWish;
use super::files::{Files, Modes, config_map_named, secret_named};
use super::{config_map, downward_api, secret, trust_bundle};
use crate::configuration::{Configuration, References};
use crate::downward::Downward;
use crate::pod_view::PodView;
use crate::user;
use k8s_openapi::api::core::v1::ProjectedVolumeSource;

/// Of a token, a key or a certificate that belongs to somebody.
const CREDENTIAL_MODE: u32 = 0o600;

pub(super) fn references(
    pod: PodView<'_>,
    volume: &str,
    source: &ProjectedVolumeSource,
) -> References {
    let mut found = References::default();
    for (at, source) in source.sources.iter().flatten().enumerate() {
        found.trust_bundles |= source.cluster_trust_bundle.is_some();
        let certificate = source.pod_certificate.iter();
        found
            .certificates
            .extend(certificate.map(|source| CertificateWish::of(pod, volume, at, source)));
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
    volume: &str,
    source: &ProjectedVolumeSource,
    at: Downward<'_>,
    configuration: &Configuration,
    files: &mut Files,
) -> Result<(), String> {
    let modes = Modes::new(source.default_mode);
    let user = user::common(at.pod);
    // Nobody else's, where it is said whose the pod is.
    let credential = match user.is_some() || user::fs_group(at.pod).is_some() {
        true => CREDENTIAL_MODE,
        false => modes.of(None),
    };
    let user = user.unwrap_or(0);
    for (index, source) in source.sources.iter().flatten().enumerate() {
        if let Some(map) = &source.config_map {
            let items = map.items.as_deref();
            config_map::show(&map.name, items, map.optional, modes, configuration, files)?;
        }
        if let Some(secret) = &source.secret {
            let items = secret.items.as_deref();
            secret::show(
                &secret.name,
                items,
                secret.optional,
                modes,
                configuration,
                files,
            )?;
        }
        if let Some(downward) = &source.downward_api {
            let items = downward.items.as_deref().unwrap_or_default();
            downward_api::show(items, modes, at, files)?;
        }
        if let Some(source) = &source.service_account_token {
            let token = configuration.tokens.get(&TokenWish::of(at.pod, source));
            let token = token.ok_or("its token was not asked for")?;
            files.insert_of(&source.path, token.as_bytes(), credential, user)?;
        }
        if let Some(source) = &source.cluster_trust_bundle {
            let text = trust_bundle::text(source, configuration)?;
            files.insert_of(&source.path, text.as_bytes(), credential, user)?;
        }
        if let Some(source) = &source.pod_certificate {
            let wish = CertificateWish::of(at.pod, volume, index, source);
            let found = configuration.certificates.get(&wish);
            let Credential { key, chain } = found.ok_or("its certificate was not asked for")?;
            let whole = format!("{key}{chain}");
            for (path, text) in [
                (&source.credential_bundle_path, &whole),
                (&source.key_path, key),
                (&source.certificate_chain_path, chain),
            ] {
                if let Some(path) = path.as_deref().filter(|path| !path.is_empty()) {
                    files.insert_of(path, text.as_bytes(), credential, user)?;
                }
            }
        }
    }
    Ok(())
}
