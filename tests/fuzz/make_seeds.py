#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""First inputs of the fuzz targets (the form of each is in the head of fuzz_NAME.c).

    tests/fuzz/make_seeds.py OUT [FOLDER_OF_ONNX_FILES ...]

Standard library only. OUT/NAME/... gets small, valid inputs from which fuzzing begins; what is kept is in tests/fuzz/corpus."""
import os
import struct
import subprocess
import sys
import zlib

here = os.path.dirname(os.path.abspath(__file__))
tests = os.path.dirname(here)
out = sys.argv[1]
folders = [os.path.join(tests, "data", d) for d in ("import", "passes", "check")] + sys.argv[2:]


def put(target, name, data):
    os.makedirs(os.path.join(out, target), exist_ok=True)
    with open(os.path.join(out, target, name), "wb") as f:
        f.write(data)


# ---- models ----
for folder in folders:
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(".onnx") and os.path.getsize(path) < 20000:
            put("onnx", os.path.basename(folder) + "_" + name, open(path, "rb").read())

for base, _, names in os.walk(os.path.join(tests, "backend", "own")):
    for name in names:
        path = os.path.join(base, name)
        if name == "model.onnx" and os.path.getsize(path) < 20000:
            put("onnx", "own_" + os.path.basename(base) + ".onnx", open(path, "rb").read())

# ---- external data ----
model = open(os.path.join(tests, "data", "import", "external.onnx"), "rb").read()
data = open(os.path.join(tests, "data", "import", "external.bin"), "rb").read()


def external(name, m, d=data):
    put("external", name, struct.pack("<H", len(m)) + m + d)


external("valid", model)
external("short", model, data[:-1])
external("empty", model, b"")
# names of the same length keep the message's lengths right: "external.bin" has 12 bytes
for name, text in [("parent", b"../model.bin"), ("absolute", b"/etc/passwd\0"[:11] + b"x"), ("dot", b"./external.b"), ("slash", b"external.bi/"),
                   ("folder", b"folder/../in"), ("inner", b"folder/inner"), ("fifo", b"./././././pi"), ("long", b"////////////")]:
    external(name, model.replace(b"external.bin", text))

# ---- checkpoints ----
put("checkpoint", "garbage", b"\0MESTCKPT\1\0\0\0")
for which in range(1, 5):
    put("checkpoint", f"run{which}", bytes([which]))
    for section in range(0, 12, 2):
        put("checkpoint", f"bit{which}_{section}", bytes([which, section, 3 + 4 * 2, 5 + which, 0]))
        put("checkpoint", f"cut{which}_{section}", bytes([which, section, 1, 8, 0]))
        put("checkpoint", f"set{which}_{section}", bytes([which, section, 0, 0, 0, 8]) + struct.pack("<q", 2 ** 62))
        put("checkpoint", f"more{which}_{section}", bytes([which, section, 2, 16, 0, 4]) + b"\xff" * 4)


# ---- data files: kind, options, [length of the first,] bytes ----
def png(w, h, colour=2):
    raw = b"".join(b"\0" + bytes((x * 7 + y) % 256 for x in range(w * (3 if colour == 2 else 1))) for y in range(h))

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, colour, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(raw))
            + chunk(b"IEND", b""))


def npy(descr, shape, body, version=1, order="False"):
    text = ("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }" % (descr, order, shape)).encode()
    size = 2 if version == 1 else 4
    total = (8 + size + len(text) + 1 + 63) // 64 * 64
    text = text.ljust(total - 8 - size - 1) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(size, "little") + text + body


def idx(kind, dims, body):
    return bytes([0, 0, kind, len(dims)]) + b"".join(struct.pack(">I", d) for d in dims) + body


def two(first, second):
    return struct.pack("<H", len(first)) + first + second


images = idx(8, [4, 3, 5], bytes(range(60)))
labels = idx(8, [4], b"\1\0\2\1")
floats = struct.pack("<8f", *range(8))
gzip = subprocess.run(["gzip", "-nc"], input=images, stdout=subprocess.PIPE, check=True).stdout
for options in (0, 1 | 2 | 4, 8 | 128, 16, 16 | 32, 64 | 1):
    for kind, name, body in [
            (0, "idx", images), (0, "idx_gz", gzip), (1, "idx2", two(images, labels)), (2, "cifar", (b"\1" + bytes(3072)) * 2),
            (3, "npy", npy("<f4", "(2, 4)", floats)), (3, "npy_u1", npy("|u1", "(4, 1, 2, 3)", bytes(24), 2)),
            (3, "npy_f8", npy(">f8", "(2, 2)", bytes(32))), (3, "npy_f2", npy("<f2", "(2, 3)", bytes(12), 3)),
            (4, "npy2", two(npy("<f4", "(4, 2)", floats), npy("<i8", "(4,)", struct.pack("<4q", 0, 2, 1, 1)))),
            (5, "npys", two(npy("<i4", "(4, 2)", floats), npy("<f4", "(4, 2)", floats))),
            (6, "csv", b"1,2.5,0\n-3,4e2,1\n"), (6, "csv_header", b"a,b,class\r\n1,2,0\r\n3,4,1\r\n"), (6, "csv_quoted", b'"1","2",0\n'),
            (7, "jpeg", None), (8, "png", png(6, 4)), (8, "png_grey", png(5, 5, 0))]:
        if body is None:
            # a baseline JPEG of 8x8 grey, written by hand: quantisation of ones, the standard tables of DC and AC, an empty block
            dc = bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]) + bytes(range(12))
            ac = bytes([0, 2] + [0] * 14) + b"\0\1"

            def segment(marker, b):
                return b"\xff" + bytes([marker]) + struct.pack(">H", len(b) + 2) + b
            body = (b"\xff\xd8" + segment(0xdb, b"\0" + b"\1" * 64) + segment(0xc0, struct.pack(">BHHBBBB", 8, 8, 8, 1, 1, 0x11, 0))
                    + segment(0xc4, b"\0" + dc) + segment(0xc4, b"\x10" + ac) + segment(0xda, b"\1\1\0\0\x3f\0") + b"\x1f" + b"\xff\xd9")
        put("data", f"{name}_{options}", bytes([kind, options]) + body)
for form in range(1, 6):
    put("data", f"csv_form{form}", bytes([6 + 9 * form, 0]) + b"1,2,0\n2,3,1\n")

# ---- texts ----
for i, text in enumerate(["csr\n\n\n", "block4\nnone\n*=csr:0.9\n", "c1*=pattern,fc=block8:0.7,csr\nauto\n\nerk", "nm2:4x4\nfc.weight\n\ner",
                          "punched8x4\nnone\nc2.weight=dense:0;fc=csr:.5\n", "pattern\nnone\n", "nm1:4\n\n\n\nxx", "block64\nc?.*,fc*\n"]):
    put("text", f"scheme{i}", b"\0" + text.encode())
put("text", "ratios0", b"\1prune_ratios:\n  c1.weight:\n    0.9\n  fc.weight: 0.5\n")
put("text", "ratios1", b"\1other: [1, 2, {a: b}]\nprune_ratios: {module.c2.weight: .75}\nlast: &x |\n  text\n")
put("text", "masks0", b"\2" + b"0x1b0 0x1a8 # two\n")
put("text", "masks1", b"\2xx. x.. .x.\n.xx ..x .x.\n")
schedulers = ["mode=em,freq=2,lambda=0.5", "epoch=3,count=20", "every=10", "every=2,rate=.2", "every=3,threshold=.02", "mode=oneshot,scope=global",
              "batches=3", ""]
for i in range(8):
    for j, text in enumerate(schedulers):
        put("text", f"scheduler{i}_{j}", bytes([3, i]) + text.encode())
for i, text in enumerate(["ce\nsgd\nconstant\nauto\nauto\n\n\n\nauto", "mse\nadamw\ncosine\ntrain\nscalar\n*.bias,fc*\nall\ny\n10%",
                          "bce\nsgd\nstep\nfrozen\navx2\n\nrelu\nnone\nleast", "\n\n\n\n\n\n\n\noff"]):
    put("text", f"recipe{i}", b"\4" + text.encode())
for i, text in enumerate(["csv:c", "csv:c?label=first,header=no", "npy:n", "npy:n,n", "npy:a=n,b=n,target=n", "images:d", "idx:n,n", "cifar10:c",
                          "idx-test:d", "csv:c?target=float", "npy:n,n,-"]):
    put("text", f"source{i}", b"\5" + text.encode())

# ---- command lines ----
for i, text in enumerate(["--help", "--help=data", "--help-all", "m.onnx --train --data csv:d --epochs 3 -b 64 --lr 0.1",
                          "--train m.onnx --mean 0.1 0.2 0.3 --std 1,1,1 --sparsity .9 --scheme block4 -o out.onnx --resume",
                          "m.onnx --eval --data idx:d -t2 -q --json", "-V", "m.onnx --info --verbos", "m --train --scheduler a:b=c --scheduler d",
                          "m.onnx --explain --program infer --no-fuse all --img-size 8,8", "-- m.onnx", "m --train --epochs=1e9 --seed=-1"]):
    put("options", f"line{i}", "\n".join(text.split(" ")).encode())

# ---- bodies of mest-serve: which, length of the JSON part ----
x = '{"name":"x","datatype":"FP32","shape":[%d,2,3],%s}'
ids = '{"name":"id","datatype":"INT64","shape":[%d,2],%s}'
flag = '{"name":"flag","datatype":"BOOL","shape":[%d],%s}'


def inputs(n, more=""):
    return '{"inputs":[%s,%s,%s]%s}' % (x % (n, '"data":%s' % [[i, .5, -1e-3, 4, 5, 6] for i in range(n)]), ids % (n, '"data":%s' % ([1, -2] * n)),
                                        flag % (n, '"data":[%s]' % ",".join(["true", "false"][i % 2] for i in range(n))), more)


def body(kind, text, tail=b""):
    return bytes([kind]) + struct.pack("<H", len(text) if tail else 0) + text.encode() + tail


binary = '{"inputs":[%s,%s,%s],"parameters":{"binary_data_output":true}}' % (
    x % (1, '"parameters":{"binary_data_size":24}'), ids % (1, '"parameters":{"binary_data_size":16}'), flag % (1, '"data":[1]'))
for i, b in enumerate([body(0, inputs(1)), body(0, inputs(8, ',"id":"a","parameters":{"timeout":5}')), body(0, inputs(2, ',"outputs":[{"name":"z","parameters":{"binary_data":true}}]')),
                       body(0, binary, floats[:24] + struct.pack("<2q", 1, 2)), body(0, binary, struct.pack("<6f2q", float("nan"), 1, 2, 3, 4, 5, 1, 2)), body(0, inputs(9)),
                       body(0, '{"inputs":[]}'), body(0, "[" * 40), body(0, "")]):
    put("serve_body", f"infer{i}", b)
for i, b in enumerate([body(1, inputs(2, ',"action":"add","labels":[0,3]')), body(1, inputs(1, ',"action":"add","labels":[4]')), body(2, inputs(1, ',"action":"add","targets":[1,2,3,-4.5]')),
                       body(1, '{"action":"start","settings":{"lr":0.1,"duty":0.5,"auto_promote":false}}'), body(1, '{"action":"promote","version":"3"}'),
                       body(1, '{"action":"rollback"}'), body(1, '{"action":"cancel"}'), body(1, '{"action":"status"}'), body(2, inputs(1, ',"action":"add","targets":[1e39]'))]):
    put("serve_body", f"train{i}", b)
for i, b in enumerate([body(5, inputs(1, ',"action":"add","labels":[[0,3,1]]')), body(5, inputs(2, ',"action":"add","labels":[0,3,1,2,2,4]'))]):
    put("serve_body", f"points{i}", b)
for i, text in enumerate(['{"lr":0.1,"max_batch":8,"scheme":"block4","sparsity":0.9,"replay_keep":"sample"}', '{"duty":0}', '{"none":1}', '{"auto_promote":1}']):
    put("serve_body", f"settings{i}", body(3, text))

# ---- its store of samples: pieces of place, length, bytes ----
def piece(at, b=b""):
    return struct.pack("<HB", at, len(b)) + b


for i, b in enumerate([b"\0", b"\0MESTREPL", b"\0" + bytes(5000), b"\1", b"\5", b"\3" + piece(24, struct.pack("<Q", 1 << 50)), b"\3" + piece(24, struct.pack("<Q", 9)),
                       b"\1" + piece(4096 + 20, b"\xff"), b"\1" + piece(4096 + 8, struct.pack("<Q", 99)), b"\1" + piece(4096 + 60), b"\1" + piece(100), b"\3" + piece(16, struct.pack("<Q", 0)),
                       b"\3" + piece(8, b"\2"), b"\3" + piece(48, b"\1"), b"\3" + piece(24, struct.pack("<Q", 20000)), b"\7" + piece(4096, bytes(48))]):
    put("serve_replay", f"store{i}", b)
