"""What a receiver of OpenTelemetry gets of the vote app on two nodes, read with OpenTelemetry's own Python messages.

Promises: spans of a trace are one tree, with no span whose parent nobody sent; below what comes in by the bot's call stand the calls that the
page makes; both ends of a call are there, and some calls go from node to node; metrics say the same of the same edges; no credential is in any
of it. Usage: otlp.py PORT_FILE; it writes its port there, and ends once it has seen all of that, or after two minutes.
"""

import collections
import gzip
import http.server
import pathlib
import sys
import threading
import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SERVER, CLIENT = 2, 3
spans, metrics, logs = {}, collections.Counter(), 0
lock = threading.Lock()


def attributes(pairs):
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in pairs}


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global logs
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/x-protobuf", self.headers
        assert self.headers["x-key"] == "s3cret", self.headers
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        assert b"s3cret" not in body
        with lock:
            if self.path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    of = attributes(resource.resource.attributes)
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            assert len(span.trace_id) == 16 and len(span.span_id) == 8
                            assert span.end_time_unix_nano >= span.start_time_unix_nano > 0
                            spans[(span.trace_id, span.span_id)] = (of, span, attributes(span.attributes))
            elif self.path == "/v1/metrics":
                for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    for scope in resource.scope_metrics:
                        for metric in scope.metrics:
                            points = metric.histogram.data_points or metric.sum.data_points
                            metrics[metric.name] += len(points)
                            for point in metric.histogram.data_points:
                                assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
                                assert sum(point.bucket_counts) == point.count
            elif self.path == "/v1/logs":
                for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                    logs += sum(len(scope.log_records) for scope in resource.scope_logs)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def whole():
    """A trace in which the bot's call is answered by the page, which calls another; or why there is none."""
    traces = collections.defaultdict(dict)
    for (trace, span_id), entry in spans.items():
        traces[trace][span_id] = entry
    orphans, best, between_nodes = 0, 0, 0
    for trace in traces.values():
        missing = [s for _, s, _ in trace.values() if s.parent_span_id and s.parent_span_id not in trace]
        # What is under way is told later.
        if missing:
            orphans += 1
            continue
        depth = 0
        for of, span, said in trace.values():
            length, at = 1, span
            while at.parent_span_id:
                at = trace[at.parent_span_id][1]
                length += 1
            depth = max(depth, length)
            if span.kind == SERVER:
                parent = trace[span.parent_span_id]
                assert parent[1].kind == CLIENT
                assert of["service.name"] == said["weft.destination.workload"]
                between_nodes += said["weft.connection_security_policy"] == "mutual_tls"
        best = max(best, depth)
    if best < 4:
        return f"the deepest of {len(traces)} traces has {best} spans, {orphans} are not whole"
    if not between_nodes:
        return "no call went from node to node"
    if not metrics["istio_requests"] or not metrics["istio_request_duration_milliseconds"]:
        return f"metrics: {metrics}"
    if not logs:
        return "no records"
    return None


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
place = pathlib.Path(sys.argv[1])
place.with_suffix(".new").write_text(str(server.server_address[1]))
place.with_suffix(".new").rename(place)
until = time.monotonic() + 120
while True:
    with lock:
        why = whole()
    if why is None:
        break
    if time.monotonic() > until:
        sys.exit(why)
    time.sleep(0.5)
print("traces are whole")
