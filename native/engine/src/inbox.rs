//! Commands, cancels and controls that wait for the model thread.

use std::time::Duration;

use crossbeam_channel::{Receiver, Select};

/// The receiving ends of the model thread's three channels.
///
/// Commands are bounded and may be refused; cancels and controls (start, stop) never are.
pub struct Inbox<C, K> {
    commands: Receiver<C>,
    cancels: Receiver<i64>,
    controls: Receiver<K>,
}

/// The commands and cancels that were waiting at one moment.
#[derive(Debug, PartialEq)]
pub struct Batch<C> {
    /// Submit these first, in order.
    pub commands: Vec<C>,
    /// Then cancel these.
    pub cancels: Vec<i64>,
}

impl<C, K> Inbox<C, K> {
    /// Creates an inbox over these channels.
    pub fn new(commands: Receiver<C>, cancels: Receiver<i64>, controls: Receiver<K>) -> Self {
        Self {
            commands,
            cancels,
            controls,
        }
    }

    /// Takes everything that waits, without blocking.
    ///
    /// A cancel must not overtake its command. So cancels are taken first: each one's command was sent
    /// earlier, and therefore waits already. Later commands are left for the next batch, so that a fast
    /// sender cannot keep the engine from its work.
    pub fn take(&self) -> Batch<C> {
        let cancels = self.cancels.try_iter().take(self.cancels.len()).collect();
        let waiting = self.commands.len();
        let commands = self.commands.try_iter().take(waiting).collect();

        Batch { commands, cancels }
    }

    /// Removes and returns the next control, if one waits.
    pub fn control(&self) -> Option<K> {
        self.controls.try_recv().ok()
    }

    /// Blocks until something waits or the time is up. Takes nothing.
    pub fn wait(&self, at_most: Duration) {
        let mut select = Select::new();
        select.recv(&self.commands);
        select.recv(&self.cancels);
        select.recv(&self.controls);
        let _ = select.ready_timeout(at_most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Sender, bounded, unbounded};
    use std::thread;

    type Ends = (Sender<i64>, Sender<i64>, Sender<()>, Inbox<i64, ()>);

    fn inbox(bound: usize) -> Ends {
        let (command, commands) = bounded(bound);
        let (cancel, cancels) = unbounded();
        let (control, controls) = unbounded();
        (
            command,
            cancel,
            control,
            Inbox::new(commands, cancels, controls),
        )
    }

    #[test]
    fn takes_all_that_waits_in_order() {
        let (command, cancel, _control, inbox) = inbox(8);
        command.send(1).unwrap();
        command.send(2).unwrap();
        cancel.send(1).unwrap();

        let batch = inbox.take();
        assert_eq!(batch.commands, [1, 2]);
        assert_eq!(batch.cancels, [1]);
        assert_eq!(
            inbox.take(),
            Batch {
                commands: vec![],
                cancels: vec![]
            }
        );
    }

    #[test]
    fn a_full_queue_refuses_and_cancels_still_pass() {
        let (command, cancel, _control, inbox) = inbox(1);
        command.try_send(1).unwrap();
        assert!(command.try_send(2).is_err());

        for id in 0..10_000 {
            cancel.send(id).unwrap();
        }
        assert_eq!(inbox.take().cancels.len(), 10_000);
    }

    #[test]
    fn no_cancel_overtakes_its_command() {
        const REQUESTS: i64 = 20_000;
        let (command, cancel, _control, inbox) = inbox(4);

        let sender = thread::spawn(move || {
            for id in 0..REQUESTS {
                command.send(id).unwrap();
                cancel.send(id).unwrap();
            }
        });

        let mut submitted = -1;
        let mut cancelled = 0;
        while cancelled < REQUESTS {
            let batch = inbox.take();
            if let Some(last) = batch.commands.last() {
                submitted = *last;
            }
            for id in &batch.cancels {
                assert!(
                    *id <= submitted,
                    "cancel {id} came with {submitted} submitted"
                );
            }
            cancelled += batch.cancels.len() as i64;
            inbox.wait(Duration::from_millis(10));
        }
        sender.join().unwrap();
    }

    #[test]
    fn waiting_ends_with_each_kind_and_takes_nothing() {
        let (command, cancel, control, inbox) = inbox(1);
        let long = Duration::from_secs(60);

        command.send(7).unwrap();
        inbox.wait(long);
        assert_eq!(inbox.take().commands, [7]);

        cancel.send(8).unwrap();
        inbox.wait(long);
        assert_eq!(inbox.take().cancels, [8]);

        control.send(()).unwrap();
        inbox.wait(long);
        assert!(inbox.control().is_some() && inbox.control().is_none());
    }

    #[test]
    fn waiting_ends_when_the_senders_are_gone() {
        let (command, _cancel, _control, inbox) = inbox(1);
        drop(command);
        inbox.wait(Duration::from_secs(60));
        assert!(inbox.take().commands.is_empty());
    }
}
