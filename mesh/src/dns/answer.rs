//! From a question to its answer, as bytes. Pure.
//!
//! What is below the cluster's domain is answered with authority; so is an address of the cluster that is asked for its name. Everything
//! else is somebody else's ([`Reply::Elsewhere`]). The bytes of DNS are read and written by `hickory-proto`, which knows what may be wrong
//! with them.
//!
//! Invariants: an answer carries the question as it was asked, letter by letter, and none of several; what is no question gets none, so that two servers never
//! talk to each other; an answer has no more bytes than who asks takes, else it says that it was cut short, and no more records than
//! [`RECORDS_MAX`]; equal questions get equal answers, but for where a list of equals begins.

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{CNAME, HINFO, NS, PTR, SOA, SRV, TXT},
    },
};

use super::zone::{Data, Zone};

/// How long an answer may be kept, in seconds: an endpoint that went should not be asked for longer.
const TTL_SECONDS: u32 = 5;
/// What every client takes by UDP.
const UDP_BYTES_MIN: usize = 512;
/// What fits into a packet of every network, and is never fragmented.
pub(crate) const UDP_BYTES_MAX: usize = 1232;
/// What the length in front of a message says by TCP.
const TCP_BYTES_MAX: usize = u16::MAX as usize;
/// Records of an answer: of more equals, a part is as good.
const RECORDS_MAX: usize = 2_000;
/// Addresses of ports that come along unasked.
const ADDITIONAL_MAX: usize = 32;
/// Names that stand for names that are followed: a circle of them has no end.
const ALIASES_MAX: usize = 4;
/// What is told whoever asks for everything (RFC 8482).
const ANY_ANSWER: (&str, &str) = ("RFC8482", "");

/// By what a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Udp,
    Tcp,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It was no question.
    Silence,
    Answer(Vec<u8>),
    /// Not of the cluster.
    Elsewhere(Box<Elsewhere>),
}

/// A question, or the end of one, that the cluster does not know the answer of.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    answer: Message,
    limit: usize,
    /// What is to be asked there.
    pub(crate) query: Query,
}

impl Elsewhere {
    /// The answer where nobody else is asked: what was found so far, or that it is not said here.
    pub(crate) fn unasked(mut self) -> Vec<u8> {
        if self.answer.answers.is_empty() {
            self.answer.metadata.response_code = ResponseCode::Refused;
        }
        fitted(self.answer, self.limit)
    }

    /// The answer with what was heard elsewhere; nothing where whoever was asked failed.
    pub(crate) fn heard(mut self, heard: Option<Message>) -> Vec<u8> {
        let Some(heard) = heard else {
            self.answer.metadata.response_code = ResponseCode::ServFail;
            return fitted(self.answer, self.limit);
        };
        self.answer.metadata.authoritative &= !self.answer.answers.is_empty();
        self.answer.metadata.response_code = heard.metadata.response_code;
        let room = RECORDS_MAX.saturating_sub(self.answer.answers.len());
        let answers = heard.answers.into_iter().take(room);
        self.answer.answers.extend(answers);
        let authorities = heard.authorities.into_iter().take(ADDITIONAL_MAX);
        self.answer.authorities = authorities.collect();
        fitted(self.answer, self.limit)
    }
}

