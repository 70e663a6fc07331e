//! Matching by backtracking, for expressions with back-references, which no linear search can answer.
//!
//! The leftmost match is found; among those that begin there, the longest that the steps allow to find. After
//! [`STEPS_MAX`] steps what was found by then is the answer: an expression cannot hold up the instance.

use super::pattern::{Node, Place, Spans};

/// About a tenth of a second.
const STEPS_MAX: usize = 2_000_000;
/// Frames of the search, each a call of a function.
const DEPTH_MAX: usize = 4_000;

struct Search<'t> {
    text: &'t [u8],
    ignore_case: bool,
    steps: usize,
    depth: usize,
    spans: Spans,
    best: Option<Spans>,
}

/// What is still to match after a node, innermost last.
enum Rest<'n> {
    End,
    Node(&'n Node, &'n Rest<'n>),
    Close(usize, usize, &'n Rest<'n>),
    Again {
        node: &'n Node,
        least: u32,
        most: Option<u32>,
        from: usize,
        rest: &'n Rest<'n>,
    },
    Sequence(&'n [Node], &'n Rest<'n>),
}

pub fn search(
    node: &Node,
    ignore_case: bool,
    groups: usize,
    text: &[u8],
    at: usize,
) -> Option<Spans> {
    let mut search = Search {
        text,
        ignore_case,
        steps: 0,
        depth: 0,
        spans: vec![None; groups + 1],
        best: None,
    };
    for start in at..=text.len() {
        search.spans.iter_mut().for_each(|span| *span = None);
        search.node(node, start, start, &Rest::End);
        if let Some(best) = search.best.take() {
            return Some(best);
        }
        if search.steps > STEPS_MAX {
            return None;
        }
    }
    None
}

impl Search<'_> {
    fn rest(&mut self, rest: &Rest<'_>, start: usize, at: usize) {
        match rest {
            Rest::End => {
                let longer = match self
                    .best
                    .as_ref()
                    .and_then(|best| best.first().copied().flatten())
                {
                    Some((_, end)) => at > end,
                    None => true,
                };
                if longer {
                    let mut spans = self.spans.clone();
                    if let Some(whole) = spans.first_mut() {
                        *whole = Some((start, at));
                    }
                    self.best = Some(spans);
                }
            }
            Rest::Node(node, rest) => self.node(node, start, at, rest),
            Rest::Close(group, from, rest) => {
                let before = self.set(*group, Some((*from, at)));
                self.rest(rest, start, at);
                self.set(*group, before);
            }
            Rest::Again {
                node,
                least,
                most,
                from,
                rest,
            } => {
                // A round that took nothing is not followed by another.
                if at > *from || *least > 0 {
                    self.repeat(node, *least, *most, start, at, rest);
                } else {
                    self.rest(rest, start, at);
                }
            }
            Rest::Sequence([], rest) => self.rest(rest, start, at),
            Rest::Sequence([first, more @ ..], rest) => {
                self.node(first, start, at, &Rest::Sequence(more, rest));
            }
        }
    }

    fn set(&mut self, group: usize, span: Option<(usize, usize)>) -> Option<(usize, usize)> {
        match self.spans.get_mut(group) {
            Some(slot) => std::mem::replace(slot, span),
            None => None,
        }
    }

    fn repeat(
        &mut self,
        node: &Node,
        least: u32,
        most: Option<u32>,
        start: usize,
        at: usize,
        rest: &Rest<'_>,
    ) {
        if most != Some(0) {
            let again = Rest::Again {
                node,
                least: least.saturating_sub(1),
                most: most.map(|most| most - 1),
                from: at,
                rest,
            };
            self.node(node, start, at, &again);
        }
        if least == 0 {
            self.rest(rest, start, at);
        }
    }

    fn node(&mut self, node: &Node, start: usize, at: usize, rest: &Rest<'_>) {
        self.steps += 1;
        if self.steps > STEPS_MAX || self.depth > DEPTH_MAX {
            return;
        }
        self.depth += 1;
        match node {
            Node::Byte(byte) => {
                if self
                    .text
                    .get(at)
                    .is_some_and(|found| self.same(*found, *byte))
                {
                    self.rest(rest, start, at + 1);
                }
            }
            Node::Any => {
                if at < self.text.len() {
                    self.rest(rest, start, at + 1);
                }
            }
            Node::Class(set) => {
                let holds = |byte: u8| set.get(usize::from(byte)).is_some_and(|on| *on);
                let found = self.text.get(at).is_some_and(|byte| {
                    holds(*byte)
                        || self.ignore_case
                            && (holds(byte.to_ascii_lowercase())
                                || holds(byte.to_ascii_uppercase()))
                });
                if found {
                    self.rest(rest, start, at + 1);
                }
            }
            Node::At(place) => {
                if holds(self.text, at, *place) {
                    self.rest(rest, start, at);
                }
            }
            Node::Group(number, inner) => {
                self.node(inner, start, at, &Rest::Close(*number, at, rest));
            }
            Node::All(nodes) => self.rest(&Rest::Sequence(nodes, rest), start, at),
            Node::OneOf(options) => {
                for option in options {
                    self.rest(&Rest::Node(option, rest), start, at);
                }
            }
            Node::Repeat(inner, least, most) => {
                self.repeat(inner, *least, *most, start, at, rest);
            }
            Node::Back(number) => {
                let span = self.spans.get(*number).copied().flatten();
                let text = span.and_then(|(from, to)| self.text.get(from..to));
                if let Some(text) = text {
                    let here = self.text.get(at..at + text.len());
                    let same = here.is_some_and(|here| {
                        here.iter()
                            .zip(text)
                            .all(|(one, other)| self.same(*one, *other))
                    });
                    if same {
                        let length = text.len();
                        self.rest(rest, start, at + length);
                    }
                }
            }
        }
        self.depth -= 1;
    }

    fn same(&self, one: u8, other: u8) -> bool {
        one == other || self.ignore_case && one.eq_ignore_ascii_case(&other)
    }
}

fn holds(text: &[u8], at: usize, place: Place) -> bool {
    let word = |index: Option<usize>| {
        index
            .and_then(|index| text.get(index))
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    let (before, after) = (word(at.checked_sub(1)), word(Some(at)));
    match place {
        Place::TextStart => at == 0,
        Place::TextEnd => at == text.len(),
        Place::LineStart => at == 0 || text.get(at - 1) == Some(&b'\n'),
        Place::LineEnd => at == text.len() || text.get(at) == Some(&b'\n'),
        Place::Boundary => before != after,
        Place::NoBoundary => before == after,
        Place::WordStart => !before && after,
        Place::WordEnd => before && !after,
        Place::NoWordBefore => !before,
        Place::NoWordAfter => !after,
    }
}
