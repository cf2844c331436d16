/* SPDX-License-Identifier: Apache-2.0 */
/* The options of mest-run. Names are timm's where timm has the option. docs/cli.md is checked against this table. */
#include <float.h>

#include "options.h"

#define AT(field) offsetof(settings, field)
#define BIG 9007199254740992.0 /* 2^53: whole numbers that a double holds exactly */

#define GROUP(name, title) {.argument = name, .help = title}
#define MODE(name, which, text) {name, 0, true, OPT_MODE, NULL, NULL, AT(mode), 0, 0, which, text}
#define FLAG(name, letter, common, field, text) {name, letter, common, OPT_FLAG, NULL, NULL, AT(field), 0, 0, 0, text}
#define TEXT(name, letter, common, arg, preset, field, text) {name, letter, common, OPT_TEXT, arg, preset, AT(field), 0, 0, 0, text}
#define CHOICE(name, common, words, preset, field, text) {name, 0, common, OPT_CHOICE, words, preset, AT(field), 0, 0, 0, text}
#define INT(name, letter, common, arg, preset, field, lo, hi, text) \
    {name, letter, common, OPT_INT, arg, preset, AT(field), lo, hi, 0, text}
#define REAL(name, common, arg, preset, field, lo, hi, text) {name, 0, common, OPT_REAL, arg, preset, AT(field), lo, hi, 0, text}
#define REALS(name, arg, preset, field, lo, hi, text) {name, 0, false, OPT_REALS, arg, preset, AT(field), lo, hi, 0, text}
#define INTS(name, arg, field, text) {name, 0, false, OPT_INTS, arg, NULL, AT(field), 1, BIG, 0, text}

const char *const option_examples[] = {
    "# fine-tune at 90 % sparsity, moving the pattern as it learns (MEST with elastic mutation)\n"
    "mest-run resnet20.onnx --train --data cifar10:DIR --val cifar10-test:DIR --measure --augment pad4,flip \\\n"
    "    --epochs 40 -b 64 --lr 0.1 --sched cosine --sparsity 0.9 --scheme block --method mest-em -o sparse.onnx --output-dir run",
    "# accuracy of a model, dense or sparse\n"
    "mest-run sparse.onnx --eval --data cifar10-test:DIR --mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616",
    "# what is in the file, what would train, and why\n"
    "mest-run resnet20.onnx --info",
    NULL,
};

