//! Threads: one pool for the process, which grows to what was asked for and sleeps in between.
//!
//! A job is a number of items. The caller works on it too, and takes back what no worker has begun once it runs out of
//! items, so a busy pool costs a caller nothing but the help.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::KernelError;

/// An item by its index.
type Work<'a> = &'a (dyn Fn(usize) -> Result<(), KernelError> + Sync);

struct Job {
    work: Work<'static>,
    count: usize,
    next: AtomicUsize,
}

impl Job {
    /// Takes items until there are none.
    fn work(&self) -> Result<(), KernelError> {
        loop {
            let item = self.next.fetch_add(1, Ordering::Relaxed);
            if item >= self.count {
                return Ok(());
            }
            if let Err(error) = (self.work)(item) {
                self.next.store(self.count, Ordering::Relaxed);
                return Err(error);
            }
        }
    }
}

/// What became of a worker's part of a job.
type Outcome = Result<Result<(), KernelError>, Box<dyn Any + Send>>;

struct Entry {
    job: Arc<Job>,
    /// Workers that may still join.
    free: usize,
    /// Workers that have joined and not left.
    active: usize,
    /// The first outcome that is not plain success.
    failure: Option<Outcome>,
}

struct State {
    workers: usize,
    entries: Vec<Entry>,
}

static STATE: Mutex<State> = Mutex::new(State { workers: 0, entries: Vec::new() });
static OFFERED: Condvar = Condvar::new();
static LEFT: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` for each item below `count` on up to `threads` threads, this one among them; the first error wins.
pub fn run(
    threads: usize,
    count: usize,
    work: &(dyn Fn(usize) -> Result<(), KernelError> + Sync),
) -> Result<(), KernelError> {
    let helpers = threads.min(count).saturating_sub(1);
    if helpers == 0 {
        return (0..count).try_for_each(work);
    }
    // SAFETY: the reference is used by workers that have joined the job only, and `Offer` waits for all of them and
    // withdraws the job before this function returns or unwinds.
    let work = unsafe { std::mem::transmute::<Work<'_>, Work<'static>>(work) };
    let job = Arc::new(Job { work, count, next: AtomicUsize::new(0) });
    let offer = Offer::new(&job, helpers);
    let own = job.work();
    let others = offer.withdraw();
    match others {
        Some(Err(panic)) => resume_unwind(panic),
        Some(Ok(result)) => own.and(result),
        None => own,
    }
}

/// A job that workers may join, until this is dropped.
struct Offer<'a> {
    job: &'a Arc<Job>,
}

impl<'a> Offer<'a> {
    fn new(job: &'a Arc<Job>, helpers: usize) -> Offer<'a> {
        let mut state = state();
        while state.workers < helpers && std::thread::Builder::new().name("kernels".into()).spawn(worker).is_ok() {
            state.workers += 1;
        }
        state.entries.push(Entry { job: job.clone(), free: helpers, active: 0, failure: None });
        drop(state);
        (0..helpers).for_each(|_| OFFERED.notify_one());
        Offer { job }
    }

    fn withdraw(self) -> Option<Outcome> {
        let failure = self.wait();
        std::mem::forget(self);
        failure
    }

    fn wait(&self) -> Option<Outcome> {
        let mut state = state();
        loop {
            let index = state.entries.iter().position(|e| Arc::ptr_eq(&e.job, self.job))?;
            let entry = &mut state.entries[index];
            entry.free = 0;
            if entry.active == 0 {
                return state.entries.swap_remove(index).failure;
            }
            state = LEFT.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        self.job.next.store(self.job.count, Ordering::Relaxed);
        self.wait();
    }
}

fn worker() {
    let mut guard = state();
    loop {
        let Some(entry) = guard.entries.iter_mut().find(|e| e.free > 0) else {
            guard = OFFERED.wait(guard).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        entry.free -= 1;
        entry.active += 1;
        let job = entry.job.clone();
        drop(guard);
        let outcome = catch_unwind(AssertUnwindSafe(|| job.work()));
        guard = state();
        if let Some(entry) = guard.entries.iter_mut().find(|e| Arc::ptr_eq(&e.job, &job)) {
            entry.active -= 1;
            if entry.failure.is_none() && !matches!(outcome, Ok(Ok(()))) {
                entry.failure = Some(outcome);
            }
        }
        LEFT.notify_all();
    }
}
