//! Who may do what, with the oldest and the newest kubectl that is supported, on one cluster: questions, tokens, certificates, and the commands that compare,
//! wait and explain. What pods use is in `usage.rs`.

use std::path::Path;

use serde_json::{Value, json};
use weft_tests::clients;
use weft_tests::cluster::{Cluster, eventually, success};

#[test]
fn kubectl_asks_and_is_told_who_may_do_what() {
    let found: Vec<_> = [33, 37]
        .into_iter()
        .filter_map(|minor| Some((minor, clients::kubectl(minor)?)))
        .collect();
    if found.is_empty() {
        return;
    }
    let cluster = Cluster::start(1).unwrap();
    for (minor, kubectl) in found {
        let team = Team {
            cluster: &cluster,
            kubectl: &kubectl,
            namespace: format!("team-{minor}"),
        };
        team.rights().unwrap();
        team.tokens().unwrap();
        team.certificates().unwrap();
        team.manifests().unwrap();
    }
}

/// A namespace of its own for each kubectl.
struct Team<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Path,
    namespace: String,
}

impl Team<'_> {
    /// Runs a line, in which `$NS` is the namespace: a sign that no token has.
    fn run(&self, line: &str) -> anyhow::Result<String> {
        let line = line.replace("$NS", &self.namespace);
        let args: Vec<&str> = line.split(' ').collect();
        let output = self.cluster.kubectl(self.kubectl, &args)?;
        success(output).map_err(|error| error.context(line))
    }

    /// What a line that fails says, on both of its outputs.
    fn refused(&self, line: &str) -> String {
        let refused = self.run(line).expect_err(line);
        refused.root_cause().to_string()
    }

    fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.cluster.data_dir().join(name);
        std::fs::write(&path, text.replace("$NS", &self.namespace))?;
        Ok(path.display().to_string())
    }

    fn rights(&self) -> anyhow::Result<()> {
        let who = self.run("auth whoami -o json")?;
        let who: Value = serde_json::from_str(&who)?;
        let groups = &who["status"]["userInfo"]["groups"];
        assert!(groups.to_string().contains("system:masters"), "{who}");
        assert!(self.run("auth whoami")?.contains("Username"));
        assert!(self.run("auth can-i --list")?.contains("*.*"));

        self.run("create namespace $NS")?;
        self.run("create serviceaccount robot -n $NS")?;
        self.run("create role reader -n $NS --verb=get,list --resource=pods,configmaps")?;
        self.run("create rolebinding robot -n $NS --role=reader --serviceaccount=$NS:robot")?;
        let robot = "-n $NS --as=system:serviceaccount:$NS:robot";
        for (question, may) in [
            ("list pods", true),
            ("get configmaps/settings", true),
            ("create pods", false),
            ("get pods --subresource=log", false),
            ("get /version", true),
            ("get /metrics", false),
            ("list secrets --all-namespaces", false),
        ] {
            let line = format!("auth can-i {question} {robot}");
            match may {
                true => assert_eq!(self.run(&line)?.trim(), "yes", "{line}"),
                false => assert!(self.refused(&line).contains("no"), "{line}"),
            }
        }
        let list = self.run(&format!("auth can-i --list {robot}"))?;
        let of_pods = list.lines().find(|line| line.starts_with("pods "));
        let of_pods = of_pods.unwrap_or_else(|| panic!("{list}"));
        assert!(of_pods.contains("[get list]"), "{list}");
        assert!(
            list.contains("selfsubjectreviews.authentication.k8s.io"),
            "{list}"
        );

        // What is missing is added, and what is too much taken away where that is asked for.
        let rbac = "apiVersion: rbac.authorization.k8s.io/v1";
        let role = |verbs: &str| {
            format!(
                "{rbac}\nkind: Role\nmetadata: {{name: kept, namespace: $NS}}\n\
                 rules: [{{apiGroups: [''], resources: [pods], verbs: [{verbs}]}}]\n---\n\
                 {rbac}\nkind: RoleBinding\nmetadata: {{name: kept, namespace: $NS}}\n\
                 roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: kept}}\n\
                 subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: ann}}]\n"
            )
        };
        for (verbs, flags, expected) in [
            ("get", "", "[\"get\"]"),
            ("list", "", "[\"get\"] [\"list\"]"),
            ("watch", " --remove-extra-permissions", "[\"watch\"]"),
        ] {
            let file = self.file("reconciled.yaml", &role(verbs))?;
            let told = self.run(&format!("auth reconcile -f {file}{flags}"))?;
            assert!(told.contains("kept reconciled"), "{told}");
            let rules = self.run("get role kept -n $NS -o jsonpath={.rules[*].verbs}")?;
            let mut rules: Vec<&str> = rules.split(' ').collect();
            rules.sort_unstable();
            assert_eq!(rules.join(" "), expected, "{told}");
        }
        assert_eq!(
            self.run("auth can-i watch pods -n $NS --as=ann")?.trim(),
            "yes"
        );
        Ok(())
    }

    /// What the API says of a token.
    fn review(&self, token: &str, audiences: &[&str]) -> anyhow::Result<Value> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences},
        });
        let file = self.file("review.json", &review.to_string())?;
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let told = self.run(&format!("create --raw {path} -f {file}"))?;
        let told: Value = serde_json::from_str(&told)?;
        Ok(told["status"].clone())
    }

    fn tokens(&self) -> anyhow::Result<()> {
        let user = format!("system:serviceaccount:{}:robot", self.namespace);
        let token = self.run("create token robot -n $NS")?;
        let known = self.review(token.trim(), &[])?;
        assert_eq!(known["user"]["username"], user.as_str(), "{known}");
        let token = self.run("create token robot -n $NS --audience=vault --duration=20m")?;
        let known = self.review(token.trim(), &["vault", "other"])?;
        assert_eq!(known["audiences"], json!(["vault"]), "{known}");
        let unknown = self.review(token.trim(), &[])?;
        assert_ne!(unknown["authenticated"], true, "{unknown}");
        let short = self.refused("create token robot -n $NS --duration=5m");
        assert!(short.contains("less than 10 minutes"), "{short}");

        // One that is bound to an object is good as long as that is there.
        self.run("create secret generic held -n $NS --from-literal=a=b")?;
        let bound = "create token robot -n $NS --bound-object-kind=Secret --bound-object-name=held";
        let token = self.run(bound)?;
        let token = token.trim();
        assert_eq!(self.review(token, &[])?["authenticated"], true);
        // Its holder is who it says, without any other credential.
        let config = self.run("config view --raw --minify -o json")?;
        let mut config: Value = serde_json::from_str(&config)?;
        let name = config["users"][0]["name"].clone();
        config["users"] = json!([{"name": name, "user": {"token": token}}]);
        let own = self.file("robot.json", &config.to_string())?;
        let who = self.run(&format!("--kubeconfig={own} auth whoami"))?;
        assert!(who.contains(&user), "{who}");
        let pods = self.run(&format!("--kubeconfig={own} get pods -n $NS -o name"))?;
        assert_eq!(pods, "");
        let secrets = self.refused(&format!("--kubeconfig={own} get secrets -n $NS"));
        assert!(
            secrets.contains("cannot list resource \"secrets\""),
            "{secrets}"
        );
        self.run("delete secret held -n $NS")?;
        assert_ne!(self.review(token, &[])?["authenticated"], true);
        let gone = self.refused(&format!("--kubeconfig={own} get pods -n $NS"));
        assert!(
            gone.contains("Unauthorized") || gone.contains("logged in"),
            "{gone}"
        );
        Ok(())
    }

    fn certificates(&self) -> anyhow::Result<()> {
        let request = |name: &str| -> anyhow::Result<String> {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
            let mut params = rcgen::CertificateParams::default();
            let common = rcgen::DnType::CommonName;
            params.distinguished_name.push(common, "ann");
            let pem = params.serialize_request(&key)?.pem()?;
            let encoded = k8s_openapi::ByteString(pem.into_bytes());
            self.file(
                "request.json",
                &json!({
                    "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
                    "metadata": {"name": name},
                    "spec": {
                        "request": encoded, "usages": ["client auth"],
                        "signerName": "kubernetes.io/kube-apiserver-client",
                    },
                })
                .to_string(),
            )
        };
        for (verb, told, condition) in [
            ("approve", "approved", "Approved"),
            ("deny", "denied", "Denied"),
        ] {
            let name = format!("{verb}-{}", self.namespace);
            let file = request(&name)?;
            self.run(&format!("create -f {file}"))?;
            let done = self.run(&format!("certificate {verb} {name}"))?;
            assert!(done.contains(&format!("{name} {told}")), "{done}");
            self.run(&format!(
                "wait --for=condition={condition} csr/{name} --timeout=30s"
            ))?;
            if verb == "approve" {
                let certificate = "-o jsonpath={.status.certificate}";
                eventually("the certificate is there", || {
                    let found = self.run(&format!("get csr {name} {certificate}"))?;
                    Ok((!found.is_empty()).then_some(()))
                })?;
            }
            let shown = self.run(&format!("get csr {name}"))?;
            assert!(shown.contains(condition), "{shown}");
        }
        Ok(())
    }

    fn manifests(&self) -> anyhow::Result<()> {
        let map = |colour: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m, namespace: $NS}}\ndata: {{colour: {colour}}}\n"
            )
        };
        let file = self.file("map.yaml", &map("blue"))?;
        self.run(&format!("apply -f {file}"))?;
        assert_eq!(self.run(&format!("diff -f {file}"))?, "");
        let file = self.file("map.yaml", &map("red"))?;
        let found = self.refused(&format!("diff -f {file}"));
        assert!(found.contains("-  colour: blue"), "{found}");
        assert!(found.contains("+  colour: red"), "{found}");
        let found = self.refused(&format!("diff --server-side -f {file}"));
        assert!(found.contains("+  colour: red"), "{found}");
        self.run(&format!("apply -f {file}"))?;
        self.run("wait --for=jsonpath={.data.colour}=red configmap/m -n $NS --timeout=30s")?;
        self.run("delete configmap m -n $NS --wait=false")?;
        self.run("wait --for=delete configmap/m -n $NS --timeout=30s")?;

        // A pod that cannot start says why, in its events.
        self.run("run stuck -n $NS --image=nowhere.invalid/none:1 --restart=Never")?;
        let events = eventually("the pod is placed", || {
            let events = self.run("events -n $NS --for pod/stuck")?;
            Ok(events.contains("Scheduled").then_some(events))
        })?;
        for column in ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"] {
            assert!(events.contains(column), "{events}");
        }
        let warnings = self.run("events -n $NS --types=Normal -o json")?;
        assert!(warnings.contains("\"reason\": \"Scheduled\""), "{warnings}");
        self.run("delete pod stuck -n $NS --grace-period=0 --force")?;

        let explained = self.run("explain --recursive deployment.spec")?;
        for field in [
            "<PodTemplateSpec> -required-",
            "maxSurge",
            "terminationGracePeriodSeconds",
        ] {
            assert!(explained.contains(field), "{explained}");
        }
        Ok(())
    }
}
