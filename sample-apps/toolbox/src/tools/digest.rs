//! `md5sum`, `sha1sum`, `sha256sum`, `sha512sum`: sums of files, and checks of lists of them.

use md5::Md5;
use sha1::Sha1;
use sha2::digest::{Digest, DynDigest};
use sha2::{Sha224, Sha256, Sha384, Sha512};

use super::call::{Call, Ended, Stop, cannot_open};
use super::flags::Usage;

const USAGE: Usage = Usage::new("sha256sum [-cswbt] [FILE]...", "cswbtq").long(&[
    ("check", 'c'),
    ("status", 's'),
    ("warn", 'w'),
    ("binary", 'b'),
    ("text", 't'),
    ("quiet", 'q'),
]);

fn hasher(name: &str) -> Box<dyn DynDigest> {
    match name {
        "md5sum" => Box::new(Md5::new()),
        "sha1sum" => Box::new(Sha1::new()),
        "sha224sum" => Box::new(Sha224::new()),
        "sha384sum" => Box::new(Sha384::new()),
        "sha512sum" => Box::new(Sha512::new()),
        _ => Box::new(Sha256::new()),
    }
}

pub async fn sum(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    if !flags.has('c') {
        for name in flags.files() {
            if let Some(hex) = of_file(call, &name).await {
                call.out(format!("{hex}  {name}\n")).await?;
            }
        }
        return Ok(call.code);
    }
    let quiet = flags.has('s');
    for list in flags.files() {
        let mut input = call
            .open(&list)
            .map_err(|error| Stop::failed(cannot_open(&list, &error)))?;
        let (mut checked, mut failed) = (0, 0);
        while let Some(line) = call.line(&mut input, &list).await {
            let line = String::from_utf8_lossy(&line).into_owned();
            let line = line.trim_end_matches(['\n', '\r']);
            let parts = line.split_once("  ").or_else(|| line.split_once(" *"));
            let Some((wanted, name)) = parts.filter(|(hex, _)| !hex.is_empty()) else {
                if flags.has('w') {
                    call.fault("invalid format").await;
                }
                continue;
            };
            checked += 1;
            let found = of_file(call, name).await;
            let same = found.is_some_and(|hex| hex.eq_ignore_ascii_case(wanted));
            failed += u32::from(!same);
            let shown = !same || !flags.has('q');
            if !quiet && shown {
                call.out(format!("{name}: {}\n", if same { "OK" } else { "FAILED" }))
                    .await?;
            }
        }
        if failed > 0 {
            call.code = 1;
            if !quiet {
                call.fault(format!(
                    "WARNING: {failed} of {checked} computed checksums did NOT match"
                ))
                .await;
            }
        }
        if checked == 0 {
            call.fault(format!("{list}: no checksum lines found")).await;
        }
    }
    Ok(call.code)
}

async fn of_file(call: &mut Call, name: &str) -> Option<String> {
    let mut input = call.open_or_fault(name).await?;
    let mut hasher = hasher(&call.name);
    let before = std::mem::take(&mut call.code);
    while let Some(chunk) = call.chunk(&mut input, name).await {
        hasher.update(&chunk);
    }
    let failed = call.code != 0;
    call.code = call.code.max(before);
    let mut digest = vec![0; hasher.output_size()];
    // It is as long as the hash says.
    hasher.finalize_into_reset(&mut digest).ok()?;
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    (!failed).then_some(hex)
}
