#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Studies of mest-serve: what answers cost while it trains, and whether they become better.

    serve_study.py load   --mest-serve PROGRAM --model NET.onnx --data DATA [--seconds 120] [--connections 64] [--results FILE.tsv]
    serve_study.py online --mest-serve PROGRAM --model NET.onnx --data DATA [--stream 7000] [--test 3000] [--chunk 1000] [--results FILE.tsv]
    serve_study.py memory --mest-serve PROGRAM --model NET.onnx --data DATA [--seconds 3600] [--results FILE.tsv]

DATA is cifar10:FILE (one binary file; images are normalised as the pretrained ResNets want them) or csv:FILE[.gz] (numbers 0..16 and a label, as
examples/digits/digits.csv.gz). Settings of the model are given as --set NAME=VALUE. Standard library only; `load` runs wrk, or with --client ab that.

load: with that many connections, for that many seconds, first at rest, then while the model trains on samples of DATA; in pairs, --pairs times.
online: the first --stream samples are sent with their labels, a chunk at a time; the service trains on them; after each chunk, and after --settle
rounds more, the version that answers is asked about the last --test samples, which it never gets.
memory: for --seconds it trains and promotes without end; meanwhile samples are added, batches of 1 and 64 answered, versions rolled back (in memory
and from the folder) and promoted by hand, training cancelled and started. Once a minute: resident memory, open files, threads, bytes of the folder.
"""
import argparse
import array
import csv
import datetime
import gzip
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_data(spec):
    """Samples as (float32 values, label), and the shape of one."""
    kind, path = spec.split(":", 1)
    if kind == "cifar10":
        table = [[(v / 255 - MEAN[c]) / STD[c] for v in range(256)] for c in range(3)]
        raw = pathlib.Path(path).read_bytes()
        samples = []
        for at in range(0, len(raw), 3073):
            x = array.array("f")
            for c in range(3):
                row = table[c]
                x.extend(row[v] for v in raw[at + 1 + 1024 * c:at + 1 + 1024 * (c + 1)])
            samples.append((x, raw[at]))
        return samples, [3, 32, 32]
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt") as f:
        return [(array.array("f", (float(v) / 16 for v in row[:-1])), int(float(row[-1]))) for row in csv.reader(f)], [1, 8, 8]


class Service:
    def __init__(self, program, model, settings):
        self.folder = tempfile.TemporaryDirectory()
        root = pathlib.Path(self.folder.name)
        (root / "models/m/1").mkdir(parents=True)
        (root / "models/m/1/model.onnx").write_bytes(pathlib.Path(model).read_bytes())
        (root / "models/m/config.json").write_text(json.dumps(settings))
        self.process = subprocess.Popen([program, str(root / "models"), "--port", "0", "--port-file", str(root / "port"), "--max-body", str(64 << 20),
                                         "--request-time", "600000"])
        while not (root / "port").exists():
            if self.process.poll() is not None:
                raise SystemExit("the service did not start")
            time.sleep(0.05)
        self.port = int((root / "port").read_text())
        meta = self.call("GET", "/v2/models/m")
        self.input, self.output = meta["inputs"][0]["name"], meta["outputs"][0]["name"]

    def call(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)  # a kept one would be closed while ab runs
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {data[:300]}")
        length = answer.getheader("Inference-Header-Content-Length")
        return (json.loads(data[:int(length)]), data[int(length):]) if length else json.loads(data)

    def raw(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("GET", path)
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def act(self, **what):
        return self.call("POST", "/v2/models/m/train", json.dumps(what))

    def body(self, samples, shape, **extra):
        data = b"".join(s[0].tobytes() for s in samples)
        head = json.dumps({"inputs": [{"name": self.input, "datatype": "FP32", "shape": [len(samples)] + shape,
                                       "parameters": {"binary_data_size": len(data)}}], **extra}).encode()
        return head + data, {"Inference-Header-Content-Length": str(len(head))}

    def add(self, samples, shape):
        for i in range(0, len(samples), 200):
            part = samples[i:i + 200]
            self.call("POST", "/v2/models/m/train", *self.body(part, shape, action="add", labels=[s[1] for s in part]))

    def test(self, samples, shape, batch=32):
        """Accuracy, and the versions that answered."""
        right, versions = 0, set()
        for i in range(0, len(samples), batch):
            part = samples[i:i + batch]
            head, data = self.call("POST", "/v2/models/m/infer", *self.body(part, shape, parameters={"binary_data_output": True}))
            y = array.array("f", data)
            classes = len(y) // len(part)
            versions.add(int(head["model_version"]))
            for k, s in enumerate(part):
                row = y[k * classes:(k + 1) * classes]
                right += max(range(classes), key=row.__getitem__) == s[1]
        return right / len(samples), versions

    def memory(self):
        return int(re.search(r"VmRSS:\s*(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text()).group(1)) / 1024

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait() != 0:
            raise SystemExit(f"exit code {self.process.returncode}")


def note(path, row):
    print("\t".join(str(v) for v in row.values()), flush=True)
    if path:
        new = not os.path.exists(path)
        with open(path, "a") as f:
            f.write(("\t".join(row) + "\n" if new else "") + "\t".join(str(v) for v in row.values()) + "\n")


def ab(service, body_file, seconds, connections, header):
    out = subprocess.run(["ab", "-q", "-k", "-l", "-c", str(connections), "-t", str(seconds), "-n", "100000000", "-p", body_file, "-T", "application/octet-stream",
                          "-H", f"Inference-Header-Content-Length: {header}", f"http://127.0.0.1:{service.port}/v2/models/m/infer"],
                         capture_output=True, text=True, check=True).stdout

    def number(pattern):
        found = re.search(pattern, out)
        return float(found.group(1)) if found else 0
    return {"requests": int(number(r"Complete requests:\s+(\d+)")), "failed": int(number(r"Failed requests:\s+(\d+)")),
            "non_2xx": int(number(r"Non-2xx responses:\s+(\d+)")), "per_second": number(r"Requests per second:\s+([\d.]+)"),
            "p50_ms": number(r"\n\s+50%\s+(\d+)"), "p99_ms": number(r"\n\s+99%\s+(\d+)"), "max_ms": number(r"\n\s+100%\s+(\d+)")}


def wrk(service, body_file, seconds, connections, header):
    script = body_file + ".lua"
    pathlib.Path(script).write_text(f"""wrk.method = "POST"
