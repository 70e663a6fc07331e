//! A server of DNS: every name is where whoever asks for it is, as CoreDNS' `whoami` has it.

use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;

use crate::Ended;

const PORT: u16 = 53;
const HEAD_BYTES: usize = 12;
/// The first bit of the third byte: it is an answer.
const IS_ANSWER: u8 = 0x80;
const HAS_AUTHORITY: u8 = 0x04;
const RECURSION_DESIRED: u8 = 0x01;

pub(crate) async fn run() -> Ended {
    let socket = UdpSocket::bind(("0.0.0.0", PORT)).await;
    let socket = socket.map_err(|error| format!("listening UDP: {error}"))?;
    println!("DNS server listening on :{PORT}");
    let mut buffer = [0; 1232];
    loop {
        let Ok((count, from)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        };
        if let Some(answer) = answer(buffer.get(..count).unwrap_or_default(), from) {
            // It may be lost, as any.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to a message with one question (RFC 1035 §4.1); none to what is no question.
fn answer(message: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    let (head, rest) = message.split_at_checked(HEAD_BYTES)?;
    let (flags, questions) = (*head.get(2)?, head.get(4..6)?);
    if flags & IS_ANSWER != 0 || questions != [0, 1] {
        return None;
    }
    let mut end = 0;
    while let length @ 1.. = *rest.get(end)? {
        end += 1 + usize::from(length);
    }
    // After the name come type and class.
    let question = rest.get(..end + 5)?;
    let (kind, address) = match from.ip().to_canonical() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (28, ip.octets().to_vec()),
    };
    let mut answer = head.get(..2)?.to_vec();
    answer.push(IS_ANSWER | HAS_AUTHORITY | flags & RECURSION_DESIRED);
    // No error; a question, an answer, and nothing else.
    answer.extend([0, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend(question);
    // The name at the question's place, the class of the internet, kept for no time.
    answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0]);
    answer.push(u8::try_from(address.len()).ok()?);
    answer.extend(address);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_and_nothing_else() {
        let from: SocketAddr = "10.42.0.7:4000".parse().expect("an address");
        let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03foo\x03bar\0\0\x01\0\x01";
        let expected = b"\x12\x34\x85\0\0\x01\0\x01\0\0\0\0\x03foo\x03bar\0\0\x01\0\x01\
            \xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x0a\x2a\0\x07";
        assert_eq!(answer(question, from).as_deref(), Some(&expected[..]));
        for wrong in [&question[..20], &expected[..], b"", &[0xff; 40]] {
            assert_eq!(answer(wrong, from), None);
        }
    }
}
