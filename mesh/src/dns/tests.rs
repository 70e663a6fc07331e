//! Questions and answers as bytes, by the table and over real sockets: what a client hears, what is cut, what is refused, what is forwarded.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};
use tokio_util::sync::CancellationToken;

use super::{
    DnsConfig, Over,
    answer::{Reply, UDP_BYTES_MAX, reply},
    zone::Zone,
};
use crate::{
    Mesh, Table,
    table::{
        Protocol,
        testing::{self, names, service},
    },
};

fn zone() -> Zone {
    let mut zone = Zone::default();
    let mut web = service("shop", "web").cluster_ip("10.43.0.7").build();
    web.ports[0].name = Some("http".to_owned());
    zone.set(&web);
    let mut db = service("shop", "db").endpoints(vec![]).build();
    let hosts: Vec<(String, String)> = (0..200)
        .map(|number| (format!("db-{number}"), format!("10.42.1.{number}")))
        .collect();
    let hosts: Vec<(&str, &str, bool)> = hosts
        .iter()
        .map(|(name, ip)| (name.as_str(), ip.as_str(), true))
        .collect();
    db.names = vec![names(&[("sql", Protocol::Tcp, 5432)], &hosts)];
    zone.set(&db);
    for (name, alias) in [
        ("basket", "web.shop.svc.cluster.local"),
        ("paint", "paint.example.com"),
        ("round", "round.shop.svc.cluster.local"),
    ] {
        zone.set(&service("shop", name).alias(alias).build());
    }
    zone
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut asked = Message::new(7, MessageType::Query, OpCode::Query);
    asked.metadata.recursion_desired = true;
    let name = Name::from_ascii(name).expect("a name");
    asked.add_query(Query::query(name, kind));
    asked
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("a message")
}

fn answered(message: &[u8], over: Over) -> Option<Message> {
    let answer = match reply(&zone(), "cluster.local", message, over, false) {
        Reply::Silence => return None,
        Reply::Answer(answer) => answer,
        Reply::Elsewhere(elsewhere) => elsewhere.unasked(),
    };
    let limit = match over {
        Over::Udp => UDP_BYTES_MAX,
        Over::Tcp => usize::from(u16::MAX),
    };
    assert!(answer.len() <= limit, "{} bytes", answer.len());
    Some(Message::from_vec(&answer).expect("an answer that can be read"))
}

fn shown(answer: &Message) -> String {
    let records: Vec<String> = answer
        .answers
        .iter()
        .map(|record| format!("{} {} {}", record.name, record.record_type(), record.data))
        .collect();
    let code = match answer.metadata.response_code {
        ResponseCode::NoError => String::new(),
        code => format!("{code:?}"),
    };
    let authority = match answer.authorities.is_empty() {
        true => "",
        false => " SOA",
    };
    format!("{code}{}{authority}", records.join(" | "))
}

