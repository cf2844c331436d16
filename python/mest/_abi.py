# SPDX-License-Identifier: Apache-2.0
"""The C interface by ctypes: structures as in include/mest (tests compare them with tests/abi/layout.txt), prototypes, errors.

ctypes.CDLL lets other threads run during each call, and takes the lock again for callbacks. The library is looked for where MEST_LIBRARY
says, then as the system does.
"""
import ctypes
import ctypes.util
import os

from .errors import BY_CODE, Error

_TYPES = {"int": ctypes.c_int, "bool": ctypes.c_bool, "i64": ctypes.c_int64, "u64": ctypes.c_uint64, "u32": ctypes.c_uint32,
          "real": ctypes.c_double, "text": ctypes.c_char_p, "ptr": ctypes.c_void_p}
STRUCTS = {}


def _struct(name, fields):
    """A structure from "type name name[3]; type name"; struct_size is put before, unless the text begins with '-'."""
    members = [] if fields.startswith("-") else [("struct_size", ctypes.c_uint32)]
    for line in fields.lstrip("-").split(";"):
        kind, *names = line.split()
        kind = STRUCTS.get(kind) or _TYPES[kind]
        for n in names:
            n, _, count = n.partition("[")
            members.append((n, kind * int(count[:-1]) if count else kind))
    STRUCTS[name] = type(name, (ctypes.Structure,), {"_fields_": members})
    return STRUCTS[name]


class Failure(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("msg", ctypes.c_char * 508)]


STRUCTS["mest_error"] = Failure
ModelOptions = _struct("mest_model_options", "ptr allocator logger; bool keep_aliases; u64 max_metadata_bytes; bool tolerant lend_memory; text trainable; bool read_files")
TensorInfo = _struct("mest_tensor_info", "text name; int dtype rank; i64 dim[8]; int role; text role_reason scheme; i64 stored; real sparsity")
Sparsity = _struct("mest_sparsity", "text scheme; real sparsity; text dense_layers rules; bool from_scratch; u64 seed; bool start_dense; "
                   "text distribution ratios patterns")
HeadInfo = _struct("mest_head_info", "text node op weight bias; i64 classes_before")
ExportOptions = _struct("mest_export_options", "bool sparse; ptr metadata; text form")
SampleInput = _struct("mest_sample_input", "-text name; int type rank; i64 dim[7] reserved[2]")
SourceInfo = _struct("mest_source_info", "i64 count; int input_type input_rank; i64 input_dim[7]; int target_type target_rank; "
                     "i64 target_dim[7] n_classes; bool has_targets; int n_inputs; mest_sample_input input[16]")
Fetch = _struct("mest_fetch", "u64 seed; i64 epoch; bool augment")
Source = _struct("mest_source", "ptr self info fetch class_name sample_name destroy fetch_inputs reserved[6]")
SourceOptions = _struct("mest_source_options", "ptr allocator logger; real scale; int n_mean n_std; real mean[16] std[16]; bool measure; int pad_crop; "
                        "real flip; int resize_height resize_width; i64 limit; real val_split; bool val_part; u64 split_seed; i64 max_bad; "
                        "int input_rank; i64 input_dim[7]")
TrainConfig = _struct("mest_train_config", "i64 batch eval_batch; bool shuffle drop_last; i64 epochs max_steps; text loss; real label_smoothing; "
                      "text optimizer; real lr momentum; bool nesterov; real weight_decay beta1 beta2 eps; text no_decay; real clip_norm; "
                      "text schedule; real min_lr gamma; i64 step_epochs warmup_epochs; real warmup_lr; bool schedule_per_step; text batch_norm; "
                      "real dropout; int threads; u64 seed; text kernels; bool use_xnnpack keep_gradients; text no_fuse output recompute; "
                      "bool watch_patterns; text bn_stats; real lr_decay; text tune tune_cache; bool nice; i64 memory_limit micro_batch; text activations; i64 ignore_index; text freeze_front recipe")
