use rustler::Env;
use rustler::sys::enif_is_current_process_alive;

/// Whether the process that called this NIF is alive. If it was killed, nobody receives the answer, and you can
/// stop the work.
pub fn caller_is_alive(env: Env) -> bool {
    // SAFETY: the environment is that of the running call, on the thread that runs it.
    unsafe { enif_is_current_process_alive(env.as_c_arg()) != 0 }
}
