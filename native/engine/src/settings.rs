//! The settings in the configuration of `start`.

use std::collections::BTreeMap;
use std::time::Duration;

use rustler::{Decoder, NifResult, Term};

use crate::environment;
use crate::error::BridgeError;

/// The largest queue of commands for the model thread.
pub const LONGEST_QUEUE: usize = 65_536;

/// The settings that this library reads. The Python engine receives the whole configuration.
pub struct Settings {
    /// `"program"`: the virtual environment's `bin/python`.
    pub program: String,
    /// `"python_path"`: folders to put in front of `sys.path`, in order. Default: none.
    pub python_path: Vec<String>,
    /// `"env"`: environment variables that Python starts with. Default: none.
    pub env: BTreeMap<String, String>,
    /// `"queue"`: how many commands may wait, from 1 to [`LONGEST_QUEUE`]. Default: 1024.
    pub queue: usize,
    /// `"timeout_ms"`: how long starting may take. Default: 60 seconds.
    pub timeout: Duration,
}

impl Settings {
    /// Reads and checks a configuration.
    pub fn read(config: Term) -> Result<Self, BridgeError> {
        let missing = |name: &str| invalid(name, "is missing");
        let queue: usize = optional(config, "queue")?.unwrap_or(1024);
        let timeout: u64 = optional(config, "timeout_ms")?.unwrap_or(60_000);
        let env: BTreeMap<String, String> = match optional::<Term>(config, "env")? {
            Some(map) => strings(map).ok_or_else(|| invalid("env", "must map names to values"))?,
            None => BTreeMap::new(),
        };

        // The queue's memory is allocated at once.
        if !(1..=LONGEST_QUEUE).contains(&queue) {
            return Err(invalid(
                "queue",
                &format!("must be from 1 to {LONGEST_QUEUE}"),
            ));
        }
        environment::check(&env)?;

        Ok(Self {
            program: optional(config, "program")?.ok_or_else(|| missing("program"))?,
            python_path: optional(config, "python_path")?.unwrap_or_default(),
            env,
            queue,
            timeout: Duration::from_millis(timeout),
        })
    }
}

fn invalid(name: &str, what: &str) -> BridgeError {
    BridgeError::Invalid(format!("the engine's configuration: {name:?} {what}"))
}

fn optional<'a, T: Decoder<'a>>(config: Term<'a>, name: &str) -> Result<Option<T>, BridgeError> {
    if !config.is_map() {
        return Err(invalid("config", "must be a map"));
    }

    match config.map_get(name) {
        Err(_) => Ok(None),
        Ok(term) => match term.decode() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(invalid(name, "has the wrong type")),
        },
    }
}

fn strings(map: Term) -> Option<BTreeMap<String, String>> {
    let pairs = rustler::MapIterator::new(map)?;
    let decoded: NifResult<_> = pairs
        .map(|(name, value)| Ok((name.decode()?, value.decode()?)))
        .collect();
    decoded.ok()
}
