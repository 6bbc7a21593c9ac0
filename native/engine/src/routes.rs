//! Which process waits for which request.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Request ids, and the processes that receive their events. A route ends with its final event.
pub struct Routes<P>(HashMap<i64, P>);

impl<P: Copy + PartialEq> Routes<P> {
    /// No routes.
    pub fn new() -> Self {
        Self(HashMap::new())
    }

    /// Routes a request to a process. Returns false and changes nothing if the id is in use.
    #[must_use]
    pub fn open(&mut self, id: i64, process: P) -> bool {
        match self.0.entry(id) {
            Entry::Vacant(vacant) => {
                vacant.insert(process);
                true
            }
            Entry::Occupied(taken) => *taken.get() == process,
        }
    }

    /// The process that receives the events of a request.
    pub fn to(&self, id: i64) -> Option<P> {
        self.0.get(&id).copied()
    }

    /// Ends a route. Returns whether there was one.
    pub fn close(&mut self, id: i64) -> bool {
        self.0.remove(&id).is_some()
    }

    /// Ends every route and returns them, by id.
    pub fn close_all(&mut self) -> Vec<(i64, P)> {
        let mut all: Vec<_> = self.0.drain().collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// How many requests are live.
    pub fn live(&self) -> usize {
        self.0.len()
    }
}

impl<P: Copy + PartialEq> Default for Routes<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_lasts_until_it_is_closed() {
        let mut routes = Routes::new();
        assert!(routes.open(1, 'a'));
        assert!(routes.open(2, 'b'));
        assert_eq!(
            (routes.to(1), routes.to(2), routes.to(3)),
            (Some('a'), Some('b'), None)
        );

        assert!(routes.close(1));
        assert!(!routes.close(1));
        assert_eq!((routes.to(1), routes.live()), (None, 1));
    }

    #[test]
    fn an_id_is_not_taken_from_another() {
        let mut routes = Routes::new();
        assert!(routes.open(1, 'a'));
        assert!(routes.open(1, 'a'), "the same process may use its id again");
        assert!(!routes.open(1, 'b'));
        assert_eq!(routes.to(1), Some('a'));
    }

    #[test]
    fn all_close_at_once() {
        let mut routes = Routes::new();
        for id in [3, 1, 2] {
            assert!(routes.open(id, id * 10));
        }
        assert_eq!(routes.close_all(), [(1, 10), (2, 20), (3, 30)]);
        assert_eq!(routes.live(), 0);
    }
}
