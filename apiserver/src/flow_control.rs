//! Priority and fairness: which requests are at work at a time, by FlowSchemas and PriorityLevelConfigurations.
//!
//! A request that was authenticated and authorised is classified ([`FlowControl::classify`]): the first FlowSchema that fits names its level and its flow. It
//! takes seats of its level ([`FlowControl::seat`]), at once or after it waited in a queue of its flow, a short while and with nothing but its head in
//! memory; else it is told to come back. So no flood of one level takes a seat from another but what that lends, and within a level no flow
//! takes more than its part. Each server has levels of its own, by the objects in its store ([`follow`]), and until it has read
//! them by what every cluster has.
//!
//! Decided in pure code: which schema ([`schema`]), how many seats a level has ([`seats`]) and a request takes ([`width`]), whose turn it is
//! ([`queues`]). Here is who owns that and who is woken.
//!
//! Invariants: every level, queue and wait is bounded; seats are given back when a [`Seat`] goes, and a place in a queue when its request
//! does; a request that is classified waits for one lock of its level only, for some microseconds. Left to others: how long seats are held
//! (`http::deadline`).

mod dump;
mod follow;
mod measure;
mod queues;
mod schema;
mod seats;
mod width;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weft_api::status::StatusError;
use weft_kinds::flowcontrol;
use weft_kinds::lens::{integer, items, object, text};

pub(crate) use self::dump::{LEVELS_PATH, QUEUES_PATH};
use self::measure::{Counts, Rejected};
use self::queues::{Arrival, Queues, Refusal, Shape, Ticket, Turn};
use self::schema::{About, Schema};
use self::seats::{Limits, Terms, Wants};
use crate::caller::Caller;
use crate::request::RequestInfo;

/// Seats of a server: as Kubernetes' `--max-requests-inflight` (400) and `--max-mutating-requests-inflight` (200) together.
const SEATS: u32 = 600;
/// Seats of the level without a limit, beside those. Kubernetes serves all of it at once; here an administrator's own flood waits for itself.
const EXEMPT_SEATS: u32 = 400;
/// Where those wait who find no seat of that level: 2,048 requests of one administrator.
const EXEMPT_SHAPE: Shape = Shape {
    queues: 64,
    hand: 8,
    length: 256,
};
/// Longest wait for a seat: a quarter of what a request may take, as in Kubernetes.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// Seconds after which a request that found no seat is worth another try.
const RETRY_AFTER_SECONDS: u32 = 1;

const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Orders the requests of one server. Clones are the same.
#[derive(Clone)]
pub struct FlowControl(Arc<Inner>);

struct Inner {
    began: Instant,
    plan: ArcSwap<Plan>,
}

/// What is in force.
struct Plan {
    /// In the order that they are asked in. The last takes everything.
    schemas: Vec<Arc<Class>>,
    levels: BTreeMap<String, Arc<Level>>,
}

/// A schema with its level, as requests are counted by it.
struct Class {
    schema: Schema,
    level: Arc<Level>,
    /// Of the schema's object and its level's; none for those that no object says.
    uids: Option<(HeaderValue, HeaderValue)>,
    counts: Arc<Counts>,
}

/// A level, for as long as it has requests. One that is changed keeps them.
struct Level {
    name: String,
    /// The seats of its widest request.
    widest: AtomicU32,
    state: Mutex<LevelState>,
}

struct LevelState {
    queues: Queues<oneshot::Sender<Turn>>,
    terms: Terms,
    shape: Option<Shape>,
    limits: Limits,
    wants: Wants,
    /// What [`seats::adjusted`] gave last; the same as the queues' seats, but for the level without a limit.
    given: u32,
}

/// What a request asks of its level.
pub(crate) struct Ask {
    class: Arc<Class>,
    /// Of which of the schema's flows it is.
    flow: u64,
    seats: u32,
    watch: bool,
}

/// Seats of one request; dropping it gives them back.
#[must_use]
pub(crate) struct Seat {
    class: Arc<Class>,
    turn: Turn,
    flow: FlowControl,
    watch: bool,
}

/// One who waits; dropping it takes him out of his queue.
struct Waiter<'a> {
    flow: &'a FlowControl,
    ask: &'a Ask,
    ticket: Ticket,
    told: oneshot::Receiver<Turn>,
    since: Instant,
    over: bool,
}

impl Default for FlowControl {
    fn default() -> Self {
        let began = Instant::now();
        let objects: Vec<Value> = flowcontrol::pieces().map(|piece| piece.object).collect();
        Self(Arc::new(Inner {
            plan: ArcSwap::from_pointee(Plan::of(&objects, &Plan::none(), 0)),
            began,
        }))
    }
}

impl fmt::Debug for FlowControl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FlowControl")
    }
}

