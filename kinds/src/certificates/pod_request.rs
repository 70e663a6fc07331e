//! Requests of nodes for certificates of their pods. What is asked never changes; a signer answers through the status, once.

use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use weft_api::name;
use weft_api::status::StatusError;

use super::x509::{self, PublicKey, Sort};
use super::{GROUP, is_kubernetes_signer, may_act_for, pem, signer_name};
use crate::columns::{Column, Row, labels_text};
use crate::conditions::conditions;
use crate::field::Field;
use crate::kind::Selectable;
use crate::lens::{fill, items, member, text, time};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::{Problems, user_annotations};
use crate::{Kind, Subresource};

pub static POD_CERTIFICATE_REQUEST: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("PodName", pod, "The pod that the certificate is for."),
            Column::text("ServiceAccountName", account, "What the pod runs as."),
            Column::text("NodeName", node, "Where the pod runs."),
            Column::text("SignerName", signer, "Who is asked to sign."),
            Column::text("State", state, "What became of it."),
            Column::text(
                "UnverifiedUserAnnotations",
                annotations,
                "What the pod says to the signer.",
            )
            .wide(),
        ],
        selectable: vec![
            Selectable::new("spec.signerName", "/spec/signerName"),
            Selectable::new("spec.podName", "/spec/podName"),
            Selectable::new("spec.nodeName", "/spec/nodeName"),
        ],
        strategy: Arc::new(PodRequests),
        ..Kind::new(
            GROUP,
            "v1",
            "PodCertificateRequest",
            "podcertificaterequests",
        )
    })
});

/// How long certificates of pods may live, in seconds.
pub(crate) const LIFE_SECONDS_MIN: i64 = 60 * 60;
pub(crate) const LIFE_SECONDS_MAX: i64 = 91 * 24 * 60 * 60;
/// The same where Kubernetes signs.
pub(crate) const KUBERNETES_LIFE_SECONDS_MAX: i64 = 24 * 60 * 60;

const LIFE_SECONDS_DEFAULT: i64 = 24 * 60 * 60;
const UID_BYTES_MAX: usize = 128;
/// Bytes of a key, of a signature, and of a request.
const PROOF_BYTES_MAX: usize = 10 << 10;
const CHAIN_BYTES_MAX: usize = 100 << 10;
/// How far the begin of a certificate may be from now.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// How far a refresh keeps from both ends of a certificate's life.
const REFRESH_DISTANCE_SECONDS: i64 = 10 * 60;

/// What a request ends with.
const ENDS: &[&str] = &["Issued", "Denied", "Failed"];

struct PodRequests;

