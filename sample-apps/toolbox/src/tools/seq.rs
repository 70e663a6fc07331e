//! `seq` and `yes`: numbers in a row, and one line for ever.

use super::call::{Call, Ended, Stop};

/// `seq [-w] [-s SEP] [-f FORMAT] [FIRST [INC]] LAST`. Negative numbers are no options.
pub async fn seq(call: &mut Call) -> Ended {
    let wrong = || {
        Stop::Said(
            1,
            "Usage: seq [-w] [-s SEP] [-f FMT] [FIRST [INC]] LAST\n".into(),
        )
    };
    let (mut equal_width, mut separator, mut format) = (false, "\n".to_owned(), None);
    let mut numbers: Vec<String> = Vec::new();
    let mut args = std::mem::take(&mut call.args).into_iter();
    while let Some(arg) = args.next() {
        let number = arg
            .trim_start_matches(['-', '+'])
            .starts_with(|c: char| c.is_ascii_digit() || c == '.');
        if number || !arg.starts_with('-') || !numbers.is_empty() {
            numbers.push(arg);
            continue;
        }
        match arg.as_str() {
            "-w" | "--equal-width" => equal_width = true,
            "-s" | "--separator" => separator = args.next().ok_or_else(wrong)?,
            "-f" | "--format" => format = Some(args.next().ok_or_else(wrong)?),
            "--" => numbers.extend(args.by_ref()),
            _ => match (arg.strip_prefix("-s"), arg.strip_prefix("-f")) {
                (Some(text), _) => separator = text.to_owned(),
                (_, Some(text)) => format = Some(text.to_owned()),
                _ => {
                    let letter = arg.chars().nth(1).unwrap_or('-');
                    call.fault(format!("invalid option -- '{letter}'")).await;
                    return Err(wrong());
                }
            },
        }
    }
    let number = |text: &str| -> Result<f64, Stop> {
        text.parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .ok_or_else(|| Stop::failed(format!("invalid number '{text}'")))
    };
    let (first, step, last) = match numbers.as_slice() {
        [last] => ("1", "1", last.as_str()),
        [first, last] => (first.as_str(), "1", last.as_str()),
        [first, step, last] => (first.as_str(), step.as_str(), last.as_str()),
        _ => return Err(wrong()),
    };
    let places = |text: &str| {
        text.split_once('.')
            .map_or(0, |(_, fraction)| fraction.len())
    };
    let places = places(first).max(places(step)).min(17);
    let texts = (first, last);
    let (first, step, last) = (number(first)?, number(step)?, number(last)?);
    if step == 0.0 {
        return Err(Stop::failed("invalid zero increment value"));
    }
    let width = match equal_width {
        false => 0,
        true => {
            let width = |text: &str, value: f64| {
                format!("{value:.places$}")
                    .len()
                    .max(if places == 0 { text.len() } else { 0 })
            };
            width(texts.0, first).max(width(texts.1, last))
        }
    };
    let mut count = 0u64;
    loop {
        let value = first + step * count as f64;
        // Half a step of the last place is what rounding can have added.
        let slack = step.abs() * 1e-9;
        if step > 0.0 && value > last + slack || step < 0.0 && value < last - slack {
            break;
        }
        let text = match &format {
            None => format!("{value:0width$.places$}"),
            Some(format) => {
                let values = [super::printf::Value::Text(value.to_string().into_bytes())];
                String::from_utf8_lossy(
                    &super::printf::format(format.as_bytes(), &values, false).bytes,
                )
                .into_owned()
            }
        };
        if count > 0 {
            call.out(&separator).await?;
        }
        call.out(text).await?;
        count += 1;
    }
    if count > 0 {
        call.out("\n").await?;
    }
    Ok(0)
}

/// `yes [STRING]...`
pub async fn yes(call: &mut Call) -> Ended {
    let line = match call.args.is_empty() {
        true => "y\n".to_owned(),
        false => format!("{}\n", call.args.join(" ")),
    };
    let block = line.repeat((4096 / line.len()).max(1));
    loop {
        call.out(&block).await?;
    }
}
