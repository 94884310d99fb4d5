#!/usr/bin/env bash
# One virtual environment a peer, with pinned versions: what `compare_peers.py` runs the peers in.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)

usage="usage: benchmarks/peers/setup.sh [FOLDER] [PEER...]

  FOLDER  where the environments go (default: benchmarks/peers/.venvs)
  PEER    onnxruntime, nncf, modelopt (default: all)"

# The CPU build of torch: other wheels of the same version bring several gigabytes of CUDA libraries.
constraints=$repository/constraints.txt
torch=$(sed -n 's/^torch==.*/&+cpu/p' "$constraints")

onnxruntime_packages=(onnxruntime==1.31.1 onnx==1.23.2 sympy==1.14.0)
nncf_packages=(nncf==3.4.0 openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.31.1)
# The extra [onnx] of ModelOpt but for cupy-cuda12x and onnxruntime-gpu, which need a GPU: onnxruntime of the version
# that the extra asks for stands in, and calibration runs on a CPU.
modelopt_packages=(
    nvidia-modelopt==0.47.0 onnx==1.21.0 onnxruntime==1.24.4 cppimport==26.4.17 lief==1.0.0
    onnx-graphsurgeon==0.6.1 onnxconverter-common==1.16.0 onnxscript==0.7.2 onnxslim==0.1.98 polygraphy==0.53.6
)

# install PEER FOLDER PACKAGE...
install() {
    local peer=$1 folder=$2/$1
    shift 2
    if [[ ! -x $folder/bin/python ]]; then
        "${PYTHON:-python3}" -m venv "$folder"
    fi
    printf 'installing %s into %s\n' "$peer" "$folder" >&2
    "$folder/bin/python" -m pip install --quiet --constraint "$constraints" "$@"
}

install_modelopt() {
    if ! install modelopt "$1" "$torch"; then
        printf 'pip finds no %s here: name a place that has it in PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL\n' "$torch" >&2
        return 1
    fi
    install modelopt "$1" "$torch" "${modelopt_packages[@]}"
}

main() {
    case ${1:-} in
        -h | --help)
            printf '%s\n' "$usage"
            return
            ;;
    esac
    local folder=${1:-$here/.venvs} peer
    shift || true
    mkdir -p "$folder"
    (($#)) || set -- onnxruntime nncf modelopt
    for peer in "$@"; do
        case $peer in
            onnxruntime) install "$peer" "$folder" "${onnxruntime_packages[@]}" ;;
            nncf) install "$peer" "$folder" "${nncf_packages[@]}" ;;
            modelopt) install_modelopt "$folder" ;;
            *)
                printf 'expected onnxruntime, nncf or modelopt, but got %s\n' "$peer" >&2
                return 2
                ;;
        esac
    done
}

main "$@"
