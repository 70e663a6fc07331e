# Packs a table: null members dropped, names of rules in Kubernetes' JSON spelling, equal lines once, then LZ4 behind the length.
import json, struct, sys

def spelled(value):
    if isinstance(value, dict):
        rules = value.get("x-kubernetes-validations")
        if isinstance(rules, list):
            value["x-kubernetes-validations"] = [
                {k[0].lower() + k[1:]: v for k, v in rule.items() if v not in (None, "")} for rule in rules]
        return {k: spelled(v) for k, v in value.items()}
    if isinstance(value, list):
        return [spelled(v) for v in value]
    return value

def block(data):
    out, table, at, start = bytearray(), {}, 0, 0
    def run(literals, match, offset):
        token = min(len(literals), 15) << 4 | (min(match - 4, 15) if match else 0)
        out.append(token)
        def more(n):
            while n >= 255: out.append(255); n -= 255
            out.append(n)
        if len(literals) >= 15: more(len(literals) - 15)
        out.extend(literals)
        if match:
            out.extend(struct.pack("<H", offset))
            if match - 4 >= 15: more(match - 19)
    limit = len(data) - 12
    while at < limit:
        key = data[at:at + 4]
        found = table.get(key); table[key] = at
        if found is not None and at - found < 65536:
            length = 4
            while at + length < len(data) - 5 and data[found + length] == data[at + length]: length += 1
            run(data[start:at], length, at - found)
            at += length; start = at
        else: at += 1
    run(data[start:], 0, 0)
    return bytes(out)

lines = [json.dumps(spelled(json.loads(line)), ensure_ascii=False, separators=(",", ":")) for line in sys.stdin]
text = "\n".join(dict.fromkeys(lines)).encode()
sys.stdout.buffer.write(struct.pack("<I", len(text)) + block(text))
