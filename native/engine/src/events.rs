//! Messages to Elixir processes.

use chatterbex_nif::{Detail, NifError};
use pyo3::prelude::*;
use rustler::{Encoder, LocalPid, OwnedEnv, Term};

use crate::value::{self, ValueError};

rustler::atoms! {
    chatterbex_event,
    chatterbex_log,
}

/// Whether a message was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the mailbox.
    Delivered,
    /// The process no longer exists.
    Nobody,
}

impl<E> From<Result<(), E>> for Sent {
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Sent::Delivered,
            Err(_) => Sent::Nobody,
        }
    }
}

/// Sends `{:chatterbex_event, id, name, payload}`. Call this only on the model thread: the VM's own threads
/// must not send from an environment that belongs to no process.
pub fn send(
    to: LocalPid,
    id: i64,
    name: &str,
    payload: &Bound<'_, PyAny>,
) -> Result<Sent, ValueError> {
    let mut owned = OwnedEnv::new();
    let payload = owned.run(|env| value::to_term(env, payload).map(|term| owned.save(term)))?;

    let sent = owned.send_and_clear(&to, |env| {
        (chatterbex_event(), id, name, payload.load(env)).encode(env)
    });
    Ok(sent.into())
}

/// Sends the final event `failed` with `reason`, `message` and `details`, all with binary keys.
pub fn send_failed(to: LocalPid, id: i64, error: &NifError) -> Sent {
    let sent = OwnedEnv::new().send_and_clear(&to, |env| {
        let mut details = Term::map_new(env);
        for (key, detail) in &error.details {
            let value = match detail {
                // Python's own events have no atoms, so this one has none either.
                Detail::Atom(name) => name.encode(env),
                other => other.encode(env),
            };
            details = details.map_put(*key, value).unwrap_or(details);
        }

        let fields = [
            ("reason", error.reason.encode(env)),
            ("message", error.message.as_str().encode(env)),
            ("details", details),
        ];
        let payload = Term::map_from_pairs(env, &fields).unwrap_or(Term::map_new(env));
        (chatterbex_event(), id, "failed", payload).encode(env)
    });
    sent.into()
}

/// Sends `{:chatterbex_log, level, message}`.
pub fn send_log(to: LocalPid, level: &str, message: &str) {
    let _ =
        OwnedEnv::new().send_and_clear(&to, |env| (chatterbex_log(), level, message).encode(env));
}
