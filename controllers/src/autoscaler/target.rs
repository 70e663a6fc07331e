//! What an autoscaler scales: any object with a `scale` subresource.
//!
//! Of every such object [`Scales`] keeps what its Scale would tell, whatever its kind, so that nothing has to be asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use weft_kinds::{Kind, Registry, Subresource, scale};

use super::Autoscaler;
use crate::indexer::Cached;
use crate::view::{Touched, Track, View};

/// The Scale of each object that has one, by its uid.
#[derive(Debug, Default)]
pub struct Scales(BTreeMap<Arc<str>, scale::Scale>);

impl Track for Scales {
    fn notice(&mut self, touched: &Touched, _: bool, _: Timestamp) {
        if !touched.kind.subresources.contains(&Subresource::Scale) {
            return;
        }
        if touched.is_there {
            let scale = scale::of(&touched.kind, touched.object.as_value());
            self.0.insert(Arc::clone(&touched.uid), scale);
        } else {
            self.0.remove(&touched.uid);
        }
    }
}

/// The target of an autoscaler.
pub struct Target<'a> {
    pub kind: Arc<Kind>,
    pub uid: Arc<str>,
    pub scale: &'a scale::Scale,
}

/// Finds what an autoscaler names.
///
/// # Errors
/// Why there is nothing to scale, in Kubernetes' sentence.
pub fn find<'a>(
    view: &'a View,
    kinds: &Registry,
    row: &Cached<Autoscaler>,
) -> Result<Target<'a>, String> {
    let wanted = &row.body.spec.scale_target_ref;
    let version = wanted.api_version.as_deref().unwrap_or_default();
    let mut parts = version.split('/');
    let group = match (parts.next(), parts.next(), parts.next()) {
        (Some(group), Some(_), None) => group,
        (Some(_), None, None) => "",
        _ => return Err(format!("unexpected GroupVersion string: {version}")),
    };
    let kind = kinds
        .by_group_kind(group, &wanted.kind)
        .ok_or_else(|| format!("no matches for kind {:?} in group {group:?}", wanted.kind))?;
    let kind = kind.stored();
    if !kind.subresources.contains(&Subresource::Scale) {
        return Err("the server could not find the requested resource".to_owned());
    }
    let key = row.key.sibling(&wanted.name);
    let found = view.object_of(kind, &key);
    let scale = found.and_then(|found| view.tracked::<Scales>().0.get(&found.meta.uid));
    match (found, scale) {
        (Some(found), Some(scale)) => Ok(Target {
            kind: Arc::clone(kind),
            uid: Arc::clone(&found.meta.uid),
            scale,
        }),
        _ => {
            let resource = match &*kind.group {
                "" => kind.resource.to_string(),
                group => format!("{}.{group}", kind.resource),
            };
            Err(format!("{resource} {:?} not found", wanted.name))
        }
    }
}
