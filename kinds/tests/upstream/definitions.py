# What the published definitions of the Gateway API say, a line each, without their words: descriptions are left out, and of rules the
# messages alone are kept, which clients are told.
import glob, json, sys, yaml
crds = sys.argv[1]
def bare(schema):
    out = {}
    for key, value in schema.items():
        if key == "description" or (key, value) == ("minLength", 0): continue
        if key == "properties": value = {name: bare(field) for name, field in value.items()}
        elif key in ("items", "additionalProperties", "not"): value = bare(value)
        elif key in ("oneOf", "anyOf"): value = [bare(one) for one in value]
        elif key == "x-kubernetes-validations": key, value = "messages", [rule["message"] for rule in value]
        out[key] = value
    return out
files = sorted(glob.glob(f"{crds}/experimental/gateway.networking.k8s.io_*.yaml"))
for file in files + [f"{crds}/experimental/gateway.networking.x-k8s.io_xmeshes.yaml"]:
    for crd in yaml.safe_load_all(open(file)):
        if not crd or crd.get("kind") != "CustomResourceDefinition": continue
        for version in crd["spec"]["versions"]:
            version["schema"]["openAPIV3Schema"] = bare(version["schema"]["openAPIV3Schema"])
        metadata = {key: crd["metadata"][key] for key in ("name", "annotations", "labels") if key in crd["metadata"]}
        print(json.dumps({"apiVersion": crd["apiVersion"], "kind": crd["kind"], "metadata": metadata, "spec": crd["spec"]}))
