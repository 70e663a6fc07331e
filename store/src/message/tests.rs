//! Encodings and refusals.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::command::{Change, Command, Mutation, Precondition};
use crate::log::Payload;

fn envelope() -> Envelope {
    Envelope {
        cluster_id: "c".to_owned(),
        from: 1,
        to: 2,
    }
}

fn position(index: u64) -> Position {
    Position {
        term: 3,
        server: 1,
        index,
    }
}

fn vote() -> Vote {
    Vote {
        term: 3,
        server: 1,
        committed: true,
    }
}

fn batch() -> Batch {
    let mutations = vec![
        Mutation::put("a", Precondition::Revision(7), "value"),
        Mutation::delete("b", Precondition::Absent),
        Mutation::check("c", Precondition::Revision(8)),
    ];
    Batch(
        vec![Command {
            fence: Some(3),
            mutations,
        }]
        .into(),
    )
}

fn members() -> Members {
    Members {
        voters: vec![BTreeSet::from([1, 2])],
        addresses: BTreeMap::from([(1, "a:1".to_owned()), (2, "b:2".to_owned())]),
    }
}

fn requests() -> Vec<Request> {
    let ballot = Ballot {
        vote: vote(),
        last: Some(position(9)),
        transfer: true,
    };
    let payloads = [
        Payload::Blank,
        Payload::Batch(batch()),
        Payload::Members(members()),
    ];
    let records = (4..)
        .zip(payloads)
        .map(|(index, payload)| Record {
            position: position(index),
            payload,
        })
        .collect();
    let head = SnapshotHead {
        applied: position(9),
        members: members(),
        members_position: None,
        servers_ever: 4,
        revision: 77,
        entries: 1,
    };
    vec![
        Request::Append(Append {
            vote: vote(),
            previous: Some(position(3)),
            committed: None,
            records,
        }),
        Request::Vote(ballot.clone()),
        Request::PreVote(ballot),
        Request::Transfer(Transfer {
            vote: vote(),
            to: 2,
            last: None,
        }),
        Request::Snapshot(SnapshotChunk {
            vote: vote(),
            stream: 5,
            number: 0,
            head: Some(head),
            entries: vec![(Bytes::from_static(b"k"), Bytes::from_static(b"v"))],
            checksum: Some(8),
        }),
        Request::ReadIndex,
        Request::Write(batch()),
        Request::Member(MemberChange::Add {
            address: "c:3".to_owned(),
        }),
        Request::Member(MemberChange::Promote { server: 3 }),
        Request::Member(MemberChange::Remove { server: 3 }),
        Request::Member(MemberChange::Swap { old: 1, new: 4 }),
        Request::Member(MemberChange::Move {
            server: 2,
            address: "d:4".to_owned(),
        }),
        Request::Member(MemberChange::Transfer { to: None }),
    ]
}

fn answers() -> Vec<Answer> {
    let outcomes = vec![
        Outcome::Done(4),
        Outcome::Conflict {
            mutation: 1,
            found: None,
        },
        Outcome::Fenced { term: 9 },
    ];
    vec![
        Answer::Append(Appended::All),
        Answer::Append(Appended::Upto(Some(position(2)))),
        Answer::Append(Appended::Conflict),
        Answer::Append(Appended::HigherVote(vote())),
        Answer::Vote(BallotAnswer {
            vote: vote(),
            granted: true,
            last: None,
        }),
        Answer::Transfer(Transferred::Accepted),
        Answer::Transfer(Transferred::VoteChanged { actual: vote() }),
        Answer::Transfer(Transferred::Behind {
            actual: Some(position(1)),
        }),
        Answer::Snapshot(SnapshotAnswer::Next),
        Answer::Snapshot(SnapshotAnswer::Vote(vote())),
        Answer::ReadIndex(Ok(17)),
        Answer::ReadIndex(Err(Denied::NotLeader(Some(3)))),
        Answer::Write(Ok((17, outcomes))),
        Answer::Write(Err(Denied::Unknown)),
        Answer::Member(Ok(4)),
        Answer::Member(Err(Denied::Invalid("no".to_owned()))),
        Answer::Refused("other cluster".to_owned()),
        Answer::Removed,
    ]
}

