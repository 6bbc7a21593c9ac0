//! The Python engine (`chatterbex.engine.Engine`), by its methods.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use rustler::Term;

use crate::error::BridgeError;
use crate::python;
use crate::value;

/// One event of a step of the engine, still as Python objects.
pub struct Event<'py> {
    /// The request or model it belongs to.
    pub id: i64,
    /// Its name, such as `chunk` or `done`.
    pub name: String,
    /// Its payload, a dict.
    pub payload: Bound<'py, PyAny>,
    /// Whether it is the last event with that id.
    pub last: bool,
}

/// The engine object.
pub struct Engine<'py>(Bound<'py, PyAny>);

impl<'py> Engine<'py> {
    /// Imports the engine and creates it with `config`, a map that it receives as a dict.
    pub fn new(py: Python<'py>, path: &[String], config: Term) -> Result<Self, BridgeError> {
        let config = value::to_python(py, config).map_err(|error| {
            BridgeError::Invalid(format!("the engine's configuration: {error}"))
        })?;

        let make = || -> PyResult<Self> {
            python::prepend_path(py, path)?;
            let class = py.import("chatterbex.engine")?.getattr("Engine")?;
            class.call1((config,)).map(Self)
        };
        make().map_err(|error| python::failure(py, &error, "not_set_up"))
    }

    /// Submits a command.
    pub fn submit(&self, command: Bound<'py, PyAny>) -> PyResult<()> {
        self.0.call_method1("submit", (command,)).map(drop)
    }

    /// Cancels a request. An unknown id is not an error.
    pub fn cancel(&self, id: i64) -> PyResult<()> {
        self.0.call_method1("cancel", (id,)).map(drop)
    }

    /// Whether a step would have work to do.
    pub fn busy(&self) -> PyResult<bool> {
        self.0.call_method0("busy")?.is_truthy()
    }

    /// Runs one step of every model that has work.
    pub fn step(&self) -> PyResult<Vec<Event<'py>>> {
        let events = self.0.call_method0("step")?;
        let events = events.cast::<PyList>()?;

        events
            .iter()
            .map(|event| {
                let (id, name, payload, last) = event.extract()?;
                let payload: Bound<'py, PyDict> = payload;
                Ok(Event {
                    id,
                    name,
                    payload: payload.into_any(),
                    last,
                })
            })
            .collect()
    }

    /// Waits until no other thread computes for a model, because the process is about to end.
    pub fn rest(&self) -> PyResult<()> {
        self.0.call_method0("rest").map(drop)
    }

    /// Returns the log lines since the last call, as level and text. Characters that UTF-8 cannot hold (lone
    /// surrogates) become U+FFFD.
    pub fn drain_log(&self) -> PyResult<Vec<(String, String)>> {
        let lines = self.0.call_method0("drain_log")?;

        lines
            .try_iter()?
            .map(|line| {
                let (level, text) = line?.extract()?;
                Ok((lossy(&level), lossy(&text)))
            })
            .collect()
    }
}

fn lossy(text: &Bound<'_, PyString>) -> String {
    text.to_string_lossy().into_owned()
}
