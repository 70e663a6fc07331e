//! ServiceAccounts: their metadata is all there is to judge. Who has a token of one, is that account.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::name_and_age;
use crate::lens::items_mut;
use crate::strategy::Strategy;
use crate::{Kind, Subresource};

pub static SERVICE_ACCOUNT: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["sa".into()],
        subresources: vec![Subresource::Token],
        columns: name_and_age(),
        strategy: Arc::new(ServiceAccounts),
        ..Kind::new("", "v1", "ServiceAccount", "serviceaccounts")
    })
});

struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    /// Of a Secret that an account names, its name is all that is kept.
    fn default(&self, value: &mut Value) {
        for secret in items_mut(value, "/secrets") {
            if let Some(map) = secret.as_object_mut() {
                map.retain(|field, _| field == "name");
            }
        }
    }
}
