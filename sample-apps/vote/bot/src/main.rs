//! The bot of the vote app: a command that votes for ever, so that there is traffic to look at.
//!
//! Environment: `WEB` (default `http://web`), `RATE` in votes a second (default 2), `VOTES` in all (default 0: no end).
//! Every vote is a line in its log. One of ten goes to the vote that fails.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use weft::http::StatusCode;

/// How often the vote goes to `:doughnut:`, which fails on purpose.
const DOUGHNUT_EVERY: u64 = 10;

/// How long the bot waits before it asks again for a list that it could not get.
const LIST_RETRY: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Emoji {
    shortcode: String,
}

fn main() -> ExitCode {
    match weft::block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            weft::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), weft::env::EnvError> {
    let web = weft::env::var("WEB").unwrap_or_else(|| "http://web".to_owned());
    let rate: f64 = weft::env::parse("RATE", 2.0)?;
    let votes: u64 = weft::env::parse("VOTES", 0)?;
    let pause = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::from_secs(1));
    let list = loop {
        match list(&web).await {
            Ok(list) if !list.is_empty() => break list,
            Ok(_) => weft::warn!("{web} knows no emoji"),
            Err(error) => weft::warn!("{web}: {error}"),
        }
        weft::time::sleep(LIST_RETRY).await;
    };
    weft::info!(
        "voting at {web}, {rate} a second, {} emoji to choose from",
        list.len()
    );
    for number in 1.. {
        let choice = choose(&list, number);
        match vote(&web, choice).await {
            Ok(status) if status.is_success() => {
                weft::info!("vote {number} {choice} {}", status.as_u16())
            }
            Ok(status) => weft::warn!("vote {number} {choice} {}", status.as_u16()),
            Err(error) => weft::warn!("vote {number} {choice} {error}"),
        }
        if number == votes {
            break;
        }
        weft::time::sleep(pause).await;
    }
    Ok(())
}

async fn list(web: &str) -> Result<Vec<Emoji>, Box<dyn Display>> {
    let response = weft::http::get(format!("{web}/api/list"))
        .await
        .map_err(boxed)?;
    match response.status() {
        StatusCode::OK => response.into_body().json().await.map_err(boxed),
        status => Err(boxed(status)),
    }
}

fn boxed(error: impl Display + 'static) -> Box<dyn Display> {
    Box::new(error)
}

async fn vote(web: &str, choice: &str) -> Result<StatusCode, weft::http::Error> {
    Ok(weft::http::post(
        format!("{web}/api/vote?choice={choice}"),
        weft::Body::empty(),
    )
    .await?
    .status())
}

/// Spreads the votes unevenly and without a random source: squares visit some entries often and others never.
fn choose(list: &[Emoji], number: u64) -> &str {
    if number.is_multiple_of(DOUGHNUT_EVERY) {
        return ":doughnut:";
    }
    let index = number.wrapping_mul(number) % list.len() as u64;
    &list[index as usize].shortcode
}
