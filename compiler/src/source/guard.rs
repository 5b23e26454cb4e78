//! Keeps panics of the ONNX reader from ending the process.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Mutex, PoisonError};

/// Holds whoever has replaced the process's panic hook.
static HOOK: Mutex<()> = Mutex::new(());

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` and returns the message of the panic if it panics. The panic is not printed: for the duration of the call
/// the process's panic hook is replaced by one that is silent on this thread and calls the former hook on all others;
/// then the former hook is put back. Calls exclude each other, and do not nest.
///
/// # Errors
/// The panic's message.
pub fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    let _lock = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let former: Arc<Hook> = Arc::new(take_hook());
    let loud = Arc::clone(&former);
    set_hook(Box::new(move |info| {
        if !SILENT.get() {
            loud(info);
        }
    }));
    SILENT.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    SILENT.set(false);
    drop(take_hook());
    set_hook(Arc::try_unwrap(former).unwrap_or_else(|former| Box::new(move |info| former(info))));
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "panic".into())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_the_hook_comes_back() {
        assert_eq!(guarded(|| 3), Ok(3));
        assert_eq!(guarded(|| -> u8 { panic!("boom {}", 1) }), Err("boom 1".to_string()));
        assert_eq!(guarded(|| -> u8 { panic!("plain") }), Err("plain".to_string()));
        assert!(!SILENT.get());
        assert_eq!(guarded(|| 4), Ok(4));
    }
}
