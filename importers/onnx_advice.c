/* SPDX-License-Identifier: Apache-2.0 */
/* What to change about a node that cannot be taken, by where such nodes come from. The first line that fits counts. */
#include <stdio.h>

#include "importers/onnx.h"

static const struct {
    const char *domain, *op; /* NULL: any; an op that ends in '*' is a beginning */
    const char *advice;
} lines[] = {
    { "ai.onnx.ml", NULL, "trees, scalers and linear models of scikit-learn and the like keep their numbers in attributes: nothing here trains; "
                          "export a neural network (torch.onnx.export), or keep this part outside of the model" },
    { "ai.onnx.preview.training", NULL, "gradients and optimizers are the runtime's own: export the network for inference or with training=TRAINING, "
                                        "without a training graph" },
    { "com.microsoft", NULL, "an operator of ONNX Runtime's optimizer: take the model before it was optimised or quantised for that runtime" },
    { "com.microsoft.nchwc", NULL, "an operator of ONNX Runtime's optimizer: take the model before it was optimised" },
    { "pkg.onnxscript.torch_lib*", NULL, "a helper of the exporter without its body: export again with optimize=True, or with dynamo=False" },
    { "org.pytorch.aten", NULL, "the exporter left a PyTorch operator as it is: export without operator_export_type=ONNX_ATEN_FALLBACK, or rewrite that layer" },
    { "aten", NULL, "the exporter left a PyTorch operator as it is: export without operator_export_type=ONNX_ATEN_FALLBACK, or rewrite that layer" },
    { "", "QuantizeLinear", "gradients pass a QuantizeLinear whose result only goes to a DequantizeLinear with the same scale and zero point; else train the float model from before quantisation" },
    { "", "DequantizeLinear", "weights that are stored as whole numbers do not train: train the float model from before quantisation and quantise again" },
    { "", "QLinear*", "a quantised network does not train: take the float model from before quantisation, train that, quantise again" },
    { "", "ConvInteger", "a quantised network does not train: take the float model from before quantisation, train that, quantise again" },
    { "", "MatMulInteger", "a quantised network does not train: take the float model from before quantisation, train that, quantise again" },
    { "", "If", "only a condition that follows from shapes can be decided: export with the condition fixed (a Python bool instead of a tensor; fixed sizes), or cut the branch away" },
    { "", "Loop", "a loop is unrolled if its number of steps is a constant of the file and it has no condition of its own: export it so (a Python loop of fixed length), or use an LSTM, GRU or RNN layer; "
                  "an EmbeddingBag is understood where all bags have one length: give it ids of two axes, without offsets" },
    { "", "Scan", "control flow is not run: unroll the loop in the model (a Python loop of fixed length), or use an LSTM, GRU or RNN layer" },
    { "", "Sequence*", "lists of tensors are followed where indices and lengths are constant: use Split, Concat or stacked tensors of fixed number; with the newer exporter, optimize=True folds them" },
    { "", "SplitToSequence", "lists of tensors are not run: use Split with fixed sizes; with the newer exporter, optimize=True folds them" },
    { "", "ConcatFromSequence", "lists of tensors are not run: concatenate a fixed number of tensors" },
    { "", "Optional*", "optional values are not run: export for one of the cases" },
    { "", "NonMaxSuppression", "post-processing: cut the graph before it (onnx.utils.extract_model) and train on the outputs in front" },
    { "", "Unique", "sizes that depend on data are not run, only those of constants: cut the graph before it (onnx.utils.extract_model), or do it in data preparation" },
    { "", "RoiAlign", "detection heads are not run: cut the graph before them (onnx.utils.extract_model) and train the part in front" },
    { "", "MaxRoiPool", "detection heads are not run: cut the graph before them (onnx.utils.extract_model) and train the part in front" },
    { "", "String*", "text is not handled in the model: prepare it outside and feed numbers" },
    { "", "RegexFullMatch", "text is not handled in the model: prepare it outside and feed numbers" },
    { "", "TfIdfVectorizer", "text is not handled in the model: prepare it outside and feed numbers" },
    { "", "LabelEncoder", "do it in data preparation" },
    { "", "ImageDecoder", "do it in data preparation: an images: source decodes JPEG and PNG" },
    { "", "Random*", "noise is drawn in float32: export the float32 model" },
    { "", "Multinomial", "sampling is not run: leave it out of the exported model" },
    { "", "Bernoulli", "noise is drawn in float32, bool or integers: export the float32 model" },
    { "", "initializer", "initializers are float32, float64, float16, bfloat16, integers or bool: export the float model" },
    { "", "input", "inputs are tensors of numbers: prepare the data outside of the model" },
    { "", NULL, "replace it in the model before the export, or cut the graph before it (onnx.utils.extract_model)" },
    { NULL, NULL, "an operator of a private domain: export with its body as a local function, or replace it in the model before the export" },
};

static bool fits(const char *pattern, const char *text)
{
    size_t n = pattern ? strlen(pattern) : 0;
    if (!pattern)
        return true;
    return n && pattern[n - 1] == '*' ? !strncmp(pattern, text, n - 1) : !strcmp(pattern, text);
}

const char *mest_onnx_advice(const char *domain, const char *op, int64_t opset)
{
    if (!*domain && opset > MEST_ONNX_MAX_OPSET)
        return "export with a lower opset_version";
    if (!*domain && opset < MEST_ONNX_MIN_OPSET)
        return "export with opset_version 13 or higher, or bring the file to it with onnx.version_converter";
    for (size_t i = 0;; i++) /* the last line fits everything */
        if (fits(lines[i].domain, domain) && fits(lines[i].op, op))
            return lines[i].advice;
}
