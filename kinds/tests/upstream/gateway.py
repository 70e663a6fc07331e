# Objects for TestObjects: a sound object of each kind of the Gateway API, and one change for each of its rules.
import copy, json, sys, yaml
crds = sys.argv[1]
for plural in ["backendtlspolicies", "gatewayclasses", "gateways", "grpcroutes", "httproutes", "listenersets", "tcproutes", "tlsroutes", "udproutes", "xmeshes"]:
    group = "gateway.networking.x-k8s.io" if plural == "xmeshes" else "gateway.networking.k8s.io"
    crd = yaml.safe_load(open(f"{crds}/experimental/{group}_{plural}.yaml"))
    for version in crd["spec"]["versions"]:
        kind = crd["spec"]["names"]["kind"] if version["name"] == "v1" else f"{version['name']} {crd['spec']['names']['kind']}"
        print(json.dumps({"Name": kind, "Schema": version["schema"]["openAPIV3Schema"]}))
def show(kind, new, old=None):
    print(json.dumps({"Name": kind, "New": new, "Old": old}))
def put(base, path, value):
    out = copy.deepcopy(base); at = out
    *steps, last = path
    for s in steps: at = at[s] if not isinstance(at, dict) or s in at else at.setdefault(s, {})
    if value is None: at.pop(last, None)
    elif isinstance(at, list) and last == len(at): at.append(value)
    else: at[last] = value
    return out
G = "gateway.networking.k8s.io"
meta = {"apiVersion": G + "/v1", "metadata": {"name": "x", "namespace": "n"}}
listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "Same"}}}
gateway = {**meta, "kind": "Gateway", "spec": {"gatewayClassName": "weft", "listeners": [listener]}, "status": {}}
show("Gateway", gateway)
def L(**k): return {**listener, **k}
tls = {"mode": "Terminate", "certificateRefs": [{"group": "", "kind": "Secret", "name": "c"}]}
for listeners in [
    [L(tls=tls)], [L(name="s", protocol="HTTPS", port=443, tls={**tls, "mode": "Passthrough"})],
    [L(protocol="TLS")], [L(protocol="TLS", tls={**tls, "mode": ""})], [L(protocol="TCP", hostname="a.b")],
    [L(), L(port=81)], [L(), L(name="b")], [L(hostname="a.b"), L(name="b", hostname="a.b")], [L(hostname="a.b"), L(name="b")],
    [L(protocol="HTTPS", tls={"mode": "Terminate", "certificateRefs": []})], [L(protocol="HTTPS", tls={"mode": "Terminate"})],
    [L(protocol="HTTPS", tls={"mode": "Terminate", "options": {"a": "b"}})], [L(protocol="HTTPS", tls=tls)],
    [L(name=f"l{i}", port=1000 + i) for i in range(64)],
]: show("Gateway", put(gateway, ["spec", "listeners"], listeners))
ip = {"type": "IPAddress", "value": "10.0.0.1"}; host = {"type": "Hostname", "value": "a.b"}
for addresses in [[ip], [ip, ip], [host, host], [ip, host], [{"type": "Hostname", "value": "A_B"}], [{"type": "Hostname"}]]:
    show("Gateway", put(gateway, ["spec", "addresses"], addresses))
show("Gateway", put(gateway, ["status", "addresses"], [{"type": "Hostname", "value": "A_B"}]))
show("Gateway", put(gateway, ["status", "addresses"], [host]))
for field in ["annotations", "labels"]:
    for keys in [{"a": "b"}, {"a b": "c"}, {"x" * 254 + "/a": "b"}, {"example.com/a": "b"}]:
        show("Gateway", put(gateway, ["spec", "infrastructure"], {field: keys}))
