//! The administrator's kubeconfig.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Authority, Credentials};

impl Authority {
    /// The administrator's kubeconfig with everything embedded: the cluster at `server_url`, and a context for each of
    /// the `others`, servers by their numbers. It holds a private key: write it with mode 0600.
    pub fn kubeconfig(&self, server_url: &str, others: &[(u64, String)]) -> String {
        let signing = self.signing();
        let Credentials {
            certificate_pem,
            key_pem,
        } = &signing.admin;
        let authority = STANDARD.encode(signing.bundle.as_bytes());
        let mut named = vec![("weft".to_owned(), server_url)];
        named.extend(
            others
                .iter()
                .map(|(id, url)| (format!("weft-server-{id}"), url.as_str())),
        );
        let (mut clusters, mut contexts) = (String::new(), String::new());
        for (name, url) in named {
            // JSON strings are YAML strings: a URL can hold whatever it likes.
            let url = serde_json::Value::from(url);
            clusters.push_str(&format!(
                "- name: {name}\n\
                 \x20 cluster:\n\
                 \x20   server: {url}\n\
                 \x20   certificate-authority-data: {authority}\n"
            ));
            contexts.push_str(&format!(
                "- name: {name}\n\
                 \x20 context:\n\
                 \x20   cluster: {name}\n\
                 \x20   user: weft-admin\n"
            ));
        }
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             {clusters}\
             users:\n\
             - name: weft-admin\n\
             \x20 user:\n\
             \x20   client-certificate-data: {}\n\
             \x20   client-key-data: {}\n\
             contexts:\n\
             {contexts}\
             current-context: weft\n",
            STANDARD.encode(certificate_pem),
            STANDARD.encode(key_pem),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubeconfig_is_yaml_with_the_parts_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let text = authority.kubeconfig(
            "https://127.0.0.1:6443",
            &[(2, "https://10.0.0.2:6443".to_owned())],
        );
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(
            value["clusters"][0]["cluster"]["server"],
            "https://127.0.0.1:6443"
        );
        assert_eq!(value["contexts"][0]["context"]["user"], "weft-admin");
        assert_eq!(value["current-context"], "weft");
        assert_eq!(value["contexts"][1]["context"]["cluster"], "weft-server-2");
        assert_eq!(
            value["clusters"][1]["cluster"]["server"],
            "https://10.0.0.2:6443"
        );
        let key = value["users"][0]["user"]["client-key-data"]
            .as_str()
            .unwrap();
        assert_eq!(
            STANDARD.decode(key).unwrap(),
            authority.admin().key_pem.as_bytes()
        );
    }
}
