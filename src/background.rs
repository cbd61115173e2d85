//! Threads that may wait: they step back where receiving wants the processor too.

/// How far, as a nice level.
const NICE: i32 = 10;

/// Of the calling thread only, as Linux has it. Where the whole process has stepped back further, or
/// none may, nothing changes.
pub fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or_default();
        tracing::debug!(%error, thread, "a thread goes at the level of receiving");
    }
}