front = {"port": 443, "tls": {"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "c"}]}}}
for ports in [[front], [front, front]]:
    show("Gateway", put(gateway, ["spec", "tls"], {"frontend": {"default": {}, "perPort": ports}}))
gc = {**meta, "kind": "GatewayClass", "spec": {"controllerName": "weft.dev/gateway"}}
show("GatewayClass", gc); show("GatewayClass", gc, gc)
show("GatewayClass", put(gc, ["spec", "controllerName"], "other.dev/x"), gc)
mesh = {"apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XMesh", "metadata": {"name": "x"}, "spec": gc["spec"]}
show("v1alpha1 XMesh", mesh); show("v1alpha1 XMesh", mesh, mesh)
show("v1alpha1 XMesh", put(mesh, ["spec", "controllerName"], "other.dev/x"), mesh)
service = {"group": "", "kind": "Service", "name": "s", "port": 80, "weight": 1}
parent = {"group": G, "kind": "Gateway", "name": "g"}
route = {**meta, "kind": "HTTPRoute", "spec": {"parentRefs": [parent], "rules": [
    {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [service]}]}}
show("HTTPRoute", route)
R = ["spec", "rules", 0]
for parents in [[parent, parent], [parent, {**parent, "sectionName": "a"}], [{**parent, "sectionName": "a"}, {**parent, "sectionName": "a"}],
                [{**parent, "sectionName": "a"}, {**parent, "sectionName": "b"}], [parent, {**parent, "namespace": "m"}], [{**parent, "port": 1}, {**parent, "port": 1}]]:
    show("HTTPRoute", put(route, ["spec", "parentRefs"], parents))
rule = route["spec"]["rules"][0]
show("HTTPRoute", put(route, ["spec", "rules"], [{**rule, "name": "a"}, {**rule, "name": "a"}]))
show("HTTPRoute", put(route, ["spec", "rules"], [{**rule, "matches": [rule["matches"][0]] * 64}] * 3))
show("HTTPRoute", put(route, ["spec", "rules"], [rule] * 16))
for path in ["x", "/a//b", "/a/./b", "/a/../b", "/%2f", "/%2F", "/a#b", "/a/..", "/a/.", "/ä", "/a b", "/ok%20", ""]:
    for kind in ["Exact", "PathPrefix", "RegularExpression"]:
        show("HTTPRoute", put(route, R + ["matches", 0, "path"], {"type": kind, "value": path}))
show("HTTPRoute", put(route, R + ["matches", 0, "path"], {"type": "Other", "value": "/"}))
for backend in [{**service, "port": None}, {**service, "port": None, "group": "x"}, {**service, "port": None, "kind": "Other"}]:
    backend = {k: v for k, v in backend.items() if v is not None}
    show("HTTPRoute", put(route, R + ["backendRefs"], [backend]))
header = {"set": [{"name": "a", "value": "b"}]}
full = {"type": "ReplaceFullPath", "replaceFullPath": "/x"}; prefix = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}
redirect = {"type": "RequestRedirect", "requestRedirect": {"path": full, "statusCode": 302}}
rewrite = {"type": "URLRewrite", "urlRewrite": {"path": full}}
target = {"group": "", "kind": "Service", "name": "s", "port": 80}
filters = {
    "CORS": ("cors", {"allowOrigins": ["*"], "maxAge": 5}), "RequestHeaderModifier": ("requestHeaderModifier", header),
    "ResponseHeaderModifier": ("responseHeaderModifier", header), "RequestMirror": ("requestMirror", {"backendRef": target}),
    "RequestRedirect": ("requestRedirect", redirect["requestRedirect"]), "URLRewrite": ("urlRewrite", rewrite["urlRewrite"]),
    "ExtensionRef": ("extensionRef", {"group": "x", "kind": "Y", "name": "z"}),
    "ExternalAuth": ("externalAuth", {"protocol": "HTTP", "http": {}, "backendRef": target}),
}
def filter_of(kind, **k):
    name, value = filters[kind]; return {"type": kind, name: {**value, **k}}
bare = put(route, R + ["backendRefs"], None)
def both(items):
    show("HTTPRoute", put(bare, R + ["filters"], items))
    show("HTTPRoute", put(route, R + ["backendRefs", 0, "filters"], items))
for kind, (name, value) in filters.items():
    both([filter_of(kind)]); both([filter_of(kind), filter_of(kind)]); both([{"type": kind}])
    both([{**filter_of("ExtensionRef" if kind != "ExtensionRef" else "CORS"), name: value}])
both([redirect, rewrite])
show("HTTPRoute", put(route, R + ["filters"], [redirect]))
for field in ["allowOrigins", "allowMethods", "allowHeaders"]:
    both([filter_of("CORS", **{field: ["*", "GET"]})])
for auth in [{"protocol": "GRPC", "http": {}}, {"protocol": "HTTP", "grpc": {}}, {"protocol": "GRPC", "grpc": {}}, {"protocol": "HTTP"}]:
    both([{"type": "ExternalAuth", "externalAuth": {**auth, "backendRef": target}}])
noport = {k: v for k, v in target.items() if k != "port"}
both([filter_of("ExternalAuth", backendRef=noport)]); both([filter_of("RequestMirror", backendRef=noport)])
both([filter_of("RequestMirror", percent=5, fraction={"numerator": 1, "denominator": 2})])
both([filter_of("RequestMirror", fraction={"numerator": 3, "denominator": 2})])
for kind in ["RequestRedirect", "URLRewrite"]:
    for path in [prefix, {"type": "ReplaceFullPath"}, {"type": "ReplacePrefixMatch"}, {**prefix, "replaceFullPath": "/y"}, {"type": "ReplaceFullPath", "replacePrefixMatch": "/y", "replaceFullPath": "/z"}]:
        both([filter_of(kind, path=path)])
        exact = put(bare, R + ["matches", 0, "path", "type"], "Exact")
        show("HTTPRoute", put(exact, R + ["filters"], [filter_of(kind, path=path)]))
        exact = put(route, R + ["matches", 0, "path", "type"], "Exact")
        show("HTTPRoute", put(exact, R + ["backendRefs", 0, "filters"], [filter_of(kind, path=path)]))
for timeouts in [{"request": "1s", "backendRequest": "2s"}, {"request": "0s", "backendRequest": "2s"}, {"request": "2s", "backendRequest": "1s"}, {"request": "5s"}]:
    show("HTTPRoute", put(route, R + ["timeouts"], timeouts))
for session in [{"type": "Cookie", "cookieConfig": {"lifetimeType": "Permanent"}}, {"type": "Header", "cookieConfig": {"lifetimeType": "Session"}},
                {"type": "Cookie", "cookieConfig": {"lifetimeType": "Permanent"}, "absoluteTimeout": "1h"}]:
    show("HTTPRoute", put(route, R + ["sessionPersistence"], session))

def of(kind, spec, base=meta):
    return {**base, "kind": kind.split(" ")[-1], "spec": spec}
names = [{"name": "a", "backendRefs": [service]}, {"name": "a", "backendRefs": [service]}]
portless = {k: v for k, v in service.items() if k != "port"}
for kind in ["TCPRoute", "UDPRoute", "TLSRoute", "v1alpha2 TCPRoute", "v1alpha2 UDPRoute", "v1alpha2 TLSRoute", "v1alpha3 TLSRoute"]:
    spec = {"parentRefs": [parent], "rules": [{"backendRefs": [service]}]}
    if "TLS" in kind: spec["hostnames"] = ["a.b"]
    base = of(kind, spec)
    show(kind, base)
    show(kind, put(base, ["spec", "parentRefs"], [parent, parent]))
    show(kind, put(base, ["spec", "parentRefs"], [parent, {**parent, "port": 1}]))
    show(kind, put(base, R + ["backendRefs"], [portless]))
    if "alpha2" in kind:
        show(kind, put(base, ["spec", "rules"], names))
        show(kind, put(base, ["spec", "rules"], [{**names[0]}, {**names[0], "name": "b"}, {"backendRefs": [service]}]))
    if "TLS" in kind:
        for host_names in [["10.0.0.1"], ["::1"], ["a_b"], ["*.a.b"], ["a.*.b"], ["*"], ["*.A"], ["A.b"], ["a.b", "*.c"], []]:
            show(kind, put(base, ["spec", "hostnames"], host_names))
grpc = of("GRPCRoute", {"parentRefs": [parent], "rules": [{"backendRefs": [service]}]})
show("GRPCRoute", grpc)
for items in [[], [{"matches": [{}] * 64}] * 3, [{"matches": [{}] * 64}, {}, {"matches": [{}] * 64}], names, [{}] * 16]:
    show("GRPCRoute", put(grpc, ["spec", "rules"], items))
for method in [{}, {"type": "Exact"}, {"service": "a.B_1"}, {"type": "Exact", "service": "a.B_1"}, {"type": "Exact", "service": "a-b"}, {"service": "a b"}, {"type": "RegularExpression", "service": "a-b", "method": "-"},
               {"type": "Exact", "method": "Get_1"}, {"type": "Exact", "method": "1x"}, {"method": "x.y"}]:
    show("GRPCRoute", put(grpc, R + ["matches"], [{"method": method}]))
def grpc_both(items):
    show("GRPCRoute", put(grpc, R + ["filters"], items)); show("GRPCRoute", put(grpc, R + ["backendRefs", 0, "filters"], items))
of_grpc = ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"]
for kind in of_grpc:
    grpc_both([filter_of(kind)]); grpc_both([filter_of(kind), filter_of(kind)]); grpc_both([{"type": kind}])
    name, value = filters[kind]
    grpc_both([{**filter_of("ExtensionRef" if kind != "ExtensionRef" else "RequestMirror"), name: value}])
grpc_both([filter_of("RequestMirror", backendRef=noport)])
grpc_both([filter_of("RequestMirror", percent=5, fraction={"numerator": 1, "denominator": 2})])
grpc_both([filter_of("RequestMirror", fraction={"numerator": 3, "denominator": 2})])
for session in [{"type": "Cookie", "cookieConfig": {"lifetimeType": "Permanent"}}, {"type": "Header", "cookieConfig": {"lifetimeType": "Session"}}, {"type": "Header"}]:
    show("GRPCRoute", put(grpc, R + ["sessionPersistence"], session))
show("GRPCRoute", put(grpc, R + ["backendRefs"], [portless]))
show("GRPCRoute", put(grpc, ["spec", "parentRefs"], [parent, parent]))
show("GRPCRoute", put(grpc, ["spec", "parentRefs"], [parent, {**parent, "sectionName": "a"}]))
listeners_of = of("ListenerSet", {"parentRef": parent, "listeners": [listener]})
show("ListenerSet", listeners_of)
for some in [
    [L(tls=tls)], [L(name="s", protocol="HTTPS", port=443, tls={**tls, "mode": "Passthrough"})], [L(protocol="TLS")], [L(protocol="UDP", hostname="a.b")],
    [L(), L(port=81)], [L(), L(name="b")], [L(hostname="a.b"), L(name="b", hostname="a.b")], [L(hostname="a.b"), L(name="b")],
    [L(protocol="HTTPS", tls={"mode": "Terminate", "certificateRefs": []})], [L(protocol="HTTPS", tls={"mode": "Terminate", "certificateRefs": [], "options": {}})], [L(protocol="HTTPS", tls=tls)],
]: show("ListenerSet", put(listeners_of, ["spec", "listeners"], some))
tls_target = {"group": "", "kind": "Service", "name": "s"}
policy = of("BackendTLSPolicy", {"targetRefs": [tls_target], "validation": {"hostname": "a.b", "wellKnownCACertificates": "System"}})
ca = {"group": "", "kind": "ConfigMap", "name": "c"}
for kind in ["BackendTLSPolicy", "v1alpha3 BackendTLSPolicy"]:
    show(kind, policy)
    for targets in [[tls_target, tls_target], [tls_target, {**tls_target, "sectionName": "a"}], [{**tls_target, "sectionName": "a"}, {**tls_target, "sectionName": "a"}], [{**tls_target, "sectionName": "a"}, {**tls_target, "sectionName": "b"}], [tls_target, {**tls_target, "name": "t"}]]:
        show(kind, put(policy, ["spec", "targetRefs"], targets))
    for trust in [{}, {"caCertificateRefs": []}, {"caCertificateRefs": [ca]}, {"caCertificateRefs": [ca], "wellKnownCACertificates": "System"}, {"wellKnownCACertificates": ""}, {"caCertificateRefs": [], "wellKnownCACertificates": "System"}]:
        show(kind, put(policy, ["spec", "validation"], {"hostname": "a.b", **trust}))
    for name in [{"type": "Hostname"}, {"type": "Hostname", "hostname": ""}, {"type": "Hostname", "hostname": "a.b"}, {"type": "Hostname", "hostname": "a.b", "uri": "x://y"}, {"type": "Hostname", "hostname": "a.b", "uri": ""},
                 {"type": "URI"}, {"type": "URI", "uri": ""}, {"type": "URI", "uri": "x://y"}, {"type": "URI", "uri": "x://y", "hostname": "a.b"}]:
        show(kind, put(policy, ["spec", "validation", "subjectAltNames"], [name]))