#[test]
fn questions_get_their_answers() {
    use RecordType::{A, AAAA, ANY, AXFR, CNAME, MX, NS, PTR, SOA, SRV, TXT};
    for (name, kind, expected) in [
        (
            "web.shop.svc.cluster.local.",
            A,
            "web.shop.svc.cluster.local. A 10.43.0.7",
        ),
        (
            "WEB.shop.svc.Cluster.local.",
            A,
            "WEB.shop.svc.Cluster.local. A 10.43.0.7",
        ),
        ("web.shop.svc.cluster.local.", AAAA, " SOA"),
        ("web.shop.svc.cluster.local.", MX, " SOA"),
        ("gone.shop.svc.cluster.local.", A, "NXDomain SOA"),
        ("svc.cluster.local.", A, " SOA"),
        (
            "_http._tcp.web.shop.svc.cluster.local.",
            SRV,
            "_http._tcp.web.shop.svc.cluster.local. SRV 0 100 80 web.shop.svc.cluster.local.",
        ),
        (
            "7.0.43.10.in-addr.arpa.",
            PTR,
            "7.0.43.10.in-addr.arpa. PTR web.shop.svc.cluster.local.",
        ),
        ("9.0.43.10.in-addr.arpa.", PTR, "Refused"),
        ("43.10.in-addr.arpa.", PTR, "Refused"),
        (
            "db-7.db.shop.svc.cluster.local.",
            A,
            "db-7.db.shop.svc.cluster.local. A 10.42.1.7",
        ),
        (
            "basket.shop.svc.cluster.local.",
            A,
            "basket.shop.svc.cluster.local. CNAME web.shop.svc.cluster.local. | web.shop.svc.cluster.local. A 10.43.0.7",
        ),
        (
            "basket.shop.svc.cluster.local.",
            CNAME,
            "basket.shop.svc.cluster.local. CNAME web.shop.svc.cluster.local.",
        ),
        (
            "paint.shop.svc.cluster.local.",
            CNAME,
            "paint.shop.svc.cluster.local. CNAME paint.example.com.",
        ),
        (
            "paint.shop.svc.cluster.local.",
            A,
            "paint.shop.svc.cluster.local. CNAME paint.example.com.",
        ),
        (
            "10-42-0-9.shop.pod.cluster.local.",
            A,
            "10-42-0-9.shop.pod.cluster.local. A 10.42.0.9",
        ),
        (
            "dns-version.cluster.local.",
            TXT,
            "dns-version.cluster.local. TXT 1.1.0",
        ),
        (
            "cluster.local.",
            NS,
            "cluster.local. NS kube-dns.kube-system.svc.cluster.local.",
        ),
        (
            "cluster.local.",
            SOA,
            "cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
        ),
        (
            "web.shop.svc.cluster.local.",
            ANY,
            "web.shop.svc.cluster.local. HINFO RFC8482 ",
        ),
        ("cluster.local.", AXFR, "Refused"),
        ("example.com.", A, "Refused"),
        ("notcluster.local.", A, "Refused"),
    ] {
        let answer = answered(&bytes(&question(name, kind)), Over::Tcp).expect("an answer");
        assert_eq!(shown(&answer), expected, "{name} {kind}");
        let head = answer.metadata;
        assert!(head.id == 7 && head.recursion_desired && !head.recursion_available);
        let asked = &answer.queries[0].name;
        assert!(
            asked.eq_case(&Name::from_ascii(name).expect("a name")),
            "{asked}"
        );
        let of_ours = head.response_code != ResponseCode::Refused;
        assert_eq!(head.authoritative, of_ours, "{name}");
    }
    let round = bytes(&question("round.shop.svc.cluster.local.", RecordType::A));
    let round = answered(&round, Over::Udp).expect("an answer");
    assert_eq!(round.answers.len(), 4, "a circle is left");
}

#[test]
fn ports_bring_their_addresses_along() {
    let asked = question("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV);
    let answer = answered(&bytes(&asked), Over::Udp).expect("an answer");
    let along: Vec<String> = answer
        .additionals
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    assert_eq!(along, ["10.43.0.7"]);
}

#[test]
fn what_does_not_fit_is_said_to_be_cut_and_fits_by_tcp() {
    let mut asked = question("db.shop.svc.cluster.local.", RecordType::A);
    let plain = answered(&bytes(&asked), Over::Udp).expect("an answer");
    assert!(plain.metadata.truncation && plain.answers.is_empty());
    let mut edns = Edns::new();
    edns.set_max_payload(65_000);
    asked.set_edns(edns);
    let large = answered(&bytes(&asked), Over::Udp).expect("an answer");
    assert!(
        large.metadata.truncation,
        "nobody is sent packets that are fragmented"
    );
    let whole = answered(&bytes(&asked), Over::Tcp).expect("an answer");
    assert_eq!(
        (whole.metadata.truncation, whole.answers.len()),
        (false, 200)
    );
    let first = |id| {
        let mut asked = question("db.shop.svc.cluster.local.", RecordType::A);
        asked.metadata.id = id;
        let answer = answered(&bytes(&asked), Over::Tcp).expect("an answer");
        answer.answers[0].data.to_string()
    };
    assert_ne!(first(1), first(2), "clients that take the first are spread");
}

/// Attacks: nothing here may be an answer to a server, grow, or panic.
#[test]
fn what_is_no_question_is_refused_or_not_answered() {
    let good = question("web.shop.svc.cluster.local.", RecordType::A);
    let mut response = good.clone();
    response.metadata.message_type = MessageType::Response;
    assert!(
        answered(&bytes(&response), Over::Udp).is_none(),
        "servers do not talk to each other"
    );
    let mut twice = good.clone();
    twice.add_query(good.queries[0].clone());
    let mut update = good.clone();
    update.metadata.op_code = OpCode::Notify;
    let mut later = good.clone();
    let mut edns = Edns::new();
    edns.set_version(1);
    later.set_edns(edns);
    for (message, expected) in [
        (twice, ResponseCode::FormErr),
        (update, ResponseCode::NotImp),
        (later, ResponseCode::BADVERS),
    ] {
        let answer = answered(&bytes(&message), Over::Udp).expect("an answer");
        // As numbers: one of them has two names.
        let code = u16::from(answer.metadata.response_code);
        assert_eq!(code, u16::from(expected));
        assert!(answer.answers.is_empty());
    }
    let good = bytes(&good);
    for length in 0..good.len() {
        let cut = answered(&good[..length], Over::Udp);
        assert_eq!(cut.is_some(), length >= 12, "{length} bytes");
    }
    // A name that points at itself.
    let mut circle = good[..12].to_vec();
    circle.extend([0xc0, 12, 0, 1, 0, 1]);
    let answer = answered(&circle, Over::Udp).expect("an answer");
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(message in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        answered(&message, Over::Udp);
        answered(&message, Over::Tcp);
    }
}

fn mesh(upstream: Vec<SocketAddr>) -> Mesh {
    let mesh = Mesh::builder("a", "cluster.local")
        .dns(DnsConfig { upstream })
        .build();
    let table: Table = testing::table("a")
        .service(service("shop", "web").cluster_ip("10.43.0.7").build())
        .service(service("shop", "paint").alias("paint.example.com").build())
        .build();
    mesh.publish(table);
    mesh
}

/// Serves the mesh's names at an address of this machine until it is dropped.
async fn served(mesh: Mesh) -> (SocketAddr, tokio_util::sync::DropGuard) {
    // A port that is free for both, which another test may take in between.
    let (listener, datagrams) = loop {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        if let Ok(datagrams) = std::net::UdpSocket::bind(address) {
            break (listener, datagrams);
        }
    };
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move { mesh.serve_dns(datagrams, listener, stopped).await });
    (address, stop.drop_guard())
}

