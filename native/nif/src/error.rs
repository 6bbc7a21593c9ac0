//! The failure that a NIF returns to Elixir.

use rustler::{Atom, Encoder, Env, Term};

/// Every reason that `Chatterbex.Error` knows.
pub const REASONS: &[&str] = &[
    "invalid_option",
    "invalid_text",
    "invalid_audio",
    "unknown_model",
    "unknown_language",
    "voice_unreadable",
    "voice_too_short",
    "not_supported",
    "not_set_up",
    "native_not_loaded",
    "model_files_missing",
    "model_load_failed",
    "device_unavailable",
    "out_of_memory",
    "overloaded",
    "not_running",
    "noconnection",
    "timeout",
    "cancelled",
    "engine_crashed",
    "generation_failed",
    "file_error",
];

/// The reason with this name, if `Chatterbex.Error` knows it.
///
/// Names come from Python too. Looking them up here means that no name from outside becomes an atom.
pub fn known_reason(name: &str) -> Option<&'static str> {
    REASONS.iter().find(|reason| **reason == name).copied()
}

/// A value in an error's details.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    /// Becomes an atom.
    Atom(&'static str),
    /// Becomes a binary.
    Text(String),
    /// Becomes an integer.
    Integer(i64),
}

/// A failure. It encodes as `{reason, message, details}`, so a NIF can return a `Result` with it:
/// `{:ok, value}` or `{:error, {reason, message, details}}`.
#[derive(Debug, Clone, PartialEq)]
pub struct NifError {
    /// One of [`REASONS`].
    pub reason: &'static str,
    /// What was wrong, what was expected, and what to do.
    pub message: String,
    /// Details for programs, as a map with atom keys.
    pub details: Vec<(&'static str, Detail)>,
}

impl NifError {
    /// Creates a failure without details.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// The same failure with one more detail.
    #[must_use]
    pub fn with(mut self, key: &'static str, detail: Detail) -> Self {
        self.details.push((key, detail));
        self
    }

    /// The same failure with `cause`, an atom that distinguishes failures with the same reason.
    #[must_use]
    pub fn cause(self, cause: &'static str) -> Self {
        self.with("cause", Detail::Atom(cause))
    }
}

fn atom<'a>(env: Env<'a>, name: &str) -> Term<'a> {
    // Only a name longer than 255 bytes fails, and names are ours.
    match Atom::from_bytes(env, name.as_bytes()) {
        Ok(atom) => atom.to_term(env),
        Err(_) => name.encode(env),
    }
}

impl Encoder for Detail {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Detail::Atom(name) => atom(env, name),
            Detail::Text(text) => text.encode(env),
            Detail::Integer(integer) => integer.encode(env),
        }
    }
}

impl Encoder for NifError {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let mut details = Term::map_new(env);
        for (key, detail) in &self.details {
            details = details.map_put(atom(env, key), detail).unwrap_or(details);
        }

        (atom(env, self.reason), self.message.as_str(), details).encode(env)
    }
}

/// The result of a NIF that returns no value: `:ok | {:error, NifError}`.
pub struct Done(pub Result<(), NifError>);

impl Encoder for Done {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match &self.0 {
            Ok(()) => atom(env, "ok"),
            Err(error) => (atom(env, "error"), error).encode(env),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_reasons_pass() {
        assert_eq!(known_reason("overloaded"), Some("overloaded"));
        assert_eq!(known_reason("Elixir.Evil"), None);
    }

    #[test]
    fn details_are_kept_in_order() {
        let error = NifError::new("timeout", "late")
            .cause("slow")
            .with("ms", Detail::Integer(5));

        assert_eq!(error.details[0], ("cause", Detail::Atom("slow")));
        assert_eq!(error.details[1], ("ms", Detail::Integer(5)));
    }
}
