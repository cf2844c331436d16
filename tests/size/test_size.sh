#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A model of 60 MB in one file, or with external data: hardly more than its sparse weights becomes resident while it is imported.
large=$1
case $large in /*) ;; *) large=$PWD/$large ;; esac
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
case $2 in external) form=external ;; *) form= ;; esac
"$large" write "$work/model.onnx" 60 $form || exit 1
"$large" import "$work/model.onnx" block4 0.9 16 || exit 1
"$large" import "$work/model.onnx" csr 0.9 16