impl FlowControl {
    /// In microseconds since the server began.
    fn now(&self) -> u64 {
        let passed = self.0.began.elapsed().as_micros();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    /// By which schema a request is served, and how many seats it takes; none only where there are no schemas, which does not happen. `stored` is how
    /// many objects of its kind there are, and is asked of lists only.
    pub(crate) fn classify(
        &self,
        caller: &Caller,
        info: &RequestInfo,
        stored: impl FnOnce() -> usize,
    ) -> Option<Ask> {
        let plan = self.0.plan.load();
        let about = About::of(info);
        let mut schemas = plan.schemas.iter();
        let found = schemas.find(|class| class.schema.fits(caller, about));
        // The last one is about everybody, but for who is in no group at all.
        let class = found.or_else(|| plan.schemas.last())?;
        let widest = class.level.widest.load(Ordering::Relaxed);
        Some(Ask {
            flow: class.schema.flow(caller, about),
            seats: width::of(info, widest, stored),
            watch: info.verb == "watch",
            class: Arc::clone(class),
        })
    }

    /// The seats of a request.
    ///
    /// # Errors
    /// 429 when there are none and no room to wait, or none came free in time.
    pub(crate) async fn seat(&self, ask: &Ask) -> Result<Seat, StatusError> {
        let counts = &ask.class.counts;
        counts.estimated(ask.seats);
        let mut told = None;
        let arrival = {
            let mut state = ask.class.level.state.lock();
            let now = self.now();
            state.queues.arrive(ask.flow, ask.seats, now, || {
                let (tell, wait) = oneshot::channel();
                told = Some(wait);
                tell
            })
        };
        match (arrival, told) {
            (Arrival::Seated(turn), _) => {
                counts.waited(Duration::ZERO, true);
                Ok(self.begin(ask, turn))
            }
            (Arrival::Waits(ticket), Some(told)) => {
                counts.queued(ask.seats);
                let waiter = Waiter {
                    flow: self,
                    ask,
                    ticket,
                    told,
                    since: Instant::now(),
                    over: false,
                };
                waiter.wait().await
            }
            (Arrival::Refused(why), _) => Err(ask.reject(match why {
                Refusal::QueueFull => Rejected::QueueFull,
                Refusal::NoSeat => Rejected::NoSeat,
            })),
            (Arrival::Waits(_), None) => Err(ask.reject(Rejected::Cancelled)),
        }
    }

    fn begin(&self, ask: &Ask, turn: Turn) -> Seat {
        ask.class.counts.began(turn.seats);
        Seat {
            class: Arc::clone(&ask.class),
            turn,
            flow: self.clone(),
            watch: ask.watch,
        }
    }

    /// What is in force from now on: these objects, and those of every cluster that are not among them but have to be.
    fn apply(&self, objects: &[Value]) {
        let now = self.now();
        let next = Plan::of(objects, &self.0.plan.load(), now);
        self.0.plan.store(Arc::new(next));
        self.adjust();
    }

    /// Deals the seats anew, by what was asked for since the last time.
    fn adjust(&self) {
        let plan = self.0.plan.load();
        let now = self.now();
        let mut all = Vec::new();
        for level in plan.levels.values() {
            let mut state = level.state.lock();
            let seen = state.queues.take_demand(now);
            state.wants.saw(seen);
            all.push(seats::Level {
                exempt: state.terms.exempt,
                limits: state.limits,
                wants: state.wants,
            });
        }
        let (seats, fair) = seats::adjusted(&all);
        tracing::trace!(fair, "dealt seats");
        for (level, seats) in plan.levels.values().zip(seats) {
            level.state.lock().give(seats, now);
        }
    }
}

#[cfg(test)]
impl FlowControl {
    /// How many seats of a level are taken.
    pub(crate) fn taken(&self, level: &str) -> u32 {
        let plan = self.0.plan.load();
        let level = plan.levels.get(level);
        level.map_or(0, |level| level.state.lock().queues.taken())
    }
}

/// What a configuration says of a level; none for one that contradicts itself.
fn terms_of(value: &Value) -> Option<(Terms, Option<Shape>)> {
    let number = |pointer: &str, default: u32| match integer(value, pointer) {
        Some(number) => u32::try_from(number.max(0)).unwrap_or(u32::MAX),
        None => default,
    };
    let name = text(value, "/metadata/name");
    let kind = text(value, "/spec/type");
    let (of, shares, exempt) = match kind {
        "Exempt" => ("/spec/exempt", 0, true),
        "Limited" => ("/spec/limited", 30, false),
        _ => return None,
    };
    object(value, of)?;
    if exempt != (name == EXEMPT) {
        return None;
    }
    let at = |member: &str| format!("{of}/{member}");
    let borrowing = at("borrowingLimitPercent");
    let terms = Terms {
        exempt,
        shares: number(&at("nominalConcurrencyShares"), shares),
        lendable_percent: number(&at("lendablePercent"), 0).min(100),
        borrowing_limit_percent: integer(value, &borrowing).map(|_| number(&borrowing, 0)),
    };
    let queuing = |member: &str| at(&format!("limitResponse/queuing/{member}"));
    let shape = match text(value, &at("limitResponse/type")) {
        "Queue" => {
            let queues = number(&queuing("queues"), 64).max(1);
            Some(Shape {
                queues,
                hand: number(&queuing("handSize"), 8).clamp(1, queues),
                length: number(&queuing("queueLengthLimit"), 50),
            })
        }
        _ => None,
    };
    Some((terms, shape))
}

/// Levels without queues.
const NO_QUEUES: Shape = Shape {
    queues: 0,
    hand: 0,
    length: 0,
};

impl Plan {
    fn none() -> Self {
        Self {
            schemas: Vec::new(),
            levels: BTreeMap::new(),
        }
    }

