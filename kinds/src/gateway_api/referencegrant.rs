//! ReferenceGrants. Their constraints are those of their schema.

use std::sync::{Arc, LazyLock};

use crate::Kind;
use crate::columns::Column;

pub static REFERENCE_GRANT: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["refgrant".into()],
        columns: vec![Column::name(), Column::age()],
        ..super::custom("ReferenceGrant", "referencegrants")
    })
});