#[test]
fn messages_survive_their_encoding_and_every_cut_and_flip_is_an_error() {
    let decode_request = |bytes: Bytes| Request::open(bytes, WIRE)?.1.request();
    let decode_answer = |bytes: Bytes| Answer::open(bytes, WIRE)?.1.answer();
    for request in requests() {
        let bytes = request.encode(&envelope(), WIRE).expect("said");
        let (found, body) = Request::open(bytes.clone(), WIRE).expect("opens");
        assert_eq!(found, envelope());
        assert_eq!(body.request().expect("decodes"), request);
        assert!(
            Answer::open(bytes.clone(), WIRE).is_err(),
            "a request is no answer"
        );
        for length in 0..bytes.len() {
            assert!(decode_request(bytes.slice(..length)).is_err());
        }
    }
    for answer in answers() {
        let bytes = answer.encode(&envelope(), WIRE);
        assert_eq!(decode_answer(bytes.clone()).expect("decodes"), answer);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_answer(Bytes::from(bad)).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn a_body_cut_inside_a_sound_frame_is_an_error() {
    for request in requests() {
        let bytes = request.encode(&envelope(), WIRE).expect("said");
        let body = bytes.slice(5..);
        let head = {
            let mut writer = Writer::new(WIRE);
            envelope().encode(&mut writer);
            writer.finish(REQUEST).len() - 5
        };
        for length in head..body.len() {
            let mut writer = Writer::new(WIRE);
            writer.tail(&body[..length]);
            let cut = Bytes::from(writer.finish(REQUEST));
            let (_, body) = Request::open(cut, WIRE).expect("frame");
            assert!(body.request().is_err(), "{request:?} cut at {length}");
        }
    }
}

#[test]
fn strays_are_refused_by_name() {
    let envelope = envelope();
    assert_eq!(envelope.refuse("c", 2, Some(1)), None);
    assert_eq!(envelope.refuse("c", 2, None), None);
    for (cluster, me, proven, expected) in [
        (
            "d",
            2,
            None,
            "the message is for cluster c, this server belongs to d",
        ),
        (
            "c",
            3,
            None,
            "the message is for server 2, this is server 3",
        ),
        (
            "c",
            2,
            Some(7),
            "the message says it is from server 1, its certificate is of server 7",
        ),
    ] {
        assert_eq!(
            envelope.refuse(cluster, me, proven).as_deref(),
            Some(expected)
        );
    }
}

#[test]
fn a_newer_message_is_refused_in_a_sentence() {
    let newer = Bytes::from(Writer::new(WIRE + 1).finish(REQUEST));
    let error = Request::open(newer, WIRE).err().expect("refused");
    assert_eq!(
        error.to_string(),
        format!(
            "it has format {}, and this program reads formats up to {WIRE}; use a newer weft",
            WIRE + 1
        )
    );
}

#[test]
fn a_server_of_before_gets_values_as_they_were_given() {
    let plain = "default-scheduler ".repeat(40);
    let command = Command {
        fence: None,
        mutations: vec![Mutation::put("/long", Precondition::None, plain.clone())],
    };
    let request = Request::Write(Batch(vec![command].into()));
    let found = |version| {
        let bytes = request.encode(&envelope(), version).expect("said");
        let (_, body) = Request::open(bytes.clone(), WIRE).expect("opens");
        let Request::Write(batch) = body.request().expect("decodes") else {
            panic!("it was a write");
        };
        let Change::Put(value) = &batch.0[0].mutations[0].change else {
            panic!("it was a put");
        };
        (bytes.len() > plain.len(), value.plain())
    };
    assert_eq!(found(1), (true, plain.clone().into()));
    assert_eq!(found(WIRE), (false, plain.clone().into()));

    // And refuses what it would not know.
    let mut writer = Writer::new(1);
    envelope().encode(&mut writer);
    writer.u8(6);
    let Request::Write(batch) = &request else {
        panic!("it is a write");
    };
    batch.encode(&mut writer);
    let bytes = Bytes::from(writer.finish(REQUEST));
    let (_, body) = Request::open(bytes, WIRE).expect("opens");
    assert!(body.request().is_err());
}

#[test]
fn a_check_is_never_sent_to_a_server_of_before() {
    let with_checks = |request: &Request| request.encode(&envelope(), CHECKS_SINCE - 1).is_none();
    for request in requests() {
        let expected = matches!(request, Request::Append(_) | Request::Write(_));
        assert_eq!(with_checks(&request), expected, "{request:?}");
    }
}