impl Strategy for PodRequests {
    fn default(&self, value: &mut Value) {
        let spec = member(value, "spec");
        fill(spec, "maxExpirationSeconds", LIFE_SECONDS_DEFAULT);
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    /// Who answers may sign for this signer, and a certificate begins about now.
    fn judge(
        &self,
        new: &Value,
        old: Option<&Value>,
        part: Option<Subresource>,
        around: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        let (Some(old), Some(Subresource::Status)) = (old, part) else {
            return Ok(());
        };
        if old.get("status") == new.get("status") {
            return Ok(());
        }
        let mut problems = Problems::default();
        let root = Field::root(new);
        let begin = root.child("status.notBefore");
        let near = |begin: Timestamp| begin.duration_since(around.now()).abs() < CLOCK_SKEW;
        if has_ended(new, "Issued") && !time(new, "/status/notBefore").is_some_and(near) {
            let sentence = "must be set to within 5 minutes of kube-apiserver's current time";
            problems.invalid(&begin, begin.shown(), sentence);
        } else {
            let signer = text(old, "/spec/signerName");
            if !may_act_for(signer, "sign", around) {
                let user = around.requester().user;
                let sentence =
                    format!("User {user:?} is not permitted to \"sign\" for signer {signer:?}");
                problems.forbidden(&root.child("spec.signerName"), &sentence);
            }
        }
        problems.into_result(&POD_CERTIFICATE_REQUEST, text(new, "/metadata/name"))
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        signer_name(&spec.child("signerName"), problems);
        user_annotations(&spec.child("unverifiedUserAnnotations"), problems);
        for (own_name, uid) in [
            ("podName", "podUID"),
            ("serviceAccountName", "serviceAccountUID"),
            ("nodeName", "nodeUID"),
        ] {
            problems.rule(&spec.child(own_name), name::dns1123_subdomain_faults);
            let uid = spec.child(uid);
            match uid.text().len() {
                0 => problems.invalid(&uid, "", "must not be empty"),
                1..=UID_BYTES_MAX => {}
                _ => problems.too_long(&uid, UID_BYTES_MAX),
            }
        }
        let life = spec.child("maxExpirationSeconds");
        let Some(seconds) = life.integer() else {
            return problems.required(&life, "must be set");
        };
        let allowed = lives(spec.child("signerName").text());
        if !allowed.contains(&seconds) {
            let sentence = format!(
                "must be in the range [{}, {}]",
                allowed.start(),
                allowed.end()
            );
            problems.invalid(&life, seconds, &sentence);
        }
        let request = spec.child("stubPKCS10Request");
        if request.text().is_empty() {
            problems.invalid_unshown(
                &spec,
                "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set",
            );
        } else {
            stub(&request, problems);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        match part {
            Some(Subresource::Status) => answer(&root, &before, problems),
            _ => problems.immutable(&root.child("spec"), &before.child("spec")),
        }
    }
}

/// How long certificates of a signer may live.
fn lives(signer: &str) -> RangeInclusive<i64> {
    match is_kubernetes_signer(signer) {
        true => LIFE_SECONDS_MIN..=KUBERNETES_LIFE_SECONDS_MAX,
        false => LIFE_SECONDS_MIN..=LIFE_SECONDS_MAX,
    }
}

fn bytes_of(field: &Field<'_, '_>) -> Vec<u8> {
    STANDARD.decode(field.text()).unwrap_or_default()
}

/// A request that tells the key and nothing else, signed by it.
fn stub(request: &Field<'_, '_>, problems: &mut Problems) {
    let bytes = bytes_of(request);
    if bytes.len() > PROOF_BYTES_MAX {
        return problems.too_long(request, PROOF_BYTES_MAX);
    }
    let Some(parsed) = x509::request(&bytes) else {
        return problems.invalid_unshown(request, "must be a valid PKCS#10 CSR");
    };
    if !strong(&parsed.key, request, problems) {
        return;
    }
    if parsed.key.sort == Sort::Other {
        let sentence = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";
        return problems.invalid_unshown(request, sentence);
    }
    if !parsed.is_signed {
        problems.invalid_unshown(request, "invalid signature");
    }
}

/// Whether a key of a known sort is of a size that is taken.
fn strong(key: &PublicKey, field: &Field<'_, '_>, problems: &mut Problems) -> bool {
    match key.sort {
        Sort::Elliptic("P-224") => {
            let sentence = "elliptic public keys must use curve P256, P384, or P521";
            problems.invalid(field, "curve P-224", sentence);
            false
        }
        Sort::Rsa(bits) if bits != 3072 && bits != 4096 => {
            let sentence = "RSA keys must have modulus size 3072 or 4096";
            problems.invalid(field, format!("{bits}-bit modulus"), sentence);
            false
        }
        _ => true,
    }
}

/// Whether a request has come to this end.
fn has_ended(request: &Value, end: &str) -> bool {
    items(request, "/status/conditions")
        .iter()
        .any(|condition| condition["type"] == end && condition["status"] == "True")
}

/// The status as a whole: it is written once, when the request comes to an end.
fn answer(root: &Field<'_, '_>, before: &Field<'_, '_>, problems: &mut Problems) {
    let (status, kept) = (root.child("status"), before.child("status"));
    let count = problems.count();
    let mut ends = 0;
    for condition in status.items("conditions") {
        let kind = condition.child("type");
        if !ENDS.contains(&kind.text()) {
            problems.not_supported(&kind, kind.text(), ENDS);
            continue;
        }
        ends += 1;
        if ends > 1 {
            let sentence = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            problems.invalid(&kind, kind.text(), sentence);
        }
        let told = condition.child("status");
        if told.text() != "True" {
            problems.not_supported(&told, told.text(), &["True"]);
        }
    }
    conditions(&status, problems);
    if problems.count() > count {
        return;
    }
    let ended = |request: &Field<'_, '_>, end: &str| {
        request
            .object()
            .is_some_and(|request| has_ended(request, end))
    };
    let same = status.value() == kept.value();
    if ENDS.iter().any(|end| ended(before, end)) {
        if !same {
            let sentence = "immutable after PodCertificateRequest is issued, denied, or failed";
            problems.invalid_unshown(&status, sentence);
        }
    } else if ended(root, "Denied") || ended(root, "Failed") {
        let mut members = status.map().into_iter().flatten();
        if members.any(|(name, value)| name != "conditions" && !value.is_null()) {
            let sentence = "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
            problems.invalid_unshown(&status, sentence);
        }
    } else if ended(root, "Issued") {
        issued(root, problems);
    } else if !same {
        let sentence =
            "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"";
        problems.invalid_unshown(&status, sentence);
    }
}

/// The certificates that a signer answered with, and what it says of their times.
fn issued(root: &Field<'_, '_>, problems: &mut Problems) {
    const CERTIFICATES_ONLY: &str =
        "issued certificate chain must consist entirely of CERTFICATE PEM blocks";
    let (spec, status) = (root.child("spec"), root.child("status"));
    let chain = status.child("certificateChain");
    if chain.text().len() > CHAIN_BYTES_MAX {
        return problems.too_long(&chain, CHAIN_BYTES_MAX);
    }
    let count = problems.count();
    let Some((block, mut rest)) = pem::next(chain.text()) else {
        let sentence = "issued certificate chain must contain at least one certificate";
        return problems.invalid(&chain, chain.text(), sentence);
    };
    if block.label != "CERTIFICATE" {
        return problems.invalid(&chain, chain.text(), CERTIFICATES_ONLY);
    }
    let Some(leaf) = x509::certificate(&block.bytes) else {
        let sentence = "leaf certificate does not parse as valid X.509";
        return problems.invalid(&chain, chain.text(), sentence);
    };
    for name in &leaf.dns_names {
        let faults = [
            (
                name.is_empty(),
                "leaf certificate should not contain empty DNSName",
            ),
            (
                name.contains(".."),
                "leaf certificate's DNSName should not contain '..'",
            ),
            (
                name.starts_with('.') || name.ends_with('.'),
                "leaf certificate's DNSName should not start or end with '.'",
            ),
        ];
        for (_, sentence) in faults.iter().filter(|(holds, _)| *holds) {
            problems.invalid(&chain, name.as_str(), sentence);
        }
    }
    for address in &leaf.email_addresses {
        let parts = address.rsplit_once('@');
        if !parts.is_some_and(|(who, host)| !who.is_empty() && !host.is_empty()) {
            let sentence = "leaf certificate should not contain invalid EmailAddress";
            problems.invalid(&chain, address.as_str(), sentence);
        }
    }
    let stub = bytes_of(&spec.child("stubPKCS10Request"));
    let wanted = x509::request(&stub).map(|request| request.key);
    if wanted.is_none_or(|wanted| wanted != leaf.key) {
        let sentence = "leaf certificate was not issued to the requested public key";
        return problems.invalid(&chain, chain.text(), sentence);
    }
    let times = [
        (
            "notBefore",
            "must be present and consistent with the issued certificate",
        ),
        (
            "notAfter",
            "must be present and consistent with the issued certificate",
        ),
        (
            "beginRefreshAt",
            "must be present and in the range [notbefore+10min, notafter-10min]",
        ),
    ];
    for (member, sentence) in times {
        if status.child(member).text().is_empty() {
            problems.required(&status.child(member), sentence);
        }
    }
    if problems.count() > count {
        return;
    }
    let seconds = |member: &str| {
        let at: Option<Timestamp> = status.child(member).text().parse().ok();
        at.map_or(0, Timestamp::as_second)
    };
    let refresh = seconds("beginRefreshAt");
    let life = leaf.not_after - leaf.not_before;
    let longest = spec.child("maxExpirationSeconds").integer().unwrap_or(0);
    let too_long =
        format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({longest})");
    let nanoseconds = Value::from(life.saturating_mul(1_000_000_000));
    let faults = [
        (
            seconds("notBefore") != leaf.not_before,
            "notBefore",
            "must be set to the NotBefore time encoded in the leaf certificate",
        ),
        (
            seconds("notAfter") != leaf.not_after,
            "notAfter",
            "must be set to the NotAfter time encoded in the leaf certificate",
        ),
        (
            life < LIFE_SECONDS_MIN,
            "certificateChain",
            "leaf certificate lifetime must be >= 1 hour",
        ),
        (life > longest, "certificateChain", too_long.as_str()),
        (
            refresh < leaf.not_before + REFRESH_DISTANCE_SECONDS,
            "beginRefreshAt",
            "must be at least 10 minutes after status.notBefore",
        ),
        (
            refresh > leaf.not_after - REFRESH_DISTANCE_SECONDS,
            "beginRefreshAt",
            "must be at least 10 minutes before status.notAfter",
        ),
    ];
    if let Some((_, member, sentence)) = faults.into_iter().find(|(holds, ..)| *holds) {
        let field = status.child(member);
        let shown = match member {
            "certificateChain" => nanoseconds,
            _ => field.shown(),
        };
        return problems.invalid(&field, shown, sentence);
    }
    // A chain cannot be verified without its end; that it consists of certificates can.
    while let Some((block, after)) = pem::next(rest) {
        rest = after;
        if block.label != "CERTIFICATE" {
            return problems.invalid(&chain, chain.text(), CERTIFICATES_ONLY);
        }
        if x509::certificate(&block.bytes).is_none() {
            let sentence = "intermediate certificate does not parse as valid X.509";
            return problems.invalid(&chain, chain.text(), sentence);
        }
    }
}

fn pod(row: &Row<'_>) -> Value {
    row.text_or("/spec/podName", "")
}

fn account(row: &Row<'_>) -> Value {
    row.text_or("/spec/serviceAccountName", "")
}

fn node(row: &Row<'_>) -> Value {
    row.text_or("/spec/nodeName", "")
}

fn signer(row: &Row<'_>) -> Value {
    row.text_or("/spec/signerName", "")
}

fn state(row: &Row<'_>) -> Value {
    let conditions = items(row.object, "/status/conditions").iter();
    let mut ends = conditions.filter_map(|condition| condition["type"].as_str());
    let end = ends.rfind(|end| ENDS.contains(end));
    end.unwrap_or("Pending").into()
}

fn annotations(row: &Row<'_>) -> Value {
    crate::columns::or_none(labels_text(row.object, "/spec/unverifiedUserAnnotations"))
}