/// Answers `message` from the names of the cluster, which are below `domain`. `forwards`: whether others will be asked for the rest.
pub(crate) fn reply(
    zone: &Zone,
    domain: &str,
    message: &[u8],
    over: Over,
    forwards: bool,
) -> Reply {
    let asked = match Message::from_vec(message) {
        Ok(asked) => asked,
        Err(_) => return malformed(message),
    };
    if asked.metadata.message_type != MessageType::Query {
        return Reply::Silence;
    }
    let mut answer = Message::new(0, MessageType::Response, asked.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&asked.metadata);
    answer.metadata.recursion_available = forwards;
    let limit = match (over, &asked.edns) {
        (Over::Tcp, _) => TCP_BYTES_MAX,
        (Over::Udp, None) => UDP_BYTES_MIN,
        (Over::Udp, Some(edns)) => {
            usize::from(edns.max_payload()).clamp(UDP_BYTES_MIN, UDP_BYTES_MAX)
        }
    };
    answer.queries = asked.queries;
    if let Some(edns) = &asked.edns {
        let mut ours = Edns::new();
        ours.set_max_payload(u16::try_from(UDP_BYTES_MAX).unwrap_or(u16::MAX));
        if edns.version() > 0 {
            answer.metadata.response_code = ResponseCode::BADVERS;
            answer.set_edns(ours);
            return answered(answer, limit);
        }
        answer.set_edns(ours);
    }
    let refused = match (asked.metadata.op_code, answer.queries.as_slice()) {
        (OpCode::Query, [query]) => match (query.query_class, query.query_type) {
            (DNSClass::IN | DNSClass::ANY, RecordType::AXFR | RecordType::IXFR) => {
                Some(ResponseCode::Refused)
            }
            (DNSClass::IN | DNSClass::ANY, _) => None,
            _ => Some(ResponseCode::Refused),
        },
        (OpCode::Query, _) => Some(ResponseCode::FormErr),
        _ => Some(ResponseCode::NotImp),
    };
    if let Some(code) = refused {
        answer.metadata.response_code = code;
        if answer.queries.len() > 1 {
            // They would not be cut short with the answer.
            answer.queries.clear();
        }
        return answered(answer, limit);
    }
    let Some(query) = answer.queries.first().cloned() else {
        return Reply::Silence;
    };
    let found = Search {
        zone,
        domain,
        kind: query.query_type,
    };
    let turn = usize::from(answer.metadata.id);
    match found.follow(&query.name, turn) {
        Found::Here { records, exists } => {
            answer.metadata.authoritative = true;
            let is_empty = records.is_empty();
            if !exists {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            answer.additionals = found.additional(&records);
            answer.answers = records;
            if is_empty {
                answer.authorities = soa(domain).into_iter().collect();
            }
            answered(answer, limit)
        }
        Found::Elsewhere { records, name } => {
            answer.metadata.authoritative = !records.is_empty();
            answer.answers = records;
            let query = Query::query(name, query.query_type);
            Reply::Elsewhere(Box::new(Elsewhere {
                answer,
                limit,
                query,
            }))
        }
    }
}

/// A message that cannot be read: whoever sent it is told so, if it was a question at all.
fn malformed(message: &[u8]) -> Reply {
    const RESPONSE: u8 = 0x80;
    match message {
        [high, low, flags, ..] if message.len() >= 12 && flags & RESPONSE == 0 => {
            let id = u16::from_be_bytes([*high, *low]);
            let answer = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            answered(answer, UDP_BYTES_MIN)
        }
        _ => Reply::Silence,
    }
}

enum Found {
    /// All that there is. `exists`: the last name does.
    Here { records: Vec<Record>, exists: bool },
    /// What there is, up to a name of somebody else's.
    Elsewhere { records: Vec<Record>, name: Name },
}

struct Search<'z> {
    zone: &'z Zone,
    domain: &'z str,
    kind: RecordType,
}

impl Search<'_> {
    fn follow(&self, name: &Name, turn: usize) -> Found {
        let mut records: Vec<Record> = Vec::new();
        let mut name = name.clone();
        for _ in 0..ALIASES_MAX {
            let Some(found) = self.data(&name) else {
                return Found::Elsewhere { records, name };
            };
            let Some(data) = found else {
                return Found::Here {
                    records,
                    exists: false,
                };
            };
            if let [Data::Alias(alias)] = data.as_slice() {
                let Ok(target) = absolute(alias) else {
                    break;
                };
                let alias = RData::CNAME(CNAME(target.clone()));
                records.push(Record::from_rdata(name, TTL_SECONDS, alias));
                if matches!(self.kind, RecordType::CNAME | RecordType::ANY) {
                    break;
                }
                name = target;
                continue;
            }
            records.extend(self.records(&name, data, turn));
            break;
        }
        Found::Here {
            records,
            exists: true,
        }
    }

    /// What a name has: none where it is not of the cluster, and none in that where there is no such name.
    fn data(&self, name: &Name) -> Option<Option<Vec<Data>>> {
        let full = lower(name);
        if let Some(labels) = below(&full, self.domain) {
            return Some(self.zone.data(&labels));
        }
        if !full.ends_with(".arpa") {
            return None;
        }
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        let net = absolute.parse_arpa_name().ok()?;
        if net.prefix_len() != net.max_prefix_len() {
            return None;
        }
        self.zone.pointers(net.addr()).map(Some)
    }

    /// The records of the wanted type, the list of equals begun at `turn`.
    fn records(&self, name: &Name, data: Vec<Data>, turn: usize) -> Vec<Record> {
        let wanted = |kind| self.kind == kind;
        let is_apex = lower(name) == self.domain;
        if is_apex && wanted(RecordType::SOA) {
            return soa(self.domain).into_iter().collect();
        }
        if is_apex && wanted(RecordType::NS) {
            let server = absolute(&format!("{SERVER}.{}", self.domain));
            let server = server.map(|server| RData::NS(NS(server)));
            let record = server.map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data));
            return record.into_iter().collect();
        }
        let exists_only = data.is_empty();
        if wanted(RecordType::ANY) && !exists_only {
            // One set of records is enough of an answer, and this one cannot be used to make others' traffic of it.
            let (cpu, os) = ANY_ANSWER;
            let told = RData::HINFO(HINFO::new(cpu.to_owned(), os.to_owned()));
            return vec![Record::from_rdata(name.clone(), TTL_SECONDS, told)];
        }
        let mut found: Vec<RData> = data
            .into_iter()
            .filter_map(|data| self.rdata(data))
            .filter(|data| data.record_type() == self.kind)
            .collect();
        if !found.is_empty() {
            let begin = turn % found.len();
            found.rotate_left(begin);
        }
        found.truncate(RECORDS_MAX);
        let records = found.into_iter();
        records
            .map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data))
            .collect()
    }

    fn rdata(&self, data: Data) -> Option<RData> {
        let of_cluster = |name: String| absolute(&format!("{name}.{}", self.domain)).ok();
        Some(match data {
            Data::Address(ip) => RData::from(ip),
            Data::Alias(name) => RData::CNAME(CNAME(absolute(&name).ok()?)),
            Data::Port { number, target } => {
                RData::SRV(SRV::new(0, 100, number, of_cluster(target)?))
            }
            Data::Pointer(name) => RData::PTR(PTR(of_cluster(name)?)),
            Data::Text(text) => RData::TXT(TXT::new(vec![text.to_owned()])),
        })
    }

    /// The addresses of the ports' targets, which would be asked for next.
    fn additional(&self, records: &[Record]) -> Vec<Record> {
        let mut targets: Vec<&Name> = records
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(port) => Some(&port.target),
                _ => None,
            })
            .collect();
        targets.dedup();
        let targets = targets.into_iter().take(ADDITIONAL_MAX);
        let found = targets.flat_map(|target| {
            let data = self.data(target).flatten().unwrap_or_default();
            data.into_iter().filter_map(|data| match data {
                Data::Address(ip) => Some(Record::from_rdata(
                    target.clone(),
                    TTL_SECONDS,
                    RData::from(ip),
                )),
                _ => None,
            })
        });
        found.take(ADDITIONAL_MAX).collect()
    }
}