    /// The plan of these objects. Levels that were there before keep their requests.
    fn of(objects: &[Value], before: &Self, now: u64) -> Self {
        let imagined = flowcontrol::mandatory();
        let of_kind = |kind: &'static str| {
            let all = objects.iter().chain(&imagined);
            all.filter(move |object| text(object, "/kind") == kind)
        };
        let mut configurations: BTreeMap<&str, (&Value, Terms, Option<Shape>)> = BTreeMap::new();
        for value in of_kind("PriorityLevelConfiguration") {
            if let Some((terms, shape)) = terms_of(value) {
                let name = text(value, "/metadata/name");
                // What is imagined comes last, and counts where no object is.
                configurations.entry(name).or_insert((value, terms, shape));
            }
        }
        let terms: Vec<Terms> = configurations.values().map(|one| one.1).collect();
        let limits = seats::limits(SEATS, &terms);
        let mut levels = BTreeMap::new();
        for ((name, (_, terms, shape)), limits) in configurations.iter().zip(limits) {
            let level = match before.levels.get(*name) {
                Some(level) => {
                    level.state.lock().configure(*terms, *shape, limits, now);
                    Arc::clone(level)
                }
                None => Arc::new(Level {
                    name: (*name).to_owned(),
                    widest: AtomicU32::new(1),
                    state: Mutex::new(LevelState::new(*terms, *shape, limits, now)),
                }),
            };
            let widest = width::widest(limits.nominal, shape.map(|shape| shape.hand));
            level.widest.store(widest, Ordering::Relaxed);
            levels.insert((*name).to_owned(), level);
        }
        let mut schemas: BTreeMap<(i64, String), Arc<Class>> = BTreeMap::new();
        let mut seen = Vec::new();
        for value in of_kind("FlowSchema") {
            let schema = Schema::of(value);
            if seen.contains(&schema.name) {
                continue;
            }
            let Some(level) = levels.get(&schema.level) else {
                continue;
            };
            seen.push(schema.name.clone());
            let uid = |value: &Value| {
                let uid = Some(text(value, "/metadata/uid")).filter(|uid| !uid.is_empty())?;
                HeaderValue::from_str(uid).ok()
            };
            let of_level = configurations.get(schema.level.as_str());
            let uids = uid(value).zip(of_level.and_then(|(value, ..)| uid(value)));
            let same = before.schemas.iter().find(|class| {
                class.schema.name == schema.name && class.schema.level == schema.level
            });
            let class = Class {
                level: Arc::clone(level),
                counts: same
                    .map(|class| Arc::clone(&class.counts))
                    .unwrap_or_default(),
                uids,
                schema,
            };
            let at = (class.schema.precedence, class.schema.name.clone());
            schemas.insert(at, Arc::new(class));
        }
        let schemas = schemas.into_values().collect();
        Self { schemas, levels }
    }
}

impl LevelState {
    fn new(terms: Terms, shape: Option<Shape>, limits: Limits, now: u64) -> Self {
        let seats = match terms.exempt {
            true => EXEMPT_SEATS,
            false => limits.initial(),
        };
        let queues = Queues::new(Self::shape(terms, shape), seats, now);
        Self {
            queues,
            terms,
            shape,
            limits,
            wants: Wants::default(),
            given: seats,
        }
    }

    fn shape(terms: Terms, shape: Option<Shape>) -> Shape {
        match terms.exempt {
            true => EXEMPT_SHAPE,
            false => shape.unwrap_or(NO_QUEUES),
        }
    }

    fn configure(&mut self, terms: Terms, shape: Option<Shape>, limits: Limits, now: u64) {
        (self.terms, self.shape, self.limits) = (terms, shape, limits);
        self.give(self.given, now);
    }

