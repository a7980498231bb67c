use serde_json::json;

use super::*;
use crate::{
    dns::upstream::Upstreams,
    services::tests::{service, slice},
};

fn responder(complete: bool) -> Responder {
    let mut zone = Zone::new(&Name::from_ascii("cluster.local").unwrap(), Vec::new());
    zone.apply(service("web", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]})));
    zone.apply(service("many", json!({"clusterIP": "None"})));
    let endpoints: Vec<_> = (0..200).map(|n| json!({"addresses": [format!("10.244.1.{n}")]})).collect();
    zone.apply(slice("many-1", "many", json!([{"name": "p", "port": 1}]), json!(endpoints)));
    zone.apply(service("inner", json!({"type": "ExternalName", "externalName": "web.ns.svc.cluster.local"})));
    zone.apply(service("loop", json!({"type": "ExternalName", "externalName": "loop.ns.svc.cluster.local"})));
    let random = Arc::new(meta::Seeded::new(1));
    let upstream = Upstream::new(Upstreams::Fixed(Vec::new()), Vec::new(), random);
    Responder { zone: RwLock::new((zone, complete)), upstream }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(responder: &Responder, question: &Message, by: Transport) -> (Message, usize) {
    match responder.reply(&question.to_vec().unwrap(), by) {
        Reply::Now(bytes) => (Message::from_vec(&bytes).unwrap(), bytes.len()),
        Reply::Later(_) => panic!("was passed on"),
        Reply::Nothing => panic!("was not answered"),
    }
}

#[test]
fn answers_and_absences() {
    let server = responder(true);
    for (name, kind, code, answers, authorities) in [
        ("web.ns.svc.cluster.local.", RecordType::A, ResponseCode::NoError, 1, 0),
        ("web.ns.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError, 0, 1),
        ("nope.ns.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, 0, 1),
        ("inner.ns.svc.cluster.local.", RecordType::A, ResponseCode::NoError, 2, 0),
        ("inner.ns.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError, 1, 1),
        ("inner.ns.svc.cluster.local.", RecordType::CNAME, ResponseCode::NoError, 1, 0),
        ("loop.ns.svc.cluster.local.", RecordType::A, ResponseCode::ServFail, 0, 0),
    ] {
        let (got, _) = ask(&server, &question(name, kind), Transport::Udp);
        let expected = (7, code, answers, authorities, true, true);
        let metadata = got.metadata;
        assert_eq!(
            (
                metadata.id,
                metadata.response_code,
                got.answers.len(),
                got.authorities.len(),
                metadata.recursion_available,
                metadata.recursion_desired
            ),
            expected,
            "{name} {kind}"
        );
        assert_eq!(metadata.authoritative, code != ResponseCode::ServFail, "{name} {kind}");
        assert!(got.edns.is_none(), "EDNS only for those who speak it");
    }
}

#[test]
fn nothing_is_absent_before_everything_is_known() {
    let server = responder(false);
    let code = |name| ask(&server, &question(name, RecordType::A), Transport::Udp).0.metadata.response_code;
    assert_eq!(code("nope.ns.svc.cluster.local."), ResponseCode::ServFail);
    assert_eq!(code("web.ns.svc.cluster.local."), ResponseCode::NoError);
}

#[test]
fn long_answers_are_cut_over_udp_only() {
    let server = responder(true);
    let mut many = question("many.ns.svc.cluster.local.", RecordType::A);
    let (plain, length) = ask(&server, &many, Transport::Udp);
    assert!(plain.metadata.truncation && !plain.answers.is_empty() && length <= 512, "{length}");
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    many.set_edns(edns);
    let (longer, length) = ask(&server, &many, Transport::Udp);
    assert!(
        longer.metadata.truncation && longer.answers.len() > plain.answers.len() && length <= 1232,
        "{length}"
    );
    assert_eq!(longer.edns.as_ref().map(Edns::max_payload), Some(1232));
    let (whole, _) = ask(&server, &many, Transport::Tcp);
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (200, false));
    // Helpful records are left out first, without a word.
    many.queries.clear();
    many.add_query(Query::query(
        Name::from_ascii("_p._tcp.many.ns.svc.cluster.local.").unwrap(),
        RecordType::SRV,
    ));
    let (ports, _) = ask(&server, &many, Transport::Tcp);
    assert_eq!((ports.answers.len(), ports.additionals.len()), (200, 200));
}

#[test]
fn bad_questions() {
    let server = responder(true);
    let good = question("web.ns.svc.cluster.local.", RecordType::A);
    let code = |message: &Message| ask(&server, message, Transport::Udp).0.metadata.response_code;
    let mut notify = good.clone();
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&notify), ResponseCode::NotImp);
    let mut two = good.clone();
    two.add_query(good.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    let mut chaos = good.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    let mut future = good.clone();
    let mut edns = Edns::new();
    edns.set_version(1);
    future.set_edns(edns);
    // BADVERS and BADSIG are the same number.
    assert_eq!(u16::from(code(&future)), u16::from(ResponseCode::BADVERS));
    let mut answer = good.clone();
    answer.metadata.message_type = MessageType::Response;
    for bytes in [answer.to_vec().unwrap(), Vec::new(), vec![0; 5], vec![0xff; 40]] {
        assert!(matches!(server.reply(&bytes, Transport::Udp), Reply::Nothing), "{bytes:?}");
    }
    let mut cut = good.to_vec().unwrap();
    cut.truncate(20);
    let Reply::Now(bytes) = server.reply(&cut, Transport::Udp) else { panic!("not answered") };
    let got = Message::from_vec(&bytes).unwrap();
    assert_eq!((got.metadata.id, got.metadata.response_code), (7, ResponseCode::FormErr));
}

#[tokio::test]
async fn without_resolvers_other_names_fail() {
    let server = Arc::new(responder(true));
    let request = question("example.org.", RecordType::A).to_vec().unwrap();
    let Reply::Later(pending) = server.reply(&request, Transport::Udp) else { panic!("answered") };
    let got = Message::from_vec(&server.finish(pending).await).unwrap();
    assert_eq!((got.metadata.id, got.metadata.response_code), (7, ResponseCode::ServFail));
}
