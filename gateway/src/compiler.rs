//! What is served, kept up to date: of a change of a few routes or Services, only what those have a part in is made anew. Pure.
//!
//! What is served is made of cells ([`Cell`]): the routes of a Service, or those of a host at a listener. A cell depends on the routes that
//! want to be in it, on no other cell, and on what all routes have in common. So the routes of the cells that a change touches are compiled
//! as if there were no others, and of what comes of them just those cells are taken.
//!
//! Invariant: what is served is what [`compile`] makes of the same objects, whatever there was before.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::ordmap::DiffItem;

use crate::attach::{Attached, attach};
use crate::compile::{compile, routed};
use crate::hostname::HostPattern;
use crate::listeners::Nodes;
use crate::mesh_policies::MeshPolicies;
use crate::name::NamespacedName;
use crate::objects::Objects;
use crate::ours::Gateways;
use crate::route::{Route, RouteKind};
use crate::served::{Cell, Served};

/// Routes and Services that a change may be about: of more of them all is made anew, which is then no more work.
const CHANGED_MAX: usize = 64;

type RouteName = (RouteKind, NamespacedName);

/// What is served of the objects that it was shown last.
#[derive(Debug, Default)]
pub struct Compiler {
    objects: Objects,
    served: Served,
}

impl Compiler {
    /// What is served of these objects. The cost is that of what changed since the last call where that is a few routes or Services, and else
    /// that of [`compile`].
    pub fn served(&mut self, objects: &Objects) -> &Served {
        match changed(&self.objects, objects) {
            Some(routes) => {
                take(&mut self.served, &self.objects, objects, &routes);
                if !self.objects.services.ptr_eq(&objects.services) {
                    self.served.resilience = MeshPolicies::of(objects).served;
                }
            }
            None => self.served = compile(objects).served,
        }
        self.objects = objects.clone();
        &self.served
    }
}

/// The routes that are others than before, or mean Services that are. None where more than that is otherwise, or much.
fn changed<'o>(before: &'o Objects, now: &'o Objects) -> Option<BTreeSet<&'o RouteName>> {
    if !before.has_same_but_routes_and_services(now) {
        return None;
    }
    let mut routes: BTreeSet<&RouteName> = BTreeSet::new();
    for item in before.routes.diff(&now.routes) {
        let (DiffItem::Add(name, _)
        | DiffItem::Remove(name, _)
        | DiffItem::Update { new: (name, _), .. }) = item;
        routes.insert(name);
        if routes.len() > CHANGED_MAX {
            return None;
        }
    }
    let mut services: Vec<&NamespacedName> = Vec::new();
    for item in before.services.diff(&now.services) {
        let (name, old, new) = match item {
            DiffItem::Add(name, new) => (name, None, Some(new)),
            DiffItem::Remove(name, old) => (name, Some(old), None),
            DiffItem::Update {
                old: (_, old),
                new: (name, new),
            } => (name, Some(old), Some(new)),
        };
        // Which addresses Gateways have depends on those.
        let outside = |service: Option<&Arc<crate::api::Service>>| {
            service
                .map_or(&[][..], |service| service.outside.as_slice())
                .to_vec()
        };
        if outside(old) != outside(new) || services.len() == CHANGED_MAX {
            return None;
        }
        services.push(name);
    }
    if !services.is_empty() {
        let means = |route: &Route| {
            let mut services = services.iter();
            services.any(|service| route.is_of(service) || route.leads_to(service))
        };
        for (name, route) in before.routes.iter().chain(now.routes.iter()) {
            if means(route) {
                routes.insert(name);
            }
        }
    }
    (routes.len() <= CHANGED_MAX).then_some(routes)
}

/// Makes anew what these routes have a part in, or had.
fn take(served: &mut Served, before: &Objects, now: &Objects, routes: &BTreeSet<&RouteName>) {
    if routes.is_empty() {
        return;
    }
    let nodes = Nodes::of(now);
    let gateways = Gateways::of(now, &nodes);
    let mut cells: BTreeSet<Cell> = BTreeSet::new();
    for objects in [before, now] {
        let routes = routes.iter().filter_map(|name| objects.routes.get(*name));
        for route in routes {
            for parent in &route.parents {
                if let Attached::To(attachment) = attach(route, parent, &gateways, objects, &nodes)
                {
                    cells.extend(attachment.cells());
                }
            }
        }
    }
    let hosts: BTreeSet<&HostPattern> = cells.iter().filter_map(Cell::host).collect();
    let services = cells.iter().filter_map(|cell| match cell {
        Cell::Service(service) => Some(service),
        _ => None,
    });
    let services: Vec<&NamespacedName> = services.collect();
    let wants_a_part = |route: &&Arc<Route>| {
        services.iter().any(|service| route.is_of(service)) || may_have(route, &hosts)
    };
    let others = now.routes.values().filter(wants_a_part);
    let made = routed(now, &nodes, &gateways, others).served;
    drop((hosts, services));
    for cell in cells {
        served.take(cell, &made);
    }
}

/// Whether a route may be served for one of these hosts, which routes and listeners have in common: then it names one that covers it.
fn may_have(route: &Route, hosts: &BTreeSet<&HostPattern>) -> bool {
    if hosts.is_empty() {
        return false;
    }
    let mut named = route.hostnames.iter();
    route.hostnames.is_empty()
        || named.any(|name| {
            let name = HostPattern::parse(name);
            let mut hosts = hosts.iter();
            hosts.any(|host| name.intersect(host).as_ref() == Some(*host))
        })
}