    /// So many seats from now on.
    fn give(&mut self, seats: u32, now: u64) {
        self.given = seats;
        let seats = match self.terms.exempt {
            true => EXEMPT_SEATS,
            false => seats,
        };
        let shape = Self::shape(self.terms, self.shape);
        tell(self.queues.reshape(shape, seats, now));
    }
}

/// Whoever got a seat is told while the level is locked: who is not in a queue any more finds his turn.
fn tell(seated: Vec<(oneshot::Sender<Turn>, Turn)>) {
    for (tell, turn) in seated {
        // Nobody lets go of the other end but by leaving the queue under the same lock.
        let _ = tell.send(turn);
    }
}

impl Ask {
    /// Says by which objects a request was served.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        if let Some((schema, level)) = &self.class.uids {
            headers.insert(SCHEMA_UID, schema.clone());
            headers.insert(LEVEL_UID, level.clone());
        }
    }

    fn reject(&self, why: Rejected) -> StatusError {
        let class = &self.class;
        class.counts.rejected(why);
        tracing::debug!(
            schema = class.schema.name,
            level = class.level.name,
            why = why.name(),
            "no seat for a request"
        );
        let sentence = "Too many requests, please try again later.";
        StatusError::too_many_requests(sentence, RETRY_AFTER_SECONDS)
    }
}

impl Waiter<'_> {
    async fn wait(mut self) -> Result<Seat, StatusError> {
        let told = tokio::time::timeout(WAIT_MAX, &mut self.told).await;
        let turn = match told {
            Ok(Ok(turn)) => {
                self.over = true;
                Some(turn)
            }
            _ => self.leave(),
        };
        let counts = &self.ask.class.counts;
        counts.unqueued(self.ask.seats);
        counts.waited(self.since.elapsed(), turn.is_some());
        match turn {
            Some(turn) => Ok(self.flow.begin(self.ask, turn)),
            None => Err(self.ask.reject(Rejected::TimedOut)),
        }
    }

    /// Leaves the queue; the turn, if it came meanwhile.
    fn leave(&mut self) -> Option<Turn> {
        self.over = true;
        let mut state = self.ask.class.level.state.lock();
        let (was_there, seated) = state.queues.give_up(self.ticket, self.flow.now());
        tell(seated);
        match was_there {
            true => None,
            false => self.told.try_recv().ok(),
        }
    }
}

impl Drop for Waiter<'_> {
    /// Its request was given up.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let turn = self.leave();
        let class = &self.ask.class;
        class.counts.unqueued(self.ask.seats);
        class.counts.waited(self.since.elapsed(), false);
        class.counts.rejected(Rejected::Cancelled);
        if let Some(turn) = turn {
            let mut state = class.level.state.lock();
            let seated = state.queues.finish(turn, self.flow.now());
            tell(seated);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = self.flow.now();
        let took = Duration::from_micros(now.saturating_sub(self.turn.at));
        self.class.counts.done(self.turn.seats, took, self.watch);
        let mut state = self.class.level.state.lock();
        tell(state.queues.finish(self.turn, now));
    }
}

/// Which of these FlowSchemas name a level that is not there, as their condition says it: the object, and whether it dangles.
fn dangling(objects: &[Value]) -> impl Iterator<Item = (&Value, bool)> {
    let of_kind = |kind: &'static str| {
        let all = objects.iter();
        all.filter(move |object| text(object, "/kind") == kind)
    };
    let mandatory = [EXEMPT.to_owned(), CATCH_ALL.to_owned()];
    let levels = of_kind("PriorityLevelConfiguration").filter(|value| terms_of(value).is_some());
    let levels: Vec<String> = levels
        .map(|value| text(value, "/metadata/name").to_owned())
        .chain(mandatory)
        .collect();
    of_kind("FlowSchema").map(move |schema| {
        let level = text(schema, "/spec/priorityLevelConfiguration/name");
        (schema, !levels.iter().any(|name| name == level))
    })
}

/// The condition of a schema, where it is not the one that it has.
fn condition(schema: &Value, dangles: bool, now: &str) -> Option<Value> {
    let level = text(schema, "/spec/priorityLevelConfiguration/name");
    let of =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match dangles {
        true => (
            "True",
            "NotFound",
            format!("{of} but there is no such object"),
        ),
        false => ("False", "Found", format!("{of} and it exists")),
    };
    let mut present = items(schema, "/status/conditions").iter();
    let present = present.find(|condition| text(condition, "/type") == "Dangling");
    let same = present.is_some_and(|present| {
        text(present, "/status") == status
            && text(present, "/reason") == reason
            && text(present, "/message") == message
    });
    (!same).then(|| {
        serde_json::json!({
            "type": "Dangling", "status": status, "lastTransitionTime": now,
            "reason": reason, "message": message,
        })
    })
}

#[cfg(test)]
mod tests;
