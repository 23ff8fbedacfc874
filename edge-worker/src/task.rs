//! What is under way: a task for each request, and the outcomes that tasks wait for.
//!
//! wasm-bindgen has futures for JavaScript's promises. They cost two closures and two turns of the event loop for each
//! wait; here a wait is a number, and the promise's outcome runs the task at once. No two waits ever have the same number,
//! so an outcome that comes late finds nobody.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use wasm_bindgen::JsValue;

use crate::shell;

/// How something that a task waited for has ended.
pub(crate) enum Outcome {
    Nothing,
    Flag(bool),
    Bytes(Vec<u8>),
    Text(String),
    Key(JsValue),
    Failed(Failure),
}

/// A JavaScript exception.
pub(crate) struct Failure {
    /// Its class: what to tell them apart by.
    pub(crate) name: String,
    /// For the log.
    pub(crate) message: String,
}

type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The longest that a task is kept, in milliseconds: more than anything that it may wait for. workerd drops a request whose
/// client has gone and tells nobody, so that its task would otherwise be kept for good.
const MAX_AGE: f64 = 300_000.0;

#[derive(Default)]
struct Tasks {
    futures: BTreeMap<u32, TaskFuture>,
    /// The tasks by age, with the time of their start; some may be done.
    by_age: VecDeque<(u32, f64)>,
    /// Which task each wait belongs to, and its outcome once that is there.
    waits: BTreeMap<u32, (u32, Option<Outcome>)>,
    last_wait: u32,
    /// The task that runs now.
    running: u32,
}

thread_local! {
    static TASKS: Rc<RefCell<Tasks>> = Rc::default();
}

fn tasks() -> Rc<RefCell<Tasks>> {
    TASKS.with(Rc::clone)
}

/// Runs a task under a number of the shell's until it waits for something, and again whenever that has come.
pub(crate) fn start(number: u32, task: impl Future<Output = ()> + 'static) {
    end_the_oldest();
    tasks().borrow_mut().by_age.push_back((number, shell::now()));
    run(number, Box::pin(task));
}

fn run(number: u32, mut task: TaskFuture) {
    let before = std::mem::replace(&mut tasks().borrow_mut().running, number);
    // Nothing is woken: the task runs when an outcome has come, and looks for it itself.
    let poll = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let tasks = tasks();
    let mut tasks = tasks.borrow_mut();
    tasks.running = before;
    if poll.is_pending() {
        tasks.futures.insert(number, task);
    }
}

/// Says how something has ended, and runs the task that waits for it.
pub(crate) fn settle(wait: u32, outcome: Outcome) {
    let task = {
        let tasks = tasks();
        let mut tasks = tasks.borrow_mut();
        let Some((number, place)) = tasks.waits.get_mut(&wait) else { return };
        *place = Some(outcome);
        let number = *number;
        tasks.futures.remove(&number).map(|task| (number, task))
    };
    if let Some((number, task)) = task {
        run(number, task);
    }
}

/// Ends the tasks whose clients must have been gone for long.
fn end_the_oldest() {
    loop {
        let ended = {
            let tasks = tasks();
            let mut tasks = tasks.borrow_mut();
            match tasks.by_age.front().copied() {
                Some((number, started)) => {
                    let under_way = tasks.futures.contains_key(&number);
                    if under_way && shell::now() - started < MAX_AGE {
                        return;
                    }
                    tasks.by_age.pop_front();
                    tasks.futures.remove(&number).map(|task| (number, task))
                }
                None => return,
            }
        };
        // Its waits borrow what holds the tasks as they go.
        if let Some((number, task)) = ended {
            drop(task);
            shell::forget(number);
        }
    }
}

/// Something that the running task waits for.
pub(crate) struct Wait(u32);

impl Wait {
    /// Asks the shell for something, under the number that it is to be settled by.
    pub(crate) fn on(ask: impl FnOnce(u32)) -> Self {
        let number = {
            let tasks = tasks();
            let mut tasks = tasks.borrow_mut();
            tasks.last_wait = tasks.last_wait.wrapping_add(1);
            let (number, task) = (tasks.last_wait, tasks.running);
            tasks.waits.insert(number, (task, None));
            number
        };
        ask(number);
        Self(number)
    }
}

impl Future for Wait {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Outcome> {
        let tasks = tasks();
        let mut tasks = tasks.borrow_mut();
        let outcome = tasks.waits.get_mut(&self.0).and_then(|(_, outcome)| outcome.take());
        outcome.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        tasks().borrow_mut().waits.remove(&self.0);
    }
}
