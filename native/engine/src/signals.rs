//! Changes the disposition of the one signal for which Python needs it.

use std::mem::MaybeUninit;

/// Lets Python wait for its child processes.
///
/// The VM ignores SIGCHLD. If a process ignores it, the kernel discards the exit statuses of its children,
/// and every `subprocess.run` would return 0. The default disposition also does nothing when a child ends,
/// but keeps its status. This does not affect the VM, which starts its own programs from a helper process.
/// If an application handles SIGCHLD, its handler stays.
pub fn keep_exit_statuses() {
    // SAFETY: plain system calls on a local struct, which the first one fills in.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        if libc::sigaction(libc::SIGCHLD, std::ptr::null(), action.as_mut_ptr()) != 0 {
            return;
        }

        let mut action = action.assume_init();
        if action.sa_sigaction == libc::SIG_IGN {
            action.sa_sigaction = libc::SIG_DFL;
            action.sa_flags = 0;
            libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    // One test, because a disposition belongs to the whole process.
    #[test]
    fn statuses_are_kept_where_the_signal_was_ignored() {
        let status = || {
            Command::new("false")
                .status()
                .map(|status| status.success())
        };

        // SAFETY: sets a disposition that needs no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        assert!(status().is_err(), "an ignored signal loses the status");

        keep_exit_statuses();
        assert!(!status().unwrap());

        extern "C" fn handler(_: libc::c_int) {}
        // SAFETY: the handler does nothing.
        let before = unsafe { libc::signal(libc::SIGCHLD, handler as *const () as usize) };
        assert_eq!(before, libc::SIG_DFL);
        keep_exit_statuses();
        // SAFETY: as above.
        let kept = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        assert_eq!(kept, handler as *const () as usize);
    }
}
