//! Panics of raft-rs as values: their text and place, and nothing on stderr.
use crate::fail::{Fail, Result};
use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `f`; its panic is a `Fail::Fatal`. What `f` was changing may be half changed then: the
/// caller must not use it again.
pub fn caught<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| match CATCHING.get() {
            true => LAST.set(describe(info)),
            false => before(info),
        }));
    });
    CATCHING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(f));
    CATCHING.set(false);
    outcome.unwrap_or_else(|_| Err(Fail::Fatal(LAST.take())))
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("panic");
    match info.location() {
        Some(at) => {
            let file = at.file().rsplit('/').next().unwrap_or_default();
            format!("{text} [{file}:{}]", at.line())
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_text_and_place() {
        let result: Result<()> = caught(|| panic!("broken {}", 7));
        let Err(Fail::Fatal(text)) = result else {
            panic!("not fatal")
        };
        assert!(text.starts_with("broken 7 [caught.rs:"), "{text}");
    }

    #[test]
    fn what_does_not_panic_passes() {
        assert_eq!(caught(|| Ok(3)).unwrap(), 3);
        assert!(matches!(
            caught(|| -> Result<()> { Err(Fail::Value("no".into())) }),
            Err(Fail::Value(_))
        ));
    }
}