/// Whose the zone is, below it.
const SERVER: &str = "kube-dns.kube-system.svc";

/// The record of the zone itself. Nobody copies the zone, so that its number stays.
fn soa(domain: &str) -> Option<Record> {
    let below = |label: &str| absolute(&format!("{label}.{domain}")).ok();
    let told = SOA::new(
        below("ns.dns")?,
        below("hostmaster")?,
        1,
        7200,
        1800,
        86_400,
        TTL_SECONDS,
    );
    let apex = absolute(domain).ok()?;
    Some(Record::from_rdata(apex, TTL_SECONDS, RData::SOA(told)))
}

/// A full name, of its text.
fn absolute(name: &str) -> Result<Name, hickory_proto::ProtoError> {
    let mut parsed = Name::from_ascii(name)?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

/// The name in lower case, without a dot at its end. Bytes that no name of ours has are marks of question.
fn lower(name: &Name) -> String {
    let plain = |byte: &u8| match byte {
        b'.' => '?',
        byte if byte.is_ascii_graphic() => char::from(byte.to_ascii_lowercase()),
        _ => '?',
    };
    let labels = name.iter().map(|label| label.iter().map(plain).collect());
    labels.collect::<Vec<String>>().join(".")
}

/// The labels of a name below `domain`.
fn below<'n>(name: &'n str, domain: &str) -> Option<Vec<&'n str>> {
    let rest = name.strip_suffix(domain)?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    Some(rest.strip_suffix('.')?.split('.').collect())
}

/// What cannot be written is not answered.
fn answered(answer: Message, limit: usize) -> Reply {
    match fitted(answer, limit) {
        nothing if nothing.is_empty() => Reply::Silence,
        answer => Reply::Answer(answer),
    }
}

/// The bytes of an answer: what comes along unasked goes first, then all that is in it but that it was cut short.
fn fitted(mut answer: Message, limit: usize) -> Vec<u8> {
    let encoded = |answer: &Message| answer.to_vec().unwrap_or_default();
    let whole = encoded(&answer);
    if whole.len() <= limit && !whole.is_empty() {
        return whole;
    }
    answer.additionals.clear();
    let bare = encoded(&answer);
    if bare.len() <= limit && !bare.is_empty() {
        return bare;
    }
    if limit == TCP_BYTES_MAX {
        // There is no larger message to ask for: a part of equals is as good as all.
        while answer.answers.len() > 1 {
            answer.answers.truncate(answer.answers.len() / 2);
            let part = encoded(&answer);
            if part.len() <= limit && !part.is_empty() {
                return part;
            }
        }
    }
    let cut = answer.truncate();
    encoded(&cut)
}