const option option_table[] = {
    GROUP("modes", "Modes (one of them)"),
    MODE("train", MODE_TRAIN, "train the model on --data and write it to -o"),
    MODE("eval", MODE_EVAL, "loss and accuracy on --data"),
    MODE("infer", MODE_INFER, "run the inputs of --data; outputs go to -o (output.npy)"),
    MODE("info", MODE_INFO, "nodes before and after folding and fusion, inputs, outputs, parameters and their roles"),
    MODE("check", MODE_CHECK, "does it train? a verdict for each node, what to change, memory and work of a step"),
    MODE("gradcheck", MODE_GRADCHECK, "compare its gradients with differences of the loss, node by node, on --data or made-up samples"),
    MODE("report", MODE_REPORT, "--report DIR: the folder of a run (--output-dir) as one HTML page, DIR/report.html or -o"),
    {"bench", 0, true, OPT_MODE_OF, "infer|train", NULL, AT(bench), 0, 0, MODE_BENCH,
     "time and memory of inference or of a training step, on made-up samples or --data; a table of operators"},
    {"explain", 0, true, OPT_MODE, "[memory]", NULL, AT(mode), 0, 0, MODE_EXPLAIN,
     "for each node the kernel chosen and why, operations, bytes; the memory plan"},

    GROUP("sweep", "Sweeps"),
    TEXT("sweep", 0, false, "FILE", NULL, sweep, "train every combination of options that a YAML file lists, each in a folder of --output-dir; a table with means and spreads"),
    INT("jobs", 0, false, "N", "1", jobs, 1, 256, "--sweep: runs at a time"),
    FLAG("dry-run", 0, false, dry_run, "--sweep: print the commands and what is done already, run nothing"),

    GROUP("data", "Data"),
    TEXT("data", 0, true, "KIND:PATH", NULL, data,
         "samples to train on, evaluate or run:\n"
         "idx:DIR, idx:IMAGES,LABELS, cifar10:DIR, images:DIR, csv:FILE[?label=none&..],\n"
         "npy:INPUT[,TARGET]; several inputs: npy:A,B,TARGET or npy:NAME=A,NAME=B,target=T\n"
         "(idx-test: and cifar10-test: pick the test files of a folder)"),
    TEXT("val", 0, true, "KIND:PATH", NULL, val, "samples held out, for accuracy before, during and after training"),
    REAL("val-split", true, "FRACTION", "0", val_split, 0, 0.99,
         "hold out this part of --data instead; --eval and --infer then use only that part"),
    INT("limit", 0, false, "N", "0", limit, 0, BIG, "only the first N samples to train on (--eval, --infer: of --data); 0: all"),
    INT("val-limit", 0, false, "N", "0", val_limit, 0, BIG, "only the first N samples held out, by --val or --val-split; 0: all"),
    REALS("mean", "M[,M..]", NULL, mean, -DBL_MAX, DBL_MAX, "subtracted from each channel after scaling"),
    REALS("std", "S[,S..]", NULL, std, DBL_MIN, DBL_MAX, "each channel is then divided by this"),
    TEXT("normalise", 0, false, "MEAN/STD", NULL, normalise, "--mean and --std in one: 0.49,0.48,0.45/0.25,0.24,0.26"),
    FLAG("measure", 0, true, measure, "measure mean and std over --data; --val gets the same numbers"),
    REAL("scale-input", false, "S", "0", scale_input, 0, DBL_MAX, "inputs are divided by S first; 0: by 255 for 8-bit images"),
    TEXT("augment", 0, true, "LIST", NULL, augment, "training only: padN (pad by N, crop back), flip (left-right half the time)"),
    REAL("hflip", false, "P", "0", hflip, 0, 1, "training only: probability of a left-right flip"),
    INTS("img-size", "N|H,W", img_size, "images are resized to this; otherwise to the model's input"),
    INTS("input-shape", "D[,D..]", input_shape, "csv: shape of one sample, as 1,8,8; otherwise the model's"),
    INT("max-bad", 0, false, "N", "0", max_bad, 0, BIG, "image folders: so many unreadable files are skipped before giving up"),
    FLAG("no-shuffle", 0, false, no_shuffle, "keep the order of the samples"),
    FLAG("drop-last", 0, false, drop_last, "leave out the last batch of an epoch if it is smaller"),

    GROUP("training", "Training"),
    INT("epochs", 0, true, "N", "1", epochs, 0, BIG, "passes over the data"),
    INT("max-steps", 0, false, "N", "0", max_steps, 0, BIG, "stop after N steps, over as many epochs as that takes; 0: no limit"),
    INT("batch-size", 'b', true, "N", "32", batch, 1, 1048576, "samples a step"),
    INT("validation-batch-size", 0, false, "N", "0", eval_batch, 0, 1048576, "samples a step of an evaluation; 0: as --batch-size"),
    CHOICE("loss", true, "ce|mse|bce", "ce", loss,
           "softmax cross-entropy, mean squared error, or binary cross-entropy with logits"),
    INT("ignore-index", 0, false, "N", "-100", ignore_index, -BIG, BIG, "--loss ce: targets of N do not count: padding, pixels of no class"),
    REAL("smoothing", false, "P", "0", smoothing, 0, 0.999, "label smoothing, for --loss ce"),
    REAL("drop", false, "P", "(as in the file)", drop, 0, 0.999, "ratio of every Dropout node"),
    CHOICE("bn", false, "train|frozen|auto|unfold", "auto", bn, "BatchNormalization: batch statistics, those of the file, or (auto) those of the file\nwhere scale and bias are frozen; unfold: put back what was folded into Conv at export"),
    CHOICE("bn-stats", false, "pytorch|onnx", "pytorch", bn_stats, "running variance from the unbiased variance of a batch, or the biased one as ONNX's text says"),
    CHOICE("bn-recompute", false, "no|before|after|both", "no", bn_recompute, "estimate the running statistics anew over --data, before or after training"),
    INT("bn-recompute-batches", 0, false, "N", "0", bn_recompute_batches, 0, BIG, "--bn-recompute: over so many batches; 0: all of an epoch"),
    TEXT("output-name", 0, false, "NAME", "(the first)", output_name, "the model's output that the loss is put on, and that --infer writes"),
    INT("new-head", 0, false, "CLASSES", NULL, new_head, 1, 1 << 24, "replace the last layer by a fresh one with so many classes; it trains whatever is frozen,\nunless --freeze names it in full"),
    TEXT("freeze", 0, false, "PATTERNS", NULL, freeze, "parameters that are not trained: names with * and ?, separated by commas"),
    TEXT("train-only", 0, false, "PATTERNS", NULL, train_only, "train these parameters and no others"),
    TEXT("trainable", 0, false, "PATTERNS", NULL, trainable, "what is a parameter although the file does not show it: outputs of Constant nodes, buffers,\nwhat looks like a mask; combine it with --freeze or --train-only"),
    INT("seed", 0, true, "N", "42", seed, 0, BIG, "of order, augmentation, patterns: same seed, same bits, any number of threads"),
    INT("val-interval", 0, false, "N", "1", val_interval, 1, BIG, "epochs between evaluations on --val"),
    FLAG("no-eval-before", 0, false, no_eval_before, "do not measure accuracy before training"),

    GROUP("optimizer", "Optimizer and learning rate"),
    CHOICE("opt", true, "sgd|adamw|adam|adagrad", "sgd", opt, "update rule, by PyTorch's formulas"),
    REAL("lr", true, "LR", "(0.01; 0.001 for adamw and adam)", lr, 0, DBL_MAX, "learning rate"),
    REAL("momentum", true, "M", "0.9", momentum, 0, 0.99999999, "of sgd"),
    FLAG("nesterov", 0, false, nesterov, "Nesterov's form of the momentum"),
    REAL("weight-decay", true, "WD", "0", weight_decay, 0, DBL_MAX, "of every parameter; decoupled with adamw"),
    TEXT("no-decay", 0, false, "PATTERNS", NULL, no_decay, "parameters without weight decay"),
    REALS("opt-betas", "B1,B2", "0.9,0.999", opt_betas, 0, 0.99999999, "of adamw and adam"),
    REAL("opt-eps", false, "EPS", "(1e-8; 1e-10 for adagrad)", opt_eps, 0, DBL_MAX, "of adamw, adam and adagrad"),
    REAL("opt-lr-decay", false, "D", "0", opt_lr_decay, 0, DBL_MAX, "of adagrad: step t, from 0, has the rate lr / (1 + t * D)"),
    REAL("clip-grad", false, "NORM", "0", clip_grad, 0, DBL_MAX, "limit of the gradient's L2 norm; 0: none"),
    CHOICE("sched", true, "constant|step|cosine", "constant", sched, "learning rate over the epochs"),
    INT("warmup-epochs", 0, false, "N", "0", warmup_epochs, 0, BIG, "epochs in which the rate rises from --warmup-lr"),
    REAL("warmup-lr", false, "LR", "1e-5", warmup_lr, 0, DBL_MAX, "where the warm-up begins"),
    REAL("min-lr", false, "LR", "0", min_lr, 0, DBL_MAX, "where cosine ends"),
    INT("decay-epochs", 0, false, "N", "90", decay_epochs, 1, BIG, "step: epochs between reductions"),
    REAL("decay-rate", false, "R", "0.1", decay_rate, 0, 1, "step: factor of each reduction"),
    FLAG("sched-on-updates", 0, false, sched_on_updates, "change the rate at every step, not only between epochs"),

    GROUP("sparsity", "Sparsity"),
    REAL("sparsity", true, "S", "0", sparsity, 0, 0.9999, "part of each sparse weight that is not stored; 0: dense training"),
    TEXT("scheme", 0, true, "NAME|RULES", "block4", scheme,
         "csr: single elements; blockH: H output channels by 1 (block: block4); punchedFxC; pattern: masks of 3x3 kernels; nmN:M, nmN:MxR; filter, channel: whole channels, layers become smaller; "
         "auto: csr, a block or pattern for each layer, which trains fastest (--tune: by measurement; --explain tells why); "
         "layer by layer: PATTERN=NAME,..,NAME"),
    CHOICE("distribution", false, "uniform|erk|er", "uniform", distribution,
           "--sparsity is that of each weight, or of all together by the Erdos-Renyi rule, with or without kernels"),
    TEXT("ratios", 0, false, "FILE", NULL, ratios, "YAML with prune_ratios, a sparsity for each name; all other weights stay dense"),
    TEXT("patterns", 0, false, "FILE", "(eight of 4 in 9)", patterns, "masks of the pattern scheme: numbers, or rows of three like x.x"),
    TEXT("method", 0, true, "NAME[:K=V,..]", "(mest-em if anything is sparse and no --scheduler moves it)", method,
         "how the pattern moves: static (not at all); MEST: mest-vanilla, mest-em (elastic mutation), mest-ems (soft memory\n"
         "bound); set, deepr, dsr, rigl, snfs; from all weights: magnitude, lottery, snip, grasp. With options, as rigl:rate=.2"),
    INT("mutate-every", 0, true, "N", "5", mutate_every, 1, BIG, "epochs between mutations (MEST; others count steps unless this is given)"),
    REAL("mest-lambda", false, "L", "0", mest_lambda, 0, DBL_MAX, "MEST: weight of the gradient in the score |w| + L |g|"),
    TEXT("dense-layers", 0, false, "auto|none|PATTERNS", "auto", dense_layers,
         "weights that stay dense; auto: first conv, last layer, 1x1 shortcuts, grouped convs"),
    TEXT("rules", 0, false, "RULES", NULL, rules, "PATTERN=SCHEME:SPARSITY;.. for single weights, first match wins"),
    FLAG("from-scratch", 0, false, from_scratch, "random pattern and new values instead of those in the file"),
    FLAG("start-dense", 0, false, start_dense, "store all weights at first; for schedulers that take them to --sparsity. magnitude, lottery, snip, grasp do so"),
    INT("forget-epoch", 0, false, "E", "(off)", forget_epoch, 1, BIG,
        "at the start of epoch E remove samples that are never forgotten (data efficiency)"),
    TEXT("forget-remove", 0, false, "F|N", NULL, forget_remove, "how many: below 1 a fraction, otherwise a count"),
    INT("forget-max", 0, false, "K", NULL, forget_max, 0, 16383 /* as far as it counts */, "instead: all that were learned and forgotten at most K times"),
    {"scheduler", 0, false, OPT_LIST, "NAME[:K=V,..]", NULL, AT(scheduler), 0, 0, 0,
     "add a scheduler, built in or a shared object (./mine.so); repeatable, called in this order"},

    GROUP("output", "Output"),
    TEXT("output", 'o', true, "FILE", NULL, output, "trained model (.onnx); --infer: outputs (.npy, .csv, or - for CSV on stdout)"),
    CHOICE("export", false, "dense|sparse|shrunk", "dense", export_as,
           "sparse weights as dense ones with zeros, or as sparse_initializer; shrunk: without the channels that filter and channel removed"),
    CHOICE("export-form", false, "as-is|inference|training", "as-is", export_form,
           "BatchNormalization and Dropout as in the file, or in the form that other runtimes use for inference or training"),
    TEXT("output-dir", 0, true, "DIR", NULL, output_dir, "folder of the run: checkpoint, log.jsonl, model.onnx, summary.json"),
    INT("checkpoint-every", 0, false, "N", "1", checkpoint_every, 1, BIG, "epochs between checkpoints in --output-dir"),
    INT("checkpoint-steps", 0, false, "N", "0", checkpoint_steps, 0, BIG, "also after every N steps; 0: no"),
    {"resume", 0, true, OPT_RESUME, "[FILE]", NULL, AT(resume_file), 0, 0, 0,
     "go on from the checkpoint of --output-dir, or from FILE; same options as before"},
    FLAG("overwrite", 0, false, overwrite, "start anew in an --output-dir that holds a run"),
    INT("topk", 0, false, "K", "(5 where class names are known)", topk, 1, 1000, "--infer: print the K best classes of each sample"),

    GROUP("machine", "Machine"),
    INT("threads", 't', true, "N", "0", threads, 0, 1024, "0: the cores that are idle"),
    FLAG("nice", 0, false, nice, "leave the cores to others: threads that wait do not spin, and the core is offered after each layer; same results"),
    CHOICE("kernels", false, "auto|scalar|avx2|avx512|neon", "auto", kernels, "highest instruction set to use"),
    CHOICE("tune", false, "off|fast|full", "off", tune, "kernels of layers by a model of cost, or by measuring them at the start, for a quarter of a second or ten;\ntimes are kept in $XDG_CACHE_HOME/mest"),
    FLAG("no-xnnpack", 0, false, no_xnnpack, "use the library's own kernels only"),
    TEXT("no-fuse", 0, false, "all|NAME[,NAME]", NULL, no_fuse, "passes that must not change the graph; --explain lists them"),
    REAL("gradcheck-seconds", false, "S", "60", gradcheck_seconds, 0.1, 1e6, "--gradcheck: begin nothing new after S seconds; what is left is named"),
    TEXT("profile", 0, false, "FILE", NULL, profile, "the time of every node as a trace for chrome://tracing or Perfetto; --train, --eval, --infer: the first 50,000; --bench: the runs of its table"),
    REAL("bench-seconds", false, "S", "3", bench_seconds, 0, 1e6, "--bench: runs are timed for so long, three at least"),
    INT("bench-runs", 0, false, "N", "0", bench_runs, 0, 1000000, "--bench: so many runs instead; 0: by --bench-seconds"),
    INT("bench-warmup", 0, false, "N", "3", bench_warmup, 0, 1000000, "--bench: runs before them, besides the first"),
    CHOICE("program", false, "train|eval|infer", "train", program, "--explain: which program"),

    GROUP("memory", "Memory"),
    {"mem-limit", 0, true, OPT_SIZE, "SIZE", "0", AT(memory_limit), 0, 1e15, 0,
     "most memory the process may take, as 64MiB or 1.5GB: obeyed, or refused before the first step with the size\n"
     "that would do; 0: no limit"},
    {"memory-limit", 0, false, OPT_SIZE, "MB", "0", AT(memory_limit), 0, 1e15, 1000000, "the same under an older name; a number alone counts 10^6 bytes"},
    TEXT("recompute", 0, false, "auto|off|N%|least", "auto", recompute,
         "activations computed again instead of kept: what a limit needs, none, for at most N % more time,\n"
         "or whatever lowers the peak; the result is the same to the bit"),
    TEXT("micro-batch", 0, false, "auto|off|N", "auto", micro_batch,
         "samples computed at once; a step is then made in parts whose gradients are added before one update, and\n"
         "BatchNormalization normalises over a part; auto: whole steps, unless a limit cannot be obeyed otherwise"),
    CHOICE("activations", false, "f32|bf16|auto", "f32", activations,
           "how activations wait for the backward part; bf16: in half the bytes, rounded, where nothing needs all bits;\n"
           "auto: f32, unless a limit cannot be obeyed otherwise"),
    CHOICE("freeze-front", false, "off|auto", "off", freeze_front,
           "auto: layers in front are frozen, as few as will do, where a limit cannot be obeyed otherwise"),

    GROUP("guest", "A good guest (--train)"),
    {"time-limit", 0, true, OPT_TIME, "TIME", "0", AT(time_limit), 0, 1e9, 0,
     "stop after so long, as 90s, 30m, 8h: the step is finished, a checkpoint written, the exit code is 124; 0: no limit"},
    REAL("cpu-share", true, "PERCENT", "100", cpu_share, 0.1, 100, "part of the time in which it works; after each step it rests for the other part"),
    TEXT("pause-file", 0, false, "FILE", NULL, pause_file, "pause between two steps while FILE exists"),
    REAL("min-battery", false, "PERCENT", "0", min_battery, 0, 100, "pause while the battery discharges and holds less; 0: do not look"),
    REAL("max-temp", false, "DEGREES", "0", max_temp, 0, 200, "pause while a thermal zone of the machine is hotter than so many degrees Celsius; 0: do not look"),
    TEXT("sys-root", 0, false, "DIR", "/sys", sys_root, "where the system's readings of battery and temperature are"),

    GROUP("messages", "Messages"),
    FLAG("json", 0, true, json, "one JSON object a line on stdout, everything else on stderr"),
    FLAG("quiet", 'q', false, quiet, "only results and errors"),
    FLAG("verbose", 'v', false, verbose, "details: what the library notes, each checkpoint"),
    TEXT("log", 0, false, "FORMS", "jsonl", log, "logs in --output-dir: jsonl, csv, tensorboard, several with commas"),
    CHOICE("progress", false, "auto|on|off", "auto", progress, "bar on stderr; auto: on a terminal, otherwise plain lines"),
    INT("log-interval", 0, false, "N", "0", log_interval, 0, BIG, "report every N steps (lines, JSON); 0: every ten seconds"),
    {"help", 'h', true, OPT_HELP, "[GROUP]", NULL, AT(help_group), 0, 0, 0, "the common options, or those of a group"},
    FLAG("help-all", 0, true, help_all, "all options"),
    FLAG("version", 'V', true, version, "versions of program and library"),
};
const int option_count = sizeof option_table / sizeof *option_table;