MetricsStruct = _struct("mest_metrics", "real loss accuracy; i64 samples steps; real seconds reserved[6]")
EventStruct = _struct("mest_event", "int kind; i64 epoch n_epochs step n_steps total_step n_total_steps; real lr; "
                      "mest_metrics batch train validation; real sparsity; i64 removed grown active_samples n_samples peak_bytes; text text; "
                      "real scheduler_seconds; i64 earlier survivors; real distance")
VersionInfo = _struct("mest_version_info", "bool current kept; i64 id parent epoch step time_ms samples; real loss accuracy; i64 bytes copied_bytes")
VersionInfo = STRUCTS["mest_version_info"] = type("mest_version_info", (ctypes.Structure,), {
    "_fields_": VersionInfo._fields_ + [("note", ctypes.c_char * 64)]})
PublishOptions = _struct("mest_publish_options", "i64 id samples; real loss accuracy; text note; real max_loss min_accuracy max_loss_rise "
                         "max_accuracy_drop; bool hold borrow")
RunOptions = _struct("mest_run_options", "ptr validation; i64 validate_every; text checkpoint_path; i64 checkpoint_every_steps "
                     "checkpoint_every_epochs; ptr progress progress_user publish; i64 max_epochs")
PredictorOptions = _struct("mest_predictor_options", "i64 max_batch; int threads; text kernels; bool use_xnnpack; text output; ptr expect")
InputData = _struct("mest_input_data", "-text name; ptr data; u64 bytes")
OutputData = _struct("mest_output_data", "-text name; ptr data; u64 bytes")

PROGRESS = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.POINTER(EventStruct))
INFO = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(SourceInfo), ctypes.POINTER(Failure))
FETCH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int64, ctypes.POINTER(Fetch), ctypes.c_void_p,
                         ctypes.c_void_p, ctypes.POINTER(Failure))
FETCH_INPUTS = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int64, ctypes.POINTER(Fetch),
                                ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p, ctypes.POINTER(Failure))


def library_path():
    """The file name that libmest is loaded by."""
    return os.environ.get("MEST_LIBRARY") or ctypes.util.find_library("mest") or "libmest.so.1"


try:
    _lib = ctypes.CDLL(library_path())
except OSError as e:
    raise ImportError(f"{e}: this package is a binding to libmest, which has to be installed (the Debian package libmest1, or meson install); "
                      "MEST_LIBRARY may name the file, as BUILD/libmest.so.1 of a build") from e
_lib.mest_version.restype = ctypes.c_int
if _lib.mest_version() < 100:
    raise ImportError(f"{library_path()} is of version {_lib.mest_version()}, 0.1.0 is the first that fits")

# result and arguments: v void, i int, l int64, d double, s text, p pointer, L size_t; functions that return a status end in E
_KINDS = {"v": None, "i": ctypes.c_int, "l": ctypes.c_int64, "d": ctypes.c_double, "s": ctypes.c_char_p, "p": ctypes.c_void_p, "L": ctypes.c_size_t,
          "b": ctypes.c_bool, "u": ctypes.c_uint64}
_FUNCTIONS = """
mest_model_load psp E|mest_model_load_memory ppLp E|mest_model_destroy p v|mest_model_parameter_count p i|mest_model_parameter pip E
mest_model_input_count p i|mest_model_input pip E|mest_model_output_count p i|mest_model_output pip E|mest_model_metadata ps s
mest_model_read_parameter pipL E|mest_model_freeze psbp E|mest_model_sparsify pp E|mest_model_export psp E|mest_model_export_memory ppLpp E
mest_model_batch plp l|mest_model_new_head pslup E|mest_model_unfold_batch_norm pp E
mest_source_open psp E|mest_source_close p v|mest_session_create ppp E|mest_session_destroy p v|mest_session_add_scheduler pss E
mest_session_train ppp E|mest_session_train_epoch pppp E|mest_session_step_inputs ppplp E|mest_session_end_epoch pp E
mest_session_set_learning_rate pd E|mest_session_evaluate pppp E|mest_session_expect pp E|mest_session_infer_inputs pplpL E
mest_session_output_shape ppp E|mest_session_cancel p v|mest_session_read_gradient pipL E|mest_session_checkpoint ps E|mest_session_resume ps E
mest_session_position ppp v|mest_session_memory ppp v|mest_session_publish ppp E|mest_model_publish ppp E|mest_model_promote pl E
mest_model_keep_versions pi E|mest_model_next_version plp E|mest_model_acquire p p|mest_model_acquire_id pl p|mest_snapshot_release p v
mest_snapshot_describe pp E|mest_snapshot_read_parameter pipL E|mest_snapshot_export psp E|mest_snapshot_export_memory ppLpp E
mest_session_restore pp E|mest_predictor_create ppp E|mest_predictor_destroy p v|mest_predictor_pin pp E|mest_predictor_run plpipip E
mest_predictor_input pip E|mest_predictor_output pip E|mest_predictor_memory ppp v
"""
NAMES = []
for _row in _FUNCTIONS.replace("\n", "|").split("|"):
    if not _row:
        continue
    _name, _arguments, _result = _row.split()
    _f = getattr(_lib, _name)
    _f.argtypes = [_KINDS[a] for a in _arguments] + ([ctypes.c_void_p] if _result == "E" else [])
    _f.restype = ctypes.c_int if _result == "E" else _KINDS[_result]
    NAMES.append(_name)
