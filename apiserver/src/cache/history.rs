//! The last changes of one kind, for watches that resume and lists of a moment ago.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use weft_store::Revision;

use super::item::Item;
use super::lines::Lines;

/// What counts for a change besides what it keeps alive.
const CHANGE_BYTES: usize = 256;

/// One mutation of an object of the kind.
pub(crate) struct Change {
    pub revision: Revision,
    /// Whether the object was written; else it is gone, and `item` is its last state under the revision of the deletion.
    pub put: bool,
    pub item: Arc<Item>,
    pub previous: Option<Arc<Item>>,
    /// What was encoded for those who are being told of it now.
    lines: Mutex<Weak<Lines>>,
}

impl Change {
    pub(crate) fn new(
        revision: Revision,
        put: bool,
        item: Arc<Item>,
        previous: Option<Arc<Item>>,
    ) -> Self {
        Self {
            revision,
            put,
            item,
            previous,
            lines: Mutex::new(Weak::new()),
        }
    }

    /// Where those who are told of this change keep its encoded forms, for as long as one of them holds on to it.
    pub(crate) fn lines(&self) -> Arc<Lines> {
        let mut known = self.lines.lock();
        if let Some(lines) = known.upgrade() {
            return lines;
        }
        let lines = Arc::new(Lines::default());
        *known = Arc::downgrade(&lines);
        lines
    }

    /// What it keeps alive that the newest view does not.
    pub(crate) fn bytes(&self) -> usize {
        let previous = self.previous.as_ref();
        CHANGE_BYTES + previous.map_or(0, |item| item.weight())
    }
}

/// Changes, oldest first, without a gap.
pub(crate) struct History {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// Everything up to here is forgotten: the oldest revision that a watch may start after.
    begin: Revision,
    changes_max: usize,
    bytes_max: usize,
}

impl History {
    pub(crate) fn new(begin: Revision, changes_max: usize, bytes_max: usize) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            begin,
            changes_max,
            bytes_max,
        }
    }

    pub(crate) fn begin(&self) -> Revision {
        self.begin
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(crate) fn push(&mut self, change: Arc<Change>) {
        let last = self.changes.back().map_or(self.begin, |last| last.revision);
        assert!(change.revision > last, "changes come in their order");
        self.bytes += change.bytes();
        self.changes.push_back(change);
        while self.changes.len() > self.changes_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
            self.begin = oldest.revision;
        }
    }

    /// The changes above a revision.
    pub(crate) fn after(
        &self,
        revision: Revision,
    ) -> impl DoubleEndedIterator<Item = &Arc<Change>> {
        let start = self
            .changes
            .partition_point(|change| change.revision <= revision);
        self.changes.range(start..)
    }
}
