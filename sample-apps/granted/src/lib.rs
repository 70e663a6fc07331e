//! What a workload has to be granted, tried out: settings and a key-value store, one operation a request.
//!
//! | path | does |
//! | --- | --- |
//! | `/config`, `/config?name=` | all settings, or that one |
//! | `/get?key=`, `/exists?key=`, `/delete?key=` | what they say |
//! | `/set?key=&value=`, `/set?key=&bytes=` | sets the text, or so many bytes that are no text |
//! | `/increment?key=&delta=` | adds, and tells the sum |
//! | `/append?key=&value=` | adds to the end of the value by compare-and-swap |
//! | `/race?key=` | swaps a value that was changed since it was seen, then the newer one |
//! | `/fill?count=&bytes=` | sets so many keys, of so many bytes each, in batches |
//! | `/batch?count=&bytes=` | the same in one batch, however large |
//! | `/keys` | how many keys there are, and the first and the last |
//! | `/many?keys=a,b` | those values at once |
//! | `/hold?key=&count=` | holds so many compare-and-swap handles at once |
//! | `/open?count=` | holds so many buckets at once |
//!
//! `bucket=` names the bucket; it is `default` otherwise. An error is answered with 400 and its words.

use weft::http::query;
use weft::keyvalue::{Bucket, Error};
use weft::{Request, Response};

const BATCH_KEYS: usize = 1_000;

#[weft::http]
async fn handle(request: Request) -> Result<Response, weft::BodyError> {
    let uri = request.uri();
    let ask = Ask {
        text: |name: &str| query(uri, name).unwrap_or_default(),
    };
    let answer = match uri.path() {
        "/config" => settings(query(uri, "name")).map_err(|error| error.to_string()),
        path => keyvalue(path, &ask).map_err(|error| format!("{error:?}")),
    };
    Ok(match answer {
        Ok(Some(bytes)) => Response::new(bytes.into()),
        Ok(None) => weft::http::status(404),
        Err(error) => {
            let mut refusal = Response::new(error.into());
            *refusal.status_mut() = weft::http::StatusCode::BAD_REQUEST;
            refusal
        }
    })
}

/// The parameters of a request.
struct Ask<F> {
    text: F,
}

impl<F: Fn(&str) -> String> Ask<F> {
    fn text(&self, name: &str) -> String {
        (self.text)(name)
    }

    fn number(&self, name: &str) -> usize {
        self.text(name).parse().unwrap_or(0)
    }
}

fn settings(name: Option<String>) -> Result<Option<Vec<u8>>, weft::config::Error> {
    if let Some(name) = name {
        return Ok(weft::config::get(&name)?.map(String::into_bytes));
    }
    let lines = weft::config::all()?.into_iter();
    let lines = lines.map(|(name, value)| format!("{name}={value}\n"));
    Ok(Some(lines.collect::<String>().into_bytes()))
}

fn keyvalue(path: &str, ask: &Ask<impl Fn(&str) -> String>) -> Result<Option<Vec<u8>>, Error> {
    let identifier = match ask.text("bucket") {
        none if none.is_empty() => "default".to_owned(),
        named => named,
    };
    let bucket = weft::keyvalue::open(&identifier)?;
    let (key, value, count) = (ask.text("key"), ask.text("value"), ask.number("count"));
    let bytes = vec![0xff; ask.number("bytes")];
    let text = match path {
        "/get" => return bucket.get(&key),
        "/exists" => bucket.exists(&key)?.to_string(),
        "/delete" => {
            bucket.delete(&key)?;
            "deleted".to_owned()
        }
        "/set" => {
            let value = if bytes.is_empty() {
                value.into_bytes()
            } else {
                bytes
            };
            bucket.set(&key, value)?;
            "set".to_owned()
        }
        "/increment" => {
            let delta = ask.text("delta").parse().unwrap_or(1);
            bucket.increment(&key, delta)?.to_string()
        }
        "/append" => {
            let appended = bucket.update(&key, |seen| {
                [seen.unwrap_or_default(), value.clone().into_bytes()].concat()
            });
            return appended.map(Some);
        }
        "/race" => race(&bucket, &key)?,
        "/fill" => {
            for first in (0..count).step_by(BATCH_KEYS) {
                let keys = first..count.min(first + BATCH_KEYS);
                bucket.set_many(keys.map(|number| (format!("{number:06}"), bytes.clone())))?;
            }
            format!("{count} keys")
        }
        "/batch" => {
            bucket.set_many((0..count).map(|number| (format!("{number:06}"), bytes.clone())))?;
            format!("{count} keys")
        }
        "/keys" => {
            let keys = bucket.keys().collect::<Result<Vec<_>, _>>()?;
            let (first, last) = (keys.first(), keys.last());
            format!("{} {:?} {:?}", keys.len(), first, last)
        }
        "/many" => {
            let keys = ask.text("keys");
            let keys: Vec<&str> = keys.split(',').collect();
            let values = bucket.get_many(&keys)?.into_iter();
            let values =
                values.map(|value| value.map(|value| String::from_utf8_lossy(&value).into_owned()));
            format!("{:?}", values.collect::<Vec<_>>())
        }
        "/hold" => {
            let seen = (0..count).map(|_| bucket.look(&key));
            let seen = seen.collect::<Result<Vec<_>, _>>()?;
            format!("held {}", seen.len())
        }
        "/open" => {
            let opened = (0..count).map(|_| weft::keyvalue::open(&identifier));
            let opened = opened.collect::<Result<Vec<_>, _>>()?;
            format!("opened {}", opened.len())
        }
        _ => return Ok(None),
    };
    Ok(Some(text.into_bytes()))
}

/// What comes of swapping a value that somebody else has changed meanwhile.
fn race(bucket: &Bucket, key: &str) -> Result<String, Error> {
    let seen = bucket.look(key)?;
    bucket.set(key, "theirs")?;
    let (before, first) = (seen.value()?, seen.swap("mine")?);
    let newer = match first {
        Ok(()) => return Ok("swapped what had changed".to_owned()),
        Err(newer) => newer,
    };
    let shown = newer.value()?.unwrap_or_default();
    let second = newer.swap("mine")?.is_ok();
    let after = bucket.get(key)?.unwrap_or_default();
    Ok(format!(
        "{before:?} refused, then {} swapped {second}, now {}",
        String::from_utf8_lossy(&shown),
        String::from_utf8_lossy(&after)
    ))
}