for _name in ("mest_train_config", "mest_sparsity", "mest_source_options", "mest_run_options", "mest_publish_options", "mest_predictor_options",
              "mest_model_options"):
    getattr(_lib, _name + "_init").argtypes = [ctypes.c_void_p]
    getattr(_lib, _name + "_init").restype = None
    NAMES.append(_name + "_init")


def version():
    """(major, minor, patch) of the library that is loaded."""
    v = _lib.mest_version()
    return v // 10000, v // 100 % 100, v % 100


def plain(name, *arguments):
    """Calls a function that cannot fail."""
    return getattr(_lib, name)(*arguments)


def call(name, *arguments):
    """Calls a function that returns a status; raises what it says."""
    failure = Failure()
    code = getattr(_lib, name)(*arguments, ctypes.byref(failure))
    if code:
        raise error(code, failure.msg.decode("utf-8", "replace"))


def error(code, text):
    e = BY_CODE.get(code, Error)(text)
    e.code = code
    return e


def new(kind):
    """An empty structure that says its size."""
    s = kind()
    s.struct_size = ctypes.sizeof(kind)
    return s


def options(kind, given, keep):
    """A structure with the library's defaults and what is given by name. The library writes the size it knows: never more than ours."""
    name = kind.__name__
    room = ctypes.create_string_buffer(ctypes.sizeof(kind) + 1024)  # a younger library writes its own, longer structure
    getattr(_lib, name + "_init")(room)
    s = kind.from_buffer_copy(room)
    s.struct_size = ctypes.sizeof(kind)
    fields = dict(kind._fields_)
    for key, value in given.items():
        if key not in fields or key == "struct_size":
            raise TypeError(f"there is no option '{key}'; there are: {', '.join(k for k in fields if k != 'struct_size')}")
        if fields[key] is ctypes.c_char_p and value is not None:
            value = os.fsencode(value)
            keep.append(value)
        elif hasattr(fields[key], "_length_"):
            value = fields[key](*value)
        setattr(s, key, value)
    return s


class Life:
    """When a model may be freed: closed, and whatever was made of it closed before. The garbage collector finalizes
    what refers to each other in any order, and weak references are gone by then, so this counts."""

    def __init__(self):
        self.users = 0
        self.last = None  # frees the model

    def check(self):
        if self.users == 0 and self.last:
            last, self.last = self.last, None
            last()


class Handle:
    """Owns one object of the library; `close`, or leaving a with statement, frees it."""

    _destroy = None
    _h = None
    _life = None  # of the model that this was made of

    def _made_of(self, model):
        self._model, self._life = model, model._own_life
        self._life.users += 1
        model._users.add(self)

    def close(self):
        h, self._h = self._h, None
        if h:
            plain(self._destroy, h)
            if self._life:
                self._life.users -= 1
                self._life.check()

    @property
    def handle(self):
        if not self._h:
            raise ValueError(f"this {type(self).__name__} is closed")
        return self._h

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        self.close()
