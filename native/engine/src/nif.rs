//! The NIF functions. Only `start` and `stop` wait, and none of them runs Python.

use std::time::Duration;

use chatterbex_nif::{Done, NifError, nif_library};
use rustler::{Env, LocalPid, Term};

use crate::error::BridgeError;
use crate::kept::Kept;
use crate::lifecycle;
use crate::state::Command;

nif_library!(c"Elixir.Chatterbex.Native");

rustler::atoms! {
    state,
    queued,
    live,
}

fn done(result: Result<(), BridgeError>) -> Done {
    Done(result.map_err(NifError::from))
}

/// `start(config, log_pid) :: :ok | {:error, error}`
#[rustler::nif(schedule = "DirtyIo")]
fn start(config: Term, log_pid: LocalPid) -> Done {
    done(lifecycle::start(config, log_pid))
}

/// `submit(command, reply_to) :: :ok | {:error, error}`
///
/// Returns at once: the command becomes Python objects on the model thread.
#[rustler::nif]
fn submit(command: Term, reply_to: LocalPid) -> Done {
    let id = command.map_get("id").and_then(|id| id.decode::<i64>());

    done(match id {
        Ok(id) => lifecycle::submit(Command {
            id,
            reply_to,
            command: Kept::new(command),
        }),
        Err(_) => Err(BridgeError::Invalid(
            "a command must be a map with an integer under \"id\"".into(),
        )),
    })
}

/// `cancel(id) :: :ok`
#[rustler::nif]
fn cancel(id: i64) -> Done {
    lifecycle::cancel(id);
    Done(Ok(()))
}

/// `status() :: %{state: binary, queued: non_neg_integer, live: non_neg_integer}`
#[rustler::nif]
fn status<'a>(env: Env<'a>) -> Term<'a> {
    let (phase, waiting, running) = lifecycle::status();

    let map = Term::map_new(env).map_put(state(), phase);
    let map = map.and_then(|map| map.map_put(queued(), waiting));
    let map = map.and_then(|map| map.map_put(live(), running));
    map.unwrap_or_else(|_| Term::map_new(env))
}

/// `stop(timeout_ms) :: :ok | {:error, error}`
#[rustler::nif(schedule = "DirtyIo")]
fn stop(timeout_ms: u64) -> Done {
    done(lifecycle::stop(Duration::from_millis(timeout_ms)))
}
