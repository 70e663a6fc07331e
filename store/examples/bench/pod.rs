//! What is put, by whom: the beginnings of pods in JSON, the same on every server and at every level.

/// Clients that each wait for their last put.
pub const CLIENTS: [usize; 4] = [1, 16, 128, 500];
pub const KEYS_PER_CLIENT: usize = 100;
pub const VALUE_BYTES: usize = 256;
/// Puts for the memory they leave behind: a value as large as `etcdctl check perf` writes, and as many clients.
pub const KEPT_VALUE_BYTES: usize = 1024;
pub const KEPT_CLIENTS: usize = 500;
/// The longest value, in bytes.
const POD_BYTES: usize = 1024;

/// The first bytes of the pod with this number, as an API server writes it. Its names, ids and addresses look random, as real ones.
pub fn pod(number: usize, bytes: usize) -> Vec<u8> {
    // The finaliser of MurmurHash3: nothing two pods have in common survives it.
    let hash = |salt: u64| {
        let mut hash = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt;
        for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
            hash = (hash ^ (hash >> 33)).wrapping_mul(multiplier);
        }
        hash ^ (hash >> 33)
    };
    let uid = |salt: u64| {
        let (high, low) = (hash(salt), hash(salt + 1));
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            high & 0xffff,
            (high >> 16) & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff
        )
    };
    let (set, end) = (hash(1) & 0xff_ffff_ffff, hash(2) & 0xff_ffff);
    let (namespace, app) = (number % 97, number % 1009);
    let (owner, own) = (uid(10), uid(20));
    let (hour, minute, second) = (hash(3) % 24, hash(4) % 60, hash(5) % 60);
    let time = format!(
        "2026-11-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        1 + hash(6) % 30
    );
    let mut text = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"creationTimestamp":"{time}","generateName":"app-{app}-{set:x}-","generation":2,"labels":{{"app":"app-{app}","pod-template-hash":"{set:x}","team":"team-{namespace}"}},"name":"app-{app}-{set:x}-{end:x}","namespace":"team-{namespace}","ownerReferences":[{{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"app-{app}-{set:x}","uid":"{owner}"}}],"uid":"{own}"}},"spec":{{"containers":[{{"image":"registry.example/team-{namespace}/app-{app}:v1.{}","imagePullPolicy":"IfNotPresent","name":"app","ports":[{{"containerPort":8080,"protocol":"TCP"}}],"resources":{{"limits":{{"memory":"{}Mi"}}}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}}],"dnsPolicy":"ClusterFirst","nodeName":"node-{}","restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{{}},"terminationGracePeriodSeconds":30}},"status":{{"phase":"Running","podIP":"10.128.{}.{}","startTime":"{time}"}}}}"#,
        hash(7) % 100,
        hash(8) % 512,
        hash(9) % 64,
        hash(11) % 256,
        hash(12) % 256
    );
    while text.len() < POD_BYTES {
        text.push(' ');
    }
    text.truncate(bytes);
    text.into_bytes()
}
