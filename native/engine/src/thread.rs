//! The model thread, the only one that runs Python.

use std::collections::VecDeque;
use std::thread::{self, Builder, ThreadId};
use std::time::Duration;

use chatterbex_nif::NifError;
use crossbeam_channel::Receiver;
use pyo3::prelude::*;
use rustler::LocalPid;

use crate::engine::{Engine, Event};
use crate::error::{BridgeError, caught};
use crate::events::{self, Sent};
use crate::halt;
use crate::inbox::Inbox;
use crate::kept::Kept;
use crate::python;
use crate::routes::Routes;
use crate::settings::Settings;
use crate::state::{Command, Control, Phase, Shared};
use crate::value;

/// The default for secondary threads (512 KiB on macOS, 2 MiB in Rust) is too small for PyTorch and deep
/// recursion. Only touched pages use memory.
const STACK: usize = 32 * 1024 * 1024;

/// How often an idle engine is asked for log lines from Python's own threads.
const IDLE_LOG: Duration = Duration::from_secs(2);

/// How a run of the engine ended.
enum End {
    /// It was told to stop.
    Stopped,
    /// The process is ending.
    Halted,
    /// The engine crashed and could not be started again.
    Crashed(BridgeError),
}

/// Starts the model thread, which waits for its first `Control::Start`.
pub fn spawn(
    shared: &'static Shared,
    controls: Receiver<Control>,
    cancels: Receiver<i64>,
) -> std::io::Result<ThreadId> {
    let body = move || {
        while let Ok(control) = controls.recv() {
            match control {
                Control::Start {
                    settings,
                    config,
                    commands,
                    sender,
                } => {
                    let inbox = Inbox::new(commands, cancels.clone(), controls.clone());
                    let ready = || shared.engine_ready(sender);
                    let run = || run(shared, &settings, &config, inbox, ready);
                    let end = caught(|| Ok(run())).unwrap_or_else(End::Crashed);

                    halt::working(false);
                    shared.close_gate();
                    shared.set_live(0);
                    match end {
                        End::Stopped => shared.set(Phase::Stopped),
                        End::Crashed(error) => shared.set(Phase::Crashed(error)),
                        End::Halted => rest(shared),
                    }
                }
                // A stop that arrived after the engine had crashed.
                Control::Stop => {
                    if shared.phase() == Phase::Stopping {
                        shared.set(Phase::Stopped);
                    }
                }
                Control::Halt => rest(shared),
            }
        }
    };

    let thread = Builder::new()
        .name("chatterbex".into())
        .stack_size(STACK)
        .spawn(body)?;
    Ok(thread.thread().id())
}

/// Parks the thread at the end of the process, so that it never runs Python again.
fn rest(shared: &Shared) -> ! {
    shared.set(Phase::Halted);
    loop {
        thread::park();
    }
}

fn run(
    shared: &'static Shared,
    settings: &Settings,
    config: &Kept,
    inbox: Inbox<Command, Control>,
    ready: impl FnOnce(),
) -> End {
    halt::working(true);
    if let Err(error) = python::initialise(&settings.program, &settings.env) {
        return End::Crashed(error);
    }

    // Attached for the whole run, and detached whenever there is nothing to do.
    Python::attach(|py| {
        let make = || config.with(|config| Engine::new(py, &settings.python_path, config));
        let engine = match caught(make) {
            Ok(engine) => engine,
            Err(error) => return End::Crashed(error),
        };

        let mut run = Run {
            py,
            shared,
            inbox,
            routes: Routes::new(),
            commands: VecDeque::new(),
            cancels: Vec::new(),
        };
        run.forward_log(&engine);

        ready();
        run.serve(engine, make)
    })
}

/// One run of the engine, from its start to its stop.
struct Run<'py> {
    py: Python<'py>,
    shared: &'static Shared,
    inbox: Inbox<Command, Control>,
    routes: Routes<LocalPid>,
    /// Taken from the inbox and still to be done, so that a crash in between loses nothing.
    commands: VecDeque<Command>,
    cancels: Vec<i64>,
}

impl<'py> Run<'py> {
    fn serve(
        &mut self,
        mut engine: Engine<'py>,
        make: impl Fn() -> Result<Engine<'py>, BridgeError>,
    ) -> End {
        loop {
            match self.inbox.control() {
                Some(Control::Stop) => {
                    self.refuse_all();
                    self.forward_log(&engine);
                    python::release(self.py, engine);
                    return End::Stopped;
                }
                Some(Control::Halt) => {
                    // Errors in Python no longer matter.
                    let _ = engine.rest();
                    // The process is ending, which frees the models faster than Python would.
                    std::mem::forget(engine);
                    return End::Halted;
                }
                // Start is sent to a stopped engine only.
                Some(Control::Start { .. }) | None => {}
            }

            let turn = caught(|| {
                self.turn(&engine)
                    .map_err(|error| python::failure(self.py, &error, "engine_crashed"))
            });
            self.shared.set_live(self.routes.live());

            if let Err(error) = turn {
                self.fail_all(&engine, &error);
                // Free its models before new ones need the memory.
                python::release(self.py, engine);
                match caught(&make) {
                    Ok(new) => engine = new,
                    Err(error) => {
                        self.shared.close_gate();
                        self.refuse_queued(&NifError::from(BridgeError::Crashed(
                            error.to_string(),
                        )));
                        return End::Crashed(error);
                    }
                }
            }
        }
    }

