//! What a person sees while the machine works: one line a step, with the time that it took.
#![expect(clippy::print_stderr, reason = "progress is for the person at the terminal; results go to stdout")]

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

/// Steps faster than this are not worth a line of their own.
const INSTANT: Duration = Duration::from_millis(30);

/// A step under way. Dropped without [`Step::done`], it has failed.
#[derive(Debug)]
pub struct Step {
    text: String,
    started: Instant,
    show: Show,
    finished: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Show {
    Nothing,
    OneLine,
    TwoLines,
}

impl Step {
    /// A step that prints nothing itself while it runs: its time comes on the same line.
    #[must_use]
    pub fn quiet(text: impl Into<String>) -> Self {
        Self::start(text.into(), Show::OneLine)
    }

    /// A quiet step, or one that says nothing at all: library code that a person need not be watching.
    #[must_use]
    pub fn quiet_if(shown: bool, text: impl Into<String>) -> Self {
        Self::start(text.into(), if shown { Show::OneLine } else { Show::Nothing })
    }

    /// A step whose tool shows its own progress below.
    #[must_use]
    pub fn loud(text: impl Into<String>) -> Self {
        Self::start(text.into(), Show::TwoLines)
    }

    fn start(text: String, show: Show) -> Self {
        match show {
            Show::Nothing => {}
            Show::OneLine => eprint!("  {text} …"),
            Show::TwoLines => eprintln!("  {text} …"),
        }
        // A terminal that is gone is no reason to stop working.
        let _ = std::io::stderr().flush();
        Self { text, started: Instant::now(), show, finished: false }
    }

    /// The step has succeeded.
    pub fn done(self) {
        self.done_with("");
    }

    /// The step has succeeded, and this is worth saying about it.
    pub fn done_with(mut self, note: &str) {
        self.finished = true;
        let time = self.started.elapsed();
        let note = if note.is_empty() { String::new() } else { format!("{note}, ") };
        let time = if time < INSTANT { "at once".to_owned() } else { format!("{:.1} s", time.as_secs_f64()) };
        self.end(&format!("{note}{time}"));
    }
}

impl Step {
    fn end(&self, result: &str) {
        match self.show {
            Show::Nothing => {}
            Show::OneLine => eprintln!(" {result}"),
            Show::TwoLines => eprintln!("  {}: {result}", self.text),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.end("not done");
        }
    }
}

/// A remark between steps.
pub fn note(text: &str) {
    eprintln!("  {text}");
}

/// The start of a group of steps.
pub fn heading(text: &str) {
    eprintln!("{text}");
}
