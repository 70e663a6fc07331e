//! What is known of APIServices follows the store, and the documents of those who serve them follow that; on every server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_kinds::API_SERVICE;

use super::ApiService;
use crate::objects::Objects;
use crate::stored;

/// Pause before the store is asked again for a watch that it could not give.
const PAUSE: Duration = Duration::from_millis(20);
/// How often documents are asked for anew, and the longest pause after a failure.
const REFRESH: Duration = Duration::from_secs(60);
/// The first pause after a failure; each further one is twice as long.
const RETRY: Duration = Duration::from_millis(500);
/// Servers that are asked at a time: one has 45 seconds at most.
const ASKED_MAX: usize = 32;

/// When somebody is asked again.
struct Plan {
    service: Arc<ApiService>,
    due: Instant,
    failures: u32,
    asked: bool,
}

/// Who was asked, and whether it answered.
type Asked = (Arc<ApiService>, bool);

impl Objects {
    /// Knows what the APIServices in this server's store say, and what those who serve them tell, until the token is cancelled.
    pub async fn follow_api_services(self, closing: CancellationToken) {
        let prefix = stored::prefix(&API_SERVICE, None);
        let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
        // Dropped with this task, and those that ask with it.
        let mut asked: JoinSet<Asked> = JoinSet::new();
        loop {
            let snapshot = self.store().snapshot();
            self.aggregation().show(&snapshot);
            self.plan_documents(&mut plans);
            let Ok(mut watch) = self.store().watch(prefix.clone(), snapshot.revision()) else {
                // The history moved past the snapshot.
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => continue,
                }
            };
            loop {
                self.ask_who_is_due(&mut plans, &mut asked);
                let due = plans.values().filter(|plan| !plan.asked);
                let due = due.map(|plan| plan.due).min();
                let due = due.filter(|_| asked.len() < ASKED_MAX);
                tokio::select! {
                    biased;
                    () = closing.cancelled() => return,
                    event = watch.next() => match event {
                        Some(Ok(_)) => {
                            self.aggregation().show(&self.store().snapshot());
                            self.plan_documents(&mut plans);
                        }
                        Some(Err(_)) => break,
                        None => return,
                    },
                    Some(answered) = asked.join_next(), if !asked.is_empty() => {
                        if let Ok((service, answered)) = answered {
                            settle(&mut plans, &service, answered);
                        }
                    }
                    () = until(due) => {}
                }
            }
        }
    }

    /// Whoever is new or has changed is asked at once; whoever is gone is forgotten.
    fn plan_documents(&self, plans: &mut BTreeMap<String, Plan>) {
        let registered = self.api_services();
        let others = || registered.all().filter(|one| one.service.is_some());
        let served: BTreeSet<&str> = others().map(|one| one.name.as_str()).collect();
        plans.retain(|name, _| served.contains(name.as_str()));
        self.aggregation().documents().keep_only(&served);
        for service in others() {
            let known = plans.get(&service.name);
            if known.is_some_and(|plan| Arc::ptr_eq(&plan.service, service)) {
                continue;
            }
            let plan = Plan {
                service: Arc::clone(service),
                due: Instant::now(),
                failures: 0,
                asked: false,
            };
            plans.insert(service.name.clone(), plan);
        }
    }

    fn ask_who_is_due(&self, plans: &mut BTreeMap<String, Plan>, asked: &mut JoinSet<Asked>) {
        let now = Instant::now();
        for plan in plans.values_mut() {
            if plan.asked || plan.due > now || asked.len() >= ASKED_MAX {
                continue;
            }
            plan.asked = true;
            let (objects, service) = (self.clone(), Arc::clone(&plan.service));
            asked.spawn(async move {
                let answered = objects.fetch_documents(&service).await;
                (service, answered)
            });
        }
    }
}

fn settle(plans: &mut BTreeMap<String, Plan>, service: &Arc<ApiService>, answered: bool) {
    // One that has changed meanwhile is asked as what it is now.
    let Some(plan) = plans
        .get_mut(&service.name)
        .filter(|plan| Arc::ptr_eq(&plan.service, service))
    else {
        return;
    };
    plan.asked = false;
    let pause = match answered {
        true => {
            plan.failures = 0;
            REFRESH
        }
        false => {
            let doubled = RETRY.saturating_mul(1 << plan.failures.min(10));
            plan.failures = plan.failures.saturating_add(1);
            doubled.min(REFRESH)
        }
    };
    plan.due = Instant::now() + pause;
}

/// Never, where there is nothing to wait for.
pub(super) async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
