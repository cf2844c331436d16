#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What arrives at the library for a command line; defaults, both spellings of arguments, the documented examples.
run=$1 json_lines=$2
. "$(dirname "$0")/lib.sh"

# ---- defaults ----
gives 0 m.onnx --train --data idx:x
has echo 'config batch=32 eval_batch=0 shuffle=1 drop_last=0 epochs=1 max_steps=0 loss=ce smoothing=0'
has echo 'optimizer sgd lr=0.01 momentum=0.9 nesterov=0 wd=0 betas=0.9,0.999 eps=-1 no_decay= clip=0'
has echo 'schedule constant min_lr=0 gamma=0.1 step_epochs=90 warmup=0:1e-05 per_step=0'
has echo 'machine bn=auto,pytorch dropout=-1 threads=0 seed=42 kernels=auto xnnpack=1'
has echo 'tune off nice=0'
lacks echo 'sparsity '
lacks echo 'scheduler '
has err 'will not be kept'

# ---- the example of the issue tracker and the README ----
gives 0 m.onnx --train --data cifar10:DIR --val cifar10-test:FILE --epochs 40 -b 64 --lr 0.1 --momentum 0.9 --weight-decay 1e-4 \
    --sched cosine --sparsity 0.9 --scheme block --method mest-em --mutate-every 5 --forget-epoch 18 --forget-remove 0.24 --seed 1 \
    -t 2 -o out.onnx --output-dir run/
has echo 'sparsity 0.9 block dense_layers=auto rules= from_scratch=0 seed=1'
has echo 'config batch=64 eval_batch=0 shuffle=1 drop_last=0 epochs=40'
has echo 'optimizer sgd lr=0.1 momentum=0.9 nesterov=0 wd=0.0001'
has echo 'schedule cosine'
has echo 'threads=2 seed=1'
has echo 'scheduler mest mode=em,freq=5,lambda=0'
has echo 'scheduler forgetting epoch=18,remove=0.24'
for file in out.onnx run/model.onnx run/checkpoint.mest run/log.jsonl run/summary.json run/lock; do is_file "$file"; done
json run/log.jsonl

# ---- the training rule of the fixtures ----
gives 0 m.onnx --train --data npy:input.npy,label.npy --no-shuffle -b 7 --max-steps 10 --loss ce --opt sgd --lr 0.05 --momentum 0.9 \
    --weight-decay 1e-4 --sched constant --sparsity 0 -o out.onnx
has echo 'config batch=7 eval_batch=0 shuffle=0 drop_last=0 epochs=0 max_steps=10'
lacks echo 'sparsity '
gives 0 m.onnx --train --data npy:float --no-shuffle -b 7 --max-steps 10 --epochs 2 --loss bce --sparsity 0.8 --scheme csr --method static \
    --dense-layers none -o out.onnx
has echo 'sparsity 0.8 csr dense_layers=none'
has echo 'epochs=2 max_steps=10 loss=bce'
lacks echo 'scheduler '

# ---- how it runs ----
gives 0 m.onnx --train --data idx:x --tune fast --nice
has echo 'tune fast nice=1'
says 2 "--tune: 'quick' is none of off|fast|full" m.onnx --train --data idx:x --tune quick

# ---- schemes layer by layer; a scheme that says its sparsity by itself ----
gives 0 m.onnx --train --data idx:x --sparsity 0.9 --scheme 'layer1.*=pattern,fc=block16' --distribution erk --patterns masks.txt
has echo 'sparsity 0.9 layer1.*=pattern,fc=block16 dense_layers=auto'
has echo 'layers distribution=erk ratios= patterns=masks.txt'
gives 0 m.onnx --train --data idx:x --scheme nm2:4
has echo 'sparsity -1 nm2:4'
has echo 'scheduler mest mode=em'
gives 0 m.onnx --train --data idx:x --scheme csr
has echo 'sparsity 0 csr'
has err '--scheme has no effect: without --sparsity, --ratios or --rules no weight is made sparse'
gives 0 m.onnx --train --data idx:x --scheme nm2:4 --sparsity 0 --distribution erk
has echo 'sparsity 0 nm2:4'
has err '--distribution has no effect'
gives 0 m.onnx --train --data idx:x
lacks echo 'sparsity '
lacks err 'no effect'
gives 0 m.onnx --train --data idx:x --scheme csr --ratios r.yaml
has echo 'layers distribution=uniform ratios=r.yaml patterns='
says 2 'uniform|erk|er' m.onnx --train --data idx:x --sparsity 0.9 --distribution some