async fn ask_udp(server: SocketAddr, asked: &Message) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    socket.send_to(&bytes(asked), server).await.expect("sent");
    let mut buffer = [0; 4096];
    let received = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut buffer));
    let length = received.await.expect("in time").expect("an answer");
    Message::from_vec(&buffer[..length]).expect("an answer that can be read")
}

#[tokio::test]
async fn sockets_of_this_machine_are_answered_over_udp_and_tcp() {
    let (server, _guard) = served(mesh(Vec::new())).await;
    let asked = question("web.shop.svc.cluster.local.", RecordType::A);
    let expected = "web.shop.svc.cluster.local. A 10.43.0.7";
    assert_eq!(shown(&ask_udp(server, &asked).await), expected);
    let mut stream = TcpStream::connect(server).await.expect("connected");
    for _ in 0..2 {
        let asked = bytes(&asked);
        stream.write_u16(asked.len() as u16).await.expect("sent");
        stream.write_all(&asked).await.expect("sent");
        let length = stream.read_u16().await.expect("an answer");
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.expect("an answer");
        let answer = Message::from_vec(&answer).expect("an answer that can be read");
        assert_eq!(shown(&answer), expected);
    }
    let outside = question("example.com.", RecordType::A);
    assert_eq!(shown(&ask_udp(server, &outside).await), "Refused");
}

#[tokio::test]
async fn others_are_asked_where_they_are_named_and_believed_where_they_were() {
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let upstream = other.local_addr().expect("an address");
    let answering = async {
        loop {
            let mut buffer = [0; 4096];
            let (length, from) = other.recv_from(&mut buffer).await.expect("a question");
            let asked = Message::from_vec(&buffer[..length]).expect("a question");
            let mut answer = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
            answer.queries = asked.queries.clone();
            let name = asked.queries[0].name.clone();
            let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
            answer.add_answer(Record::from_rdata(name, 60, data));
            // What is no answer to that question is not taken for one.
            let mut forged = answer.clone();
            forged.metadata.id = asked.metadata.id.wrapping_add(1);
            forged.answers[0].data = RData::A(A(Ipv4Addr::LOCALHOST));
            for message in [forged, answer] {
                other.send_to(&bytes(&message), from).await.expect("sent");
            }
        }
    };
    let asking = async {
        let (server, guard) = served(mesh(vec![upstream])).await;
        let mut heard = Vec::new();
        for name in [
            "example.com.",
            "paint.shop.svc.cluster.local.",
            "web.shop.svc.cluster.local.",
        ] {
            let answer = ask_udp(server, &question(name, RecordType::A)).await;
            assert!(answer.metadata.recursion_available);
            heard.push(shown(&answer));
        }
        drop(guard);
        heard
    };
    let heard = tokio::select! {
        heard = asking => heard,
        () = answering => unreachable!("it answers as long as it is asked"),
    };
    assert_eq!(
        heard,
        [
            "example.com. A 192.0.2.1",
            "paint.shop.svc.cluster.local. CNAME paint.example.com. | paint.example.com. A 192.0.2.1",
            "web.shop.svc.cluster.local. A 10.43.0.7",
        ]
    );
}
