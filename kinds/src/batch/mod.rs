//! `batch`: work that ends.

mod cronjob;
mod job;
mod schedule;

pub use cronjob::{CRON_JOB, CRON_JOB_V1BETA1};
pub use job::JOB;
pub use schedule::{Schedule, zone_named};
