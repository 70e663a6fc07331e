//! What headers are compressed against: words of HTTP, each behind its length, then some that often follow one another.
//!
//! From [the draft](https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/#TOC-2.6.10.1-Compression), byte by byte.

use std::sync::LazyLock;

const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization cache-control \
    connection content-base content-encoding content-language content-length content-location content-md5 content-range content-type date etag expect expires from \
    host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range \
    referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public \
    set-cookie keep-alive origin";
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error\
    501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary, and the checksum by which it is called.
pub(super) static DICTIONARY: LazyLock<(Vec<u8>, u32)> = LazyLock::new(|| {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS.split_whitespace() {
        let word = word.replace('_', " ");
        let length = u32::try_from(word.len()).unwrap_or_default();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(REST.as_bytes());
    let sum = adler32(&bytes);
    (bytes, sum)
});

/// [RFC 1950 §9](https://www.rfc-editor.org/rfc/rfc1950#section-9).
fn adler32(bytes: &[u8]) -> u32 {
    let (low, high) = bytes.iter().fold((1_u32, 0_u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_that_others_have() {
        let (bytes, sum) = &*DICTIONARY;
        assert_eq!((bytes.len(), *sum), (1423, 0xe3c6_a7c2));
    }
}