# ---- statistics of BatchNormalization ----
gives 0 m.onnx --train --data idx:x --bn train --bn-stats onnx --bn-recompute both --bn-recompute-batches 7
has echo 'machine bn=train,onnx'
if [ "$(grep -c '^statistics 7' echo)" = 2 ]; then pass; else fail '--bn-recompute both'; fi
has err '3 BatchNormalization layers were estimated anew before training'
gives 0 m.onnx --train --data idx:x --bn-recompute after
if [ "$(grep -c '^statistics 0' echo)" = 1 ]; then pass; else fail '--bn-recompute after'; fi
gives 0 m.onnx --train --data idx:x
lacks echo 'statistics'
says 3 'no Conv of the model' m.onnx --train --data idx:x --bn unfold
FAKE_FOLDED=1
export FAKE_FOLDED
gives 0 m.onnx --train --data idx:x
has err "folded into 2 Conv nodes at export (the sign, 'onnx::Conv_7'): --bn unfold"
lacks echo 'unfold'
gives 0 m.onnx --train --data idx:x --bn unfold
has echo 'unfold'
has echo 'machine bn=auto'
gives 0 m.onnx --eval --data idx:x --bn unfold
lacks echo 'unfold'
gives 0 m.onnx --info
has out 'was folded into 2 Conv nodes'
unset FAKE_FOLDED

# ---- spellings ----
gives 0 --train --data=idx:x -b64 --lr=1e-1 m.onnx -qvt2
has echo 'config batch=64'
has echo 'lr=0.1'
has echo 'threads=2'
gives 0 --eval --data idx:x -- m.onnx
gives 0 m.onnx --eval --data idx:x --mean 0.5 0.25 0.125 --std 0.5,0.5,0.5 -b 5
has echo 'mean=3:0.5 std=3:0.5'
gives 0 m.onnx --eval --data idx:x --normalise -0.5,0.25,0.125/2,0.5,0.5
has echo 'mean=3:-0.5 std=3:2'
gives 0 m.onnx --eval --data idx:x --mean 0.1 --mean 0.2
has echo 'mean=1:0.2'

# ---- data ----
gives 0 m.onnx --train --data csv:x --input-shape 4 --scale-input 16 --val-split 0.2 --augment pad4,flip --limit 50 --seed 7
has echo 'source csv:x count=40 scale=16 measure=0 mean=0:0 std=0:0 pad=4 flip=0.5 split=0.2 part=0 seed=7 shape=1:4'
has echo 'count=20 scale=16 measure=0 mean=0:0 std=0:0 pad=4 flip=0.5 split=0.2 part=1 seed=7'
gives 0 m.onnx --eval --data csv:x --val-split 0.2
has echo 'split=0.2 part=1'
gives 0 m.onnx --train --data idx:a --val idx:b --measure --limit 30 --val-limit 60 --hflip 0.25 --no-eval-before
has echo 'source idx:a count=30 scale=0 measure=1 mean=0:0 std=0:0 pad=0 flip=0.25'
has echo 'source idx:b count=60 scale=255 measure=0 mean=1:0.125 std=1:0.5'

# ---- network, optimizer, sparsity ----
gives 0 m.onnx --train --data idx:x --opt adamw --opt-betas 0.8,0.95 --opt-eps 1e-6 --clip-grad 2 --smoothing 0.1 --drop 0.2 --bn frozen \
    --no-decay 'fc?.bias' --kernels avx2 --no-xnnpack --no-fuse gelu,silu --recompute 10% --warmup-epochs 3 --warmup-lr 0.001 --min-lr 1e-5 --decay-epochs 30 --decay-rate 0.5 \
    --sched step --sched-on-updates --drop-last --validation-batch-size 100 --nesterov