    /// Takes everything that waits, then runs one step of the engine, or waits for something to do.
    fn turn(&mut self, engine: &Engine<'py>) -> PyResult<()> {
        let batch = self.inbox.take();
        self.commands.extend(batch.commands);
        self.cancels.extend(batch.cancels);

        while let Some(command) = self.commands.pop_front() {
            self.submit(engine, command);
        }
        while let Some(id) = self.cancels.pop() {
            if self.routes.to(id).is_some() {
                engine.cancel(id)?;
            }
        }

        if engine.busy()? {
            for event in engine.step()? {
                self.deliver(engine, event)?;
            }
            self.forward_log(engine);
        } else {
            self.forward_log(engine);
            self.shared.set_live(self.routes.live());
            let inbox = &self.inbox;
            halt::working(false);
            self.py.detach(|| inbox.wait(IDLE_LOG));
            halt::working(true);
        }
        Ok(())
    }

    fn submit(&mut self, engine: &Engine<'py>, command: Command) {
        let Command {
            id,
            reply_to,
            command,
        } = command;
        let refuse = |error: BridgeError| {
            events::send_failed(reply_to, id, &error.into());
        };

        if !self.routes.open(id, reply_to) {
            return refuse(BridgeError::Invalid(format!("the id {id} is in use")));
        }

        let python = match command.with(|term| value::to_python(self.py, term)) {
            Ok(python) => python,
            Err(error) => {
                self.routes.close(id);
                return refuse(BridgeError::Invalid(format!(
                    "a command cannot have {error}"
                )));
            }
        };

        if let Err(error) = engine.submit(python) {
            self.routes.close(id);
            refuse(python::failure(self.py, &error, "generation_failed"));
        }
    }

    fn deliver(&mut self, engine: &Engine<'py>, event: Event<'py>) -> PyResult<()> {
        let Event {
            id,
            name,
            payload,
            last,
        } = event;
        // The request's process no longer exists, or the request has already failed.
        let Some(process) = self.routes.to(id) else {
            return Ok(());
        };

        match events::send(process, id, &name, &payload) {
            Ok(Sent::Delivered) if last => {
                self.routes.close(id);
            }
            Ok(Sent::Delivered) => {}
            Ok(Sent::Nobody) => {
                self.routes.close(id);
                if !last {
                    engine.cancel(id)?;
                }
            }
            Err(error) => {
                self.routes.close(id);
                let message = format!("the event {name:?} has {error}, which cannot be sent");
                events::send_failed(process, id, &NifError::new("generation_failed", message));
                if !last {
                    engine.cancel(id)?;
                }
            }
        }
        Ok(())
    }

    /// Forwards Python's log. A log that cannot be read does not end the engine.
    fn forward_log(&self, engine: &Engine<'py>) {
        let Ok(lines) = engine.drain_log() else {
            return;
        };
        if let Some(process) = self.shared.log_pid() {
            for (level, message) in lines {
                events::send_log(process, &level, &message);
            }
        }
    }

    /// Fails every live request after the engine crashed.
    fn fail_all(&mut self, engine: &Engine<'py>, error: &BridgeError) {
        let mut failed = NifError::from(error.clone());
        let message = format!(
            "the engine crashed and was started again: {}",
            failed.message
        );
        failed.reason = "engine_crashed";
        failed.message.clone_from(&message);

        self.forward_log(engine);
        if let Some(process) = self.shared.log_pid() {
            let traceback = match error {
                BridgeError::Python { traceback, .. } => format!("\n{traceback}"),
                _ => String::new(),
            };
            events::send_log(process, "error", &format!("{message}{traceback}"));
        }

        self.fail_live(&failed);
    }

    fn fail_live(&mut self, error: &NifError) {
        for (id, process) in self.routes.close_all() {
            events::send_failed(process, id, error);
        }
    }

    fn refuse_queued(&mut self, error: &NifError) {
        self.commands.extend(self.inbox.take().commands);
        for command in self.commands.drain(..) {
            events::send_failed(command.reply_to, command.id, error);
        }
    }

    /// Cancels everything that waits or runs, because the engine stops.
    fn refuse_all(&mut self) {
        let error = NifError::new("cancelled", "the engine was stopped");
        self.shared.close_gate();
        self.refuse_queued(&error);
        self.fail_live(&error);
    }
}
