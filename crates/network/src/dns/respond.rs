//! From a client's message to the answer: what is of this cluster from the zone, the rest from
//! upstream.

use std::sync::{Arc, RwLock};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, Record, RecordType},
};

use crate::dns::{
    upstream::{Transport, Upstream},
    zone::{Answer, Zone},
};

/// Aliases followed before giving up: more is a loop.
const ALIASES_MAX: usize = 8;
/// The largest answer over UDP without EDNS (RFC 1035).
const UDP_PLAIN: u16 = 512;
/// The largest answer over UDP at all: what passes without fragments (DNS flag day 2020).
const UDP_MAX: u16 = 1232;

/// The server's whole knowledge.
pub(crate) struct Responder {
    /// The zone, and whether it is complete: before that nothing can be said to be absent.
    pub(crate) zone: RwLock<(Zone, bool)>,
    pub(crate) upstream: Upstream,
}

/// What is to be done with a message.
pub(crate) enum Reply {
    /// Send this.
    Now(Vec<u8>),
    /// Others must be asked first.
    Later(Box<Pending>),
    /// It is not a question: an answer to it could start an endless exchange.
    Nothing,
}

/// A question that needs others' help.
pub(crate) struct Pending {
    request: Vec<u8>,
    question: Message,
    /// Records found so far and the name they led to; `None` passes the question on as it is.
    alias: Option<(Vec<Record>, Name)>,
    by: Transport,
}

impl Responder {
    /// Answers from memory if it can.
    pub(crate) fn reply(&self, request: &[u8], by: Transport) -> Reply {
        let question = match Message::from_vec(request) {
            Ok(message) if message.metadata.message_type == MessageType::Query => message,
            Ok(_) => return Reply::Nothing,
            Err(_) => return malformed(request),
        };
        if question.metadata.op_code != OpCode::Query {
            return now(&question, failure(&question, ResponseCode::NotImp), by);
        }
        if question.edns.as_ref().is_some_and(|e| e.version() > 0) {
            return now(&question, failure(&question, ResponseCode::BADVERS), by);
        }
        let [query] = question.queries.as_slice() else {
            return now(&question, failure(&question, ResponseCode::FormErr), by);
        };
        if query.query_class() != DNSClass::IN {
            return now(&question, failure(&question, ResponseCode::Refused), by);
        }
        let zone = self.zone.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (zone, complete) = &*zone;
        let kind = query.query_type();
        let mut found = Vec::new();
        let mut name = query.name().clone();
        for _ in 0..ALIASES_MAX {
            match zone.resolve(&name, kind) {
                Answer::Foreign => {
                    let alias = (!found.is_empty()).then_some((found, name));
                    let request = request.to_vec();
                    return Reply::Later(Box::new(Pending { request, question, alias, by }));
                }
                Answer::NoData | Answer::NoName if !complete => break,
                answer @ (Answer::Records(..) | Answer::NoData | Answer::NoName) => {
                    let message = said(&question, found, answer, zone);
                    return now(&question, message, by);
                }
                Answer::Alias(record, target) => {
                    found.push(*record);
                    if kind == RecordType::CNAME {
                        return now(&question, said(&question, found, Answer::NoData, zone), by);
                    }
                    name = target;
                }
            }
        }
        now(&question, failure(&question, ResponseCode::ServFail), by)
    }

    /// Asks upstream.
    pub(crate) async fn finish(self: Arc<Self>, pending: Box<Pending>) -> Vec<u8> {
        let Pending { request, question, alias, by } = *pending;
        let Some((mut found, target)) = alias else {
            return match self.upstream.ask(&request, by).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%error, "question was not answered");
                    encode(failure(&question, ResponseCode::ServFail), limit(&question, by))
                }
            };
        };
        let kind = question.queries.first().map_or(RecordType::A, Query::query_type);
        let mut onward = Message::new(0, MessageType::Query, OpCode::Query);
        onward.metadata.recursion_desired = true;
        onward.add_query(Query::query(target, kind));
        // Over TCP: the answer is joined with ours and must be whole.
        let asked =
            onward.to_vec().map(|bytes| async move { self.upstream.ask(&bytes, Transport::Tcp).await });
        let answer = match asked {
            Ok(asked) => asked.await.ok().and_then(|bytes| Message::from_vec(&bytes).ok()),
            Err(_) => None,
        };
        let message = match answer {
            Some(answer) => {
                found.extend(answer.answers);
                let mut message = response(&question, answer.metadata.response_code);
                message.answers = found;
                message.authorities = answer.authorities;
                message
            }
            None => failure(&question, ResponseCode::ServFail),
        };
        encode(message, limit(&question, by))
    }
}

/// The answer to a message that cannot be read, if enough of it can be to answer at all.
fn malformed(request: &[u8]) -> Reply {
    // The identifier, and the bit that tells an answer from a question.
    let Some(([high, low, flags], _)) = request.split_first_chunk::<3>() else { return Reply::Nothing };
    if request.len() < 12 || flags & 0x80 != 0 {
        return Reply::Nothing;
    }
    let id = u16::from_be_bytes([*high, *low]);
    let message = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    message.to_vec().map_or(Reply::Nothing, Reply::Now)
}

fn now(question: &Message, message: Message, by: Transport) -> Reply {
    Reply::Now(encode(message, limit(question, by)))
}

/// An answer's head: the question again, and what we can do.
fn response(question: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.metadata.recursion_desired = question.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.checking_disabled = question.metadata.checking_disabled;
    message.metadata.response_code = code;
    message.add_queries(question.queries.iter().cloned());
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MAX);
        message.set_edns(edns);
    }
    message
}

fn failure(question: &Message, code: ResponseCode) -> Message {
    response(question, code)
}

fn said(question: &Message, mut found: Vec<Record>, answer: Answer, zone: &Zone) -> Message {
    let mut message = response(question, ResponseCode::NoError);
    message.metadata.authoritative = true;
    let aliased = !found.is_empty();
    match answer {
        Answer::Records(answers, helpful) => {
            found.extend(answers);
            message.additionals = helpful;
        }
        Answer::NoName => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authority(zone.start_of_authority());
        }
        Answer::NoData
            if !aliased || question.queries.first().map(Query::query_type) != Some(RecordType::CNAME) =>
        {
            message.add_authority(zone.start_of_authority());
        }
        Answer::NoData | Answer::Alias(..) | Answer::Foreign => {}
    }
    message.answers = found;
    message
}

/// The largest answer the client takes.
fn limit(question: &Message, by: Transport) -> usize {
    match (by, &question.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => usize::from(UDP_PLAIN),
        (Transport::Udp, Some(edns)) => usize::from(edns.max_payload().clamp(UDP_PLAIN, UDP_MAX)),
    }
}

/// Encodes, leaving out records and saying so (TC) when they do not fit.
fn encode(mut message: Message, limit: usize) -> Vec<u8> {
    loop {
        let Ok(bytes) = message.to_vec() else {
            let id = message.metadata.id;
            let error = Message::error_msg(id, OpCode::Query, ResponseCode::ServFail);
            return error.to_vec().unwrap_or_default();
        };
        let records = message.answers.len();
        if bytes.len() <= limit || (records == 0 && message.additionals.is_empty()) {
            return bytes;
        }
        if !message.additionals.is_empty() {
            // Helpful records may be left out without saying so.
            message.additionals.clear();
            continue;
        }
        message.metadata.truncation = true;
        // The share that fits, and at least one less than before.
        let fitting = records * limit / bytes.len();
        message.answers.truncate(fitting.min(records - 1));
    }
}

#[cfg(test)]
mod tests;