wrk.body = io.open("{body_file}", "rb"):read("*a")
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.headers["Inference-Header-Content-Length"] = "{header}"
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("result %d %d %d %f %f %f %f\\n", summary.requests, e.connect + e.read + e.write + e.timeout, e.status,
        summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
""")
    out = subprocess.run(["wrk", "-t", "2", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "30s", "-s", script,
                          f"http://127.0.0.1:{service.port}/v2/models/m/infer"], capture_output=True, text=True, check=True).stdout
    result = re.search(r"^result (.*)$", out, re.M).group(1).split()
    names = ["requests", "failed", "non_2xx", "per_second", "p50_ms", "p99_ms", "max_ms"]
    return {n: round(float(v), 1) if "." in v else int(v) for n, v in zip(names, result)}


def study_load(o, samples, shape, settings):
    service = Service(o.mest_serve, o.model, settings)
    body, headers = service.body(samples[:1], shape, parameters={"binary_data_output": True})
    body_file = os.path.join(service.folder.name, "body")
    pathlib.Path(body_file).write_bytes(body)
    header = headers["Inference-Header-Content-Length"]
    service.add(samples[:o.stream], shape)
    client = {"ab": ab, "wrk": wrk}[o.client]
    client(service, body_file, 3, o.connections, header)
    for pair in range(1, o.pairs + 1):
        for state in ("rest", "training"):
            if state == "training":
                service.act(action="start")
            before = service.call("GET", "/v2/models/m/train")
            row = client(service, body_file, o.seconds, o.connections, header)
            after = service.call("GET", "/v2/models/m/train")
            if state == "training":
                service.act(action="cancel")
                while service.call("GET", "/v2/models/m/train")["state"] != "idle":
                    time.sleep(0.1)
            note(o.results, {"model": pathlib.Path(o.model).stem, "pair": pair, "state": state, "connections": o.connections, "seconds": o.seconds, **row,
                             "steps": after["steps"] - before["steps"], "rounds": after["rounds"] - before["rounds"], "version": after["version"],
                             "rss_mb": round(service.memory(), 1), "load1": round(os.getloadavg()[0], 1), "client": o.client, "date": datetime.date.today().isoformat()})
    service.end()


def study_online(o, samples, shape, settings):
    service = Service(o.mest_serve, o.model, settings)
    test = samples[-o.test:]
    sent = 0

    def look():
        accuracy, versions = service.test(test, shape)
        state = service.call("GET", "/v2/models/m/train")
        note(o.results, {"model": pathlib.Path(o.model).stem, "sent": sent, "rounds": state["rounds"], "steps": state["steps"], "version": max(versions),
                         "accuracy": round(100 * accuracy, 2), "n": len(test), "rss_mb": round(service.memory(), 1), "date": datetime.date.today().isoformat()})

    def rounds(n):
        goal = service.call("GET", "/v2/models/m/train")["rounds"] + n
        while True:
            state = service.call("GET", "/v2/models/m/train")
            if state["rounds"] >= goal:
                return
            if not state["wanted"]:
                raise SystemExit(f"training ended: {state['note']}")
            time.sleep(0.2)
    look()
    while sent < o.stream:
        service.add(samples[sent:sent + o.chunk], shape)
        sent += o.chunk
        service.act(action="start")
        rounds(o.rounds)
        look()
    for _ in range(o.settle):
        rounds(o.rounds)
        look()
    service.end()


def study_memory(o, samples, shape, settings):
    service = Service(o.mest_serve, o.model, settings)
    service.add(samples[:o.stream], shape)
    service.act(action="start")
    begin, minute, turn, answers, promoted = time.monotonic(), 0, 0, 0, 0

    def look():
        proc = pathlib.Path(f"/proc/{service.process.pid}")
        state = service.call("GET", "/v2/models/m/train")
        sizes = []
        for folder, _, names in os.walk(os.path.join(service.folder.name, "models")):
            for name in names:
                try:
                    sizes.append(os.stat(os.path.join(folder, name)).st_size)
                except FileNotFoundError:  # a version that was removed just now
                    pass
        metrics = service.raw("/metrics")
        published = int(float(re.search(r'mest_versions_published_total\{model="m"\} (\S+)', metrics).group(1)))
        note(o.results, {"model": pathlib.Path(o.model).stem, "minute": minute, "rss_kib": round(service.memory() * 1024), "fds": len(list((proc / "fd").iterdir())),
                         "threads": len(list((proc / "task").iterdir())), "folder_kib": sum(sizes) // 1024, "files": len(sizes),
                         "rounds": state["rounds"], "steps": state["steps"], "published": published, "answers": answers, "switched": promoted,
                         "load1": round(os.getloadavg()[0], 1)})
    while True:
        now = time.monotonic() - begin
        if now >= 60 * minute:
            look()
            minute += 1
        if now >= o.seconds:
            break
        turn += 1
        at = turn * 64 % (len(samples) - 64)
        service.test(samples[at:at + 64], shape, 64)
        service.test(samples[at:at + 1], shape, 1)
        answers += 65
        if turn % 4 == 0:
            service.add(samples[at:at + 64], shape)
        if turn % 8 == 0:
            service.act(action="rollback", version=1)
            promoted += 1
        if turn % 8 == 4:
            held = [int(v["version"]) for v in service.call("GET", "/v2/models/m/versions")["versions"]]
            service.act(action="promote", version=max(held))
            promoted += 1
        if turn % 64 == 0:
            service.act(action="cancel")
            service.act(action="start")
        time.sleep(0.25)
    service.end()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("study", choices=["load", "online", "memory"])
    p.add_argument("--mest-serve", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of config.json")
    p.add_argument("--seconds", type=int, default=120)
    p.add_argument("--connections", type=int, default=64)
    p.add_argument("--client", choices=["wrk", "ab"], default="wrk")
    p.add_argument("--pairs", type=int, default=1)
    p.add_argument("--stream", type=int, default=1000, help="samples that are sent")
    p.add_argument("--test", type=int, default=300)
    p.add_argument("--chunk", type=int, default=200)
    p.add_argument("--rounds", type=int, default=2, help="rounds of training after each chunk")
    p.add_argument("--settle", type=int, default=2)
    p.add_argument("--results", help="a table that rows are added to")
    o = p.parse_args()
    settings = {}
    for text in o.set:
        name, value = text.split("=", 1)
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    samples, shape = read_data(o.data)
    {"load": study_load, "online": study_online, "memory": study_memory}[o.study](o, samples, shape, settings)


if __name__ == "__main__":
    main()
