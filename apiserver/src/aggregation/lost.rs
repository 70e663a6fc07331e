//! Which APIServices are not available, and how often that came about, under the names that Kubernetes' aggregator has for it.
//!
//! Invariant: names and reasons that are counted apart are no more than `SERIES_MAX`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use parking_lot::Mutex;
use serde_json::Value;
use weft_kinds::lens::{items, text};

use super::Registered;

const SERIES_MAX: usize = 1024;

/// How often APIServices stopped being available since this server began, by their name and the reason that was given.
#[derive(Debug, Default)]
pub(super) struct Lost(Mutex<BTreeMap<(String, String), u64>>);

impl Lost {
    /// Counts that an APIService is not available any more, for the reason that its status has.
    pub(super) fn count(&self, name: &str, object: &Value) {
        let mut conditions = items(object, "/status/conditions").iter();
        let available = conditions.find(|one| text(one, "/type") == "Available");
        let reason = available.map_or("", |one| text(one, "/reason"));
        let word = !reason.is_empty() && reason.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let reason = if word { reason } else { "UnknownReason" };
        let key = (name.to_owned(), reason.to_owned());
        let mut counts = self.0.lock();
        if counts.len() < SERIES_MAX || counts.contains_key(&key) {
            *counts.entry(key).or_default() += 1;
        }
    }

    /// All of it as Prometheus text.
    pub(super) fn text(&self, services: &Registered) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out, services);
        out
    }

    fn write(&self, out: &mut String, services: &Registered) -> fmt::Result {
        const NOW: &str = "aggregator_unavailable_apiservice";
        writeln!(out, "# HELP {NOW} APIServices that are not available.")?;
        writeln!(out, "# TYPE {NOW} gauge")?;
        for service in services.all() {
            let lost = u8::from(!service.available);
            writeln!(out, "{NOW}{{name=\"{}\"}} {lost}", service.name)?;
        }
        const EVER: &str = "aggregator_unavailable_apiservice_total";
        writeln!(
            out,
            "# HELP {EVER} How often APIServices stopped being available, by the reason."
        )?;
        writeln!(out, "# TYPE {EVER} counter")?;
        for ((name, reason), count) in &*self.0.lock() {
            writeln!(out, "{EVER}{{name=\"{name}\",reason=\"{reason}\"}} {count}")?;
        }
        Ok(())
    }
}
