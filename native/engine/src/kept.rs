//! Terms that are kept.

use rustler::env::SavedTerm;
use rustler::{OwnedEnv, Term};

/// A term that outlives the call which brought it.
pub struct Kept {
    env: OwnedEnv,
    term: SavedTerm,
}

impl Kept {
    /// Copies a term (large binaries are shared, not copied).
    pub fn new(term: Term) -> Self {
        let env = OwnedEnv::new();
        let term = env.save(term);
        Self { env, term }
    }

    /// Works with the term.
    pub fn with<R>(&self, work: impl FnOnce(Term<'_>) -> R) -> R {
        self.env.run(|env| work(self.term.load(env)))
    }

    /// Whether it is equal to a term.
    pub fn equals(&self, other: Term) -> bool {
        let other = self.env.save(other);
        self.env.run(|env| self.term.load(env) == other.load(env))
    }
}