has echo 'optimizer adamw lr=0.001 momentum=0.9 nesterov=1 wd=0 betas=0.8,0.95 eps=1e-06 no_decay=fc?.bias clip=2'
has echo 'schedule step min_lr=1e-05 gamma=0.5 step_epochs=30 warmup=3:0.001 per_step=1'
has echo 'machine bn=frozen,pytorch dropout=0.2 threads=0 seed=42 kernels=avx2 xnnpack=0 no_fuse=gelu,silu recompute=10%'
has echo 'eval_batch=100 shuffle=1 drop_last=1'
gives 0 m.onnx --train --data idx:x --opt adam --weight-decay 0.1
has echo 'optimizer adam lr=0.001 momentum=0.9 nesterov=0 wd=0.1 betas=0.9,0.999 eps=-1 '
gives 0 m.onnx --train --data idx:x --opt adagrad --opt-lr-decay 0.01
has echo 'optimizer adagrad lr=0.01'
has echo 'lr_decay=0.01'
says 2 'opt-lr-decay is for --opt adagrad' m.onnx --train --data idx:x --opt adam --opt-lr-decay 0.01
gives 0 m.onnx --train --data idx:x --freeze 'fc1.*,fc2.*'
has echo 'freeze fc1.* 1'
has echo 'freeze fc2.* 1'
gives 0 m.onnx --train --data idx:x --train-only 'fc2.*'
has echo 'freeze * 1'
has echo 'freeze fc2.* 0'
# ---- a new head learns, unless it is named in full ----
gives 0 m.onnx --train --data idx:x --new-head 3 --seed 7 --freeze '*'
has echo 'new head 3 of the first, seed 7'
has err "new head: Gemm 'last' has 3 classes instead of 10; 'fc2.weight' and 'fc2.bias' drawn with --seed 7"
[ "$(grep -n freeze echo | tail -3 | sed 's/^[0-9]*://' | tr '\n' '|')" = 'freeze * 1|freeze fc2.weight 0|freeze fc2.bias 0|' ] && pass || fail 'the head is thawed last'
gives 0 m.onnx --train --data idx:x --new-head 3 --freeze 'fc2.weight,fc1*'
has echo 'freeze fc2.bias 0'
lacks echo 'freeze fc2.weight 0'
gives 0 m.onnx --train --data idx:x --new-head 3 --output-name y --train-only 'fc1.weight'
has echo 'new head 3 of y'
has echo 'freeze fc2.bias 0'
says 2 'goes with --train' m.onnx --eval --data idx:x --new-head 3
says 2 'new-head' m.onnx --train --data idx:x --new-head 0
for method in mest:em mest-em:em mest-ems:ems mest-vanilla:vanilla; do
    gives 0 m.onnx --train --data idx:x --sparsity 0.5 --method "${method%:*}" --mutate-every 3 --mest-lambda 0.5
    has echo "scheduler mest mode=${method#*:},freq=3,lambda=0.5"
done
gives 0 m.onnx --train --data idx:x --sparsity 0.5 --method mest-ems:rate=.1/.1/0,freq=7
has echo 'scheduler mest mode=ems,lambda=0,rate=.1/.1/0,freq=7'
gives 0 m.onnx --train --data idx:x --sparsity 0.5 --method rigl
has echo 'scheduler rigl '
has echo 'start_dense=0'
gives 0 m.onnx --train --data idx:x --sparsity 0.5 --method rigl:rate=.2,every=30 --mutate-every 2
has echo 'scheduler rigl rate=.2,every=30'
gives 0 m.onnx --train --data idx:x --sparsity 0.5 --method rigl:rate=.2 --mutate-every 2
has echo 'scheduler rigl every=2,unit=epochs,rate=.2'
gives 0 m.onnx --train --data idx:x --sparsity 0.5 --method snip
has echo 'start_dense=1'
gives 0 m.onnx --train --data idx:x --sparsity 0.5 --method snip:scope=layer --mutate-every 2
has echo 'scheduler snip scope=layer'
has err '--mutate-every has no effect: method snip has no interval (pretends)'
gives 0 m.onnx --train --data idx:x --sparsity 0.5 --start-dense --scheduler own
has echo 'start_dense=1'
gives 2 m.onnx --train --data idx:x --sparsity 0.5 --method forgetting
has err "is none of static, mest-vanilla, mest-em, mest-ems, rigl, snip"
gives 2 m.onnx --train --data idx:x --sparsity 0.5 --method static:rate=1
has err 'static takes no options'
gives 0 m.onnx --train --data idx:x --sparsity 0.5 --rules 'fc1.*=csr:0.8' --from-scratch
has echo 'rules=fc1.*=csr:0.8 from_scratch=1'
gives 0 m.onnx --train --data idx:x --sparsity 0.5 --scheduler mest:mode=ems,freq=2 --scheduler forgetting:epoch=3
has echo 'scheduler mest mode=ems,freq=2'
has echo 'scheduler forgetting epoch=3'
if [ "$(grep -c '^scheduler' echo)" = 2 ]; then pass; else fail '--scheduler replaces the default method'; fi
gives 0 m.onnx --train --data idx:x --forget-epoch 3 --forget-max 1
has echo 'scheduler forgetting epoch=3,max_forgets=1'
finish
