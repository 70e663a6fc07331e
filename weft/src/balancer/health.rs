//! Which servers are worth a connection: what was last seen of each, and what follows from it. Pure.
//!
//! A process that was stopped, or whose machine hangs, still has its connections accepted by the kernel, so that only an
//! answer says that somebody is there. Servers in use are asked; all of them while one is in trouble.
//!
//! Invariant: connections are ended only in favour of a server that has just answered; when nobody answers, they stay.

use std::collections::BTreeSet;

/// What a server did when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is ready for requests.
    Ready,
    /// It answers, and says that it is not ready: it knows no leader.
    Unready,
    /// It takes no connections: it ended, or finishes what it has and ends.
    Gone,
    /// It says nothing.
    Silent,
}

/// So many times in a row a server may say that it is not ready before its connections go elsewhere: an election is over by
/// then, and a server that is cut off from the others is not.
const UNREADY_MAX: u32 = 3;

#[derive(Debug)]
struct Server {
    address: String,
    /// `None` until it was asked, and it counts as ready until then.
    seen: Option<Seen>,
    unready: u32,
}

impl Server {
    fn good(&self) -> bool {
        matches!(self.seen, None | Some(Seen::Ready))
    }

    /// Whoever waits there waits for nothing.
    fn lost(&self) -> bool {
        self.seen == Some(Seen::Silent) || self.unready >= UNREADY_MAX
    }
}

/// The servers, and what is known of each.
#[derive(Debug, Default)]
pub(super) struct Health {
    servers: Vec<Server>,
    /// The one that took a connection last.
    last: String,
}

impl Health {
    /// Takes over a list of servers, with what is known of those that were there before.
    pub fn set(&mut self, addresses: &[String]) {
        let mut known = std::mem::take(&mut self.servers);
        self.servers = addresses
            .iter()
            .map(|address| {
                let at = known.iter().position(|server| server.address == *address);
                at.map_or_else(
                    || Server {
                        address: address.clone(),
                        seen: None,
                        unready: 0,
                    },
                    |at| known.swap_remove(at),
                )
            })
            .collect();
    }

    /// The servers in the order in which a connection tries them: good ones first, from the one that took the last; then
    /// those that at least answer, then the rest, for they may have come back.
    pub fn order(&self) -> Vec<String> {
        let last = |server: &Server| server.address == self.last;
        let start = self.servers.iter().position(last).unwrap_or(0);
        let (before, from) = self.servers.split_at(start);
        let mut order: Vec<&Server> = from.iter().chain(before).collect();
        order.sort_by_key(|server| match server.seen {
            None | Some(Seen::Ready) => 0,
            Some(Seen::Unready) => 1,
            Some(Seen::Gone) => 2,
            Some(Seen::Silent) => 3,
        });
        order
            .into_iter()
            .map(|server| server.address.clone())
            .collect()
    }

    /// The servers to ask now.
    pub fn due(&self, in_use: impl Fn(&str) -> bool) -> Vec<String> {
        let trouble = self.servers.iter().any(|server| !server.good());
        let due = |server: &&Server| trouble || in_use(&server.address);
        let due = self.servers.iter().filter(due);
        due.map(|server| server.address.clone()).collect()
    }

    /// A server took a connection and answered on it.
    pub fn took(&mut self, address: &str) {
        address.clone_into(&mut self.last);
    }

    /// Takes what was seen of a server. Returns whether it just came into trouble, so that the others should be asked at
    /// once, and the servers whose connections should end.
    pub fn saw(&mut self, address: &str, seen: Seen) -> (bool, BTreeSet<String>) {
        let found = self
            .servers
            .iter_mut()
            .find(|server| server.address == address);
        let Some(server) = found else {
            return (false, BTreeSet::new());
        };
        let before = server.good();
        server.seen = Some(seen);
        server.unready = match seen {
            Seen::Unready => server.unready.saturating_add(1),
            Seen::Ready | Seen::Gone | Seen::Silent => 0,
        };
        let fell = before && !server.good();
        if seen != Seen::Ready {
            return (fell, BTreeSet::new());
        }
        let lost = self.servers.iter().filter(|server| server.lost());
        (false, lost.map(|server| server.address.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Plays `server answer` pairs and tells what follows from each. Connections are open to `a` alone.
    fn story(servers: &[&str], last: &str, steps: &str) -> String {
        let mut health = Health::default();
        let servers: Vec<String> = servers.iter().map(|server| server.to_string()).collect();
        health.set(&servers);
        health.took(last);
        let mut told = String::new();
        for step in steps.split(", ") {
            let (server, answer) = step.split_once(' ').unwrap();
            let seen = match answer {
                "ready" => Seen::Ready,
                "unready" => Seen::Unready,
                "gone" => Seen::Gone,
                "silent" => Seen::Silent,
                other => panic!("{other}"),
            };
            let (fell, lost) = health.saw(server, seen);
            let lost: Vec<String> = lost.into_iter().collect();
            let due = health.due(|server| server == "a").concat();
            let _ = write!(told, "{step}: try {}, ask {due}", health.order().concat());
            if fell {
                told.push_str(" at once");
            }
            if !lost.is_empty() {
                let _ = write!(told, ", end those of {}", lost.concat());
            }
            told.push('\n');
        }
        told
    }

    #[test]
    fn a_silent_server_loses_its_connections_to_one_that_answers() {
        assert_eq!(
            story(
                &["a", "b", "c"],
                "a",
                "a ready, a silent, c silent, b ready, a silent, a ready"
            ),
            "a ready: try abc, ask a\n\
             a silent: try bca, ask abc at once\n\
             c silent: try bac, ask abc at once\n\
             b ready: try bac, ask abc, end those of ac\n\
             a silent: try bac, ask abc\n\
             a ready: try abc, ask abc, end those of c\n"
        );
    }

    #[test]
    fn an_election_moves_nobody_and_a_server_cut_off_from_the_others_loses_its_clients() {
        assert_eq!(
            story(
                &["a", "b"],
                "a",
                "a unready, b unready, a unready, b ready, a unready, b ready, a ready"
            ),
            "a unready: try ba, ask ab at once\n\
             b unready: try ab, ask ab at once\n\
             a unready: try ab, ask ab\n\
             b ready: try ba, ask ab\n\
             a unready: try ba, ask ab\n\
             b ready: try ba, ask ab, end those of a\n\
             a ready: try ab, ask a\n"
        );
    }

    #[test]
    fn a_server_that_ends_in_order_finishes_what_it_has() {
        assert_eq!(
            story(&["a", "b"], "a", "a gone, b ready"),
            "a gone: try ba, ask ab at once\n\
             b ready: try ba, ask ab\n"
        );
    }

    #[test]
    fn what_is_known_of_a_server_outlives_a_new_list() {
        let servers =
            |names: &[&str]| -> Vec<String> { names.iter().map(|name| name.to_string()).collect() };
        let mut health = Health::default();
        health.set(&servers(&["a", "b", "c"]));
        health.took("b");
        assert_eq!(health.order().concat(), "bca");
        health.saw("b", Seen::Silent);
        health.set(&servers(&["d", "b"]));
        assert_eq!(health.order().concat(), "db");
        assert_eq!(health.saw("a", Seen::Silent), (false, BTreeSet::new()));
    }
}
