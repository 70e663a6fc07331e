//! Builtins for jobs and signals.

use std::rc::Rc;

use crate::executor::{self, Either};
use crate::sh::process;
use crate::sh::shell::{Outcome, Shell};

pub async fn jobs(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    shell.jobs.look().await;
    let only_pid = arguments.get(1).is_some_and(|argument| argument == "-p");
    let with_pid = arguments.get(1).is_some_and(|argument| argument == "-l");
    let mut lines = String::new();
    let count = shell.jobs.0.len();
    for (place, job) in shell.jobs.0.iter().enumerate() {
        if only_pid {
            lines.push_str(&format!("{}\n", job.process.pid));
            continue;
        }
        let mark = match count - place {
            1 => '+',
            2 => '-',
            _ => ' ',
        };
        let state = state(job.status());
        let pid = if with_pid {
            format!("{:<6}", job.process.pid)
        } else {
            String::new()
        };
        lines.push_str(&format!(
            "[{}]{mark}  {pid}{state:<24}{}\n",
            job.number, job.text
        ));
    }
    shell.jobs.0.retain(|job| job.status().is_none());
    shell.print(&lines).await
}

fn state(status: Option<i32>) -> String {
    match status {
        None => "Running".to_owned(),
        Some(0) => "Done".to_owned(),
        Some(130) => "Interrupt".to_owned(),
        Some(137) => "Killed".to_owned(),
        Some(143) => "Terminated".to_owned(),
        Some(status) => format!("Done({status})"),
    }
}

impl Shell {
    /// Tells a person of jobs that are done.
    pub async fn tell_jobs(&mut self) {
        self.jobs.look().await;
        let mut lines = String::new();
        for job in self.jobs.0.iter().filter(|job| job.status().is_some()) {
            lines.push_str(&format!(
                "[{}]+  {:<24}{}\n",
                job.number,
                state(job.status()),
                job.text
            ));
        }
        self.jobs.0.retain(|job| job.status().is_none());
        let stream = self.descriptor(2);
        // Nobody is left to tell.
        let _ = stream.write_all(lines.as_bytes()).await;
    }

    /// Waits for a job, or until a signal comes that is caught.
    async fn wait_for(&mut self, place: usize) -> Outcome {
        let process = Rc::clone(&self.process);
        let Some(job) = self.jobs.0.get_mut(place) else {
            return Ok(127);
        };
        match executor::either(process.called(), job.wait()).await {
            Either::First(()) => {
                let signal = (1..65).find(|signal| process.has(*signal)).unwrap_or(0);
                self.turn().await?;
                Ok(128 + i32::from(signal))
            }
            Either::Second(status) => {
                let job = self.jobs.0.remove(place);
                if let Some(words) = job.process.epitaph() {
                    let stream = self.descriptor(2);
                    // Nobody is left to tell.
                    let _ = stream.write_all(format!("{words}\n").as_bytes()).await;
                }
                Ok(status)
            }
        }
    }
}

pub async fn wait(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    if arguments.len() < 2 {
        while !shell.jobs.0.is_empty() {
            let status = shell.wait_for(0).await?;
            // A trap ran: `wait` is over.
            if status > 128
                && shell
                    .jobs
                    .0
                    .first()
                    .is_some_and(|job| job.status().is_none())
                && shell.traps.contains_key(&((status - 128) as u8))
            {
                return Ok(status);
            }
        }
        return Ok(0);
    }
    let mut status = 0;
    for operand in arguments.get(1..).unwrap_or_default() {
        status = match shell.jobs.find(operand) {
            Some(place) => shell.wait_for(place).await?,
            None if operand.starts_with('%') => {
                return shell.fail(&format!("{operand}: no such job")).await;
            }
            None if operand.parse::<u32>().is_err() => {
                return shell.fail(&format!("Illegal number: {operand}")).await;
            }
            None => 127,
        };
    }
    Ok(status)
}

pub async fn fg(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let name = arguments.get(1).map_or("%+", String::as_str).to_owned();
    let Some(place) = shell.jobs.find(&name) else {
        return shell.fail(&format!("{name}: no such job")).await;
    };
    let text = shell
        .jobs
        .0
        .get(place)
        .map(|job| job.text.clone())
        .unwrap_or_default();
    shell.print(&format!("{text}\n")).await?;
    shell.wait_for(place).await
}

/// A job in the background goes on there: nothing can stop it.
pub async fn bg(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let name = arguments.get(1).map_or("%+", String::as_str).to_owned();
    match shell.jobs.find(&name) {
        Some(_) => Ok(0),
        None => shell.fail(&format!("{name}: no such job")).await,
    }
}

pub async fn kill(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut signal = process::TERM;
    let mut at = 1;
    match arguments.get(1).map(String::as_str) {
        Some("-l") => {
            let line = match arguments.get(2) {
                Some(text) => match text
                    .parse::<i32>()
                    .ok()
                    .map(|number| number & 0x7F)
                    .and_then(|number| u8::try_from(number).ok())
                {
                    Some(number) => format!("{}\n", process::name(number)),
                    None => match process::signal(text) {
                        Some(number) => format!("{number}\n"),
                        None => return shell.refuse(&format!("unknown signal '{text}'"), 1).await,
                    },
                },
                None => process::names()
                    .iter()
                    .enumerate()
                    .map(|(place, name)| format!("{:2}) {name}\n", place + 1))
                    .collect(),
            };
            return shell.print(&line).await;
        }
        Some("--") => at = 2,
        Some(option) if option.starts_with('-') && option.len() > 1 => {
            let text = match option {
                "-s" => {
                    at = 3;
                    arguments.get(2).map(String::as_str).unwrap_or_default()
                }
                option => {
                    at = 2;
                    option.get(1..).unwrap_or_default()
                }
            };
            match process::signal(text) {
                Some(found) => signal = found,
                None => return shell.refuse(&format!("bad signal name '{text}'"), 1).await,
            }
        }
        _ => {}
    }
    let operands = arguments.get(at..).unwrap_or_default();
    if operands.is_empty() {
        return shell.refuse("you need to specify whom to kill", 1).await;
    }
    let mut status = 0;
    for operand in operands {
        let found = match shell.jobs.find(operand) {
            Some(place) => shell.jobs.0.get(place).map(|job| Rc::clone(&job.process)),
            None => match operand.parse::<i64>() {
                Ok(0) => Some(Rc::clone(&shell.process)),
                Ok(number) => u32::try_from(number.abs()).ok().and_then(process::find),
                Err(_) => {
                    shell.complain(&format!("invalid number '{operand}'")).await;
                    status = 1;
                    continue;
                }
            },
        };
        match found {
            Some(process) => process.send(signal),
            None => {
                shell
                    .complain(&format!("can't kill pid {operand}: No such process"))
                    .await;
                status = 1;
            }
        }
    }
    executor::yield_now().await;
    Ok(status)
}
