//! Jobs in the background: tasks that a shell started with `&`.
//!
//! A shell owns its jobs. When a subshell ends before its jobs do, they go on as orphans, which the program owns and
//! which end with it.

use std::cell::RefCell;
use std::rc::Rc;

use super::process::Process;
use crate::executor::Task;

pub struct Job {
    pub number: u32,
    pub process: Rc<Process>,
    pub text: String,
    task: Task<i32>,
    status: Option<i32>,
}

impl Job {
    pub fn status(&self) -> Option<i32> {
        self.status
    }

    /// The status if it is there by now.
    async fn look(&mut self) -> Option<i32> {
        if self.status.is_none() && self.task.is_done() {
            self.status = Some((&mut self.task).await);
        }
        self.status
    }

    /// Waits until the job is done.
    pub async fn wait(&mut self) -> i32 {
        match self.status {
            Some(status) => status,
            None => *self.status.insert((&mut self.task).await),
        }
    }
}

#[derive(Default)]
pub struct Jobs(pub Vec<Job>);

thread_local! {
    static ORPHANS: RefCell<Vec<Task<i32>>> = const { RefCell::new(Vec::new()) };
}

/// A shell keeps the statuses of so many jobs that are done and were not asked for.
const DONE_MAX: usize = 1024;

impl Jobs {
    /// Takes a job in and gives its number.
    pub fn add(&mut self, process: Rc<Process>, text: String, task: Task<i32>) -> u32 {
        let is_done = |job: &Job| job.task.is_done() || job.status.is_some();
        let oldest = self.0.iter().position(is_done);
        if let Some(oldest) = oldest.filter(|_| self.0.len() >= DONE_MAX) {
            self.0.remove(oldest);
        }
        let number = self.0.iter().map(|job| job.number).max().unwrap_or(0) + 1;
        self.0.push(Job {
            number,
            process,
            text,
            task,
            status: None,
        });
        number
    }

    /// Notes which are done.
    pub async fn look(&mut self) {
        for job in &mut self.0 {
            job.look().await;
        }
    }

    /// Where the job is that `%1`, `%+`, `%name` or a process' number means.
    pub fn find(&self, text: &str) -> Option<usize> {
        let Some(rest) = text.strip_prefix('%') else {
            let pid = text.parse().ok()?;
            return self.0.iter().position(|job| job.process.pid == pid);
        };
        match rest {
            "" | "%" | "+" => self.0.len().checked_sub(1),
            "-" => self.0.len().checked_sub(2),
            _ => match rest.parse() {
                Ok(number) => self.0.iter().position(|job: &Job| job.number == number),
                Err(_) => self.0.iter().position(|job| job.text.starts_with(rest)),
            },
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        let going = self
            .0
            .drain(..)
            .filter(|job| job.status.is_none() && !job.task.is_done());
        let going: Vec<_> = going.map(|job| job.task).collect();
        // Gone already where the thread itself ends.
        let done = ORPHANS.try_with(|orphans| {
            let mut orphans = orphans.borrow_mut();
            let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut *orphans)
                .into_iter()
                .partition(Task::is_done);
            *orphans = rest;
            orphans.extend(going);
            done
        });
        drop(done);
    }
}

/// Ends what subshells left behind, at the end of the program.
pub fn end_orphans() {
    let orphans = ORPHANS.with(|orphans| orphans.take());
    drop(orphans);
}
