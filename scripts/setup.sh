# shellcheck shell=bash
# What scripts/demo, scripts/test, scripts/types and .ci/run share: the virtual environment and the system's packages.
# Sourced, never started; messages go to stderr.

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$REPOSITORY/.venv

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# as_root COMMAND...: through sudo for an ordinary user; sudo asks for a password only where a person can type it.
as_root() {
    local prefix=()
    if [[ $EUID -ne 0 ]]; then
        command -v sudo >/dev/null || { say "this needs root, but there is no sudo here: $*"; return 1; }
        prefix=(sudo)
        [[ -t 0 && -z ${CI:-} ]] || prefix+=(-n)
    fi
    "${prefix[@]}" "$@"
}

# apt_install PACKAGE...: returns 1 where that cannot be done; the caller knows whether it matters.
apt_install() {
    command -v apt-get >/dev/null || { say "there is no apt-get here to install $*"; return 1; }
    say "installing $* with apt"
    # A third party's broken package source must not stop the installation of a package from a good one.
    as_root apt-get update -q </dev/null >&2 || true
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y -o Dpkg::Use-Pty=0 --no-install-recommends "$@" </dev/null >&2
}

# The first interpreter that really starts and is new enough: version managers put names on PATH that do not start.
find_python() {
    local candidate
    while read -r candidate; do
        [[ $candidate != "$VENV"/* ]] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' </dev/null >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done < <(type -aP python3 python3.13 python3.12 python3.11 python3.10 python)
    fail "Python 3.10 or newer is needed, but none was found (python3 is: $(python3 -V 2>&1 || true));" \
        "on Debian 12 or Ubuntu 22.04 and later run: sudo apt-get install python3 python3-venv"
}

venv_works() {
    [[ -x $VENV/bin/python ]] || return
    "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

create_venv() {
    local python version
    python=$(find_python)
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # Debian and Ubuntu ship ensurepip apart from Python.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install "python$version-venv" \
            || fail "$python cannot create virtual environments; run: sudo apt-get install python$version-venv"
    fi
    say "creating $VENV with Python $version"
    "$python" -m venv --clear "$VENV"
}

# A change of any of these makes an installation stale; the path is one because an editable install points to it.
stamp() {
    {
        cat "$REPOSITORY"/{setup.cfg,pyproject.toml,constraints.txt,edgeseg/_version.py}
        "$VENV/bin/python" -VV
        echo "$REPOSITORY"
    } | sha256sum
}

# install_extra NAME: edgeseg in place with an extra ("base" for none), unless that stands already.
install_extra() {
    local file=$VENV/edgeseg-$1.stamp target=$REPOSITORY
    [[ $1 == base ]] || target+="[$1]"
    if [[ -f $file && $(<"$file") == "$(stamp)" ]]; then
        return
    fi
    say "installing edgeseg ($1) into $VENV; the first time this takes some minutes"
    "$VENV/bin/python" -m pip install --disable-pip-version-check \
        -c "$REPOSITORY/constraints.txt" -e "$target" </dev/null >&2 || return
    stamp >"$file"
}

# TensorRT-RTX checks graphs with a real TensorRT parser and builder; where it has no wheel its tests are skipped.
install_rtx() {
    [[ $(uname -m) == x86_64 ]] || return 0
    install_extra rtx || say "TensorRT-RTX cannot be installed here; the tests that ask it will be skipped"
}

# prepare EXTRA...: the virtual environment with edgeseg and these extras; a second run takes a moment.
prepare() {
    local extra
    # Two scripts started at once wait for each other here instead of breaking each other's environment.
    exec 9<"$REPOSITORY"
    flock 9
    venv_works || create_venv
    for extra in "$@"; do
        case $extra in
            rtx) install_rtx ;;
            *) install_extra "$extra" || fail "pip could not install edgeseg ($extra); its message stands above" ;;
        esac
    done
    exec 9<&-
}

GSTREAMER_PACKAGES=(
    python3-gst-1.0 gir1.2-gst-plugins-base-1.0 gir1.2-gst-plugins-bad-1.0 gir1.2-gst-rtsp-server-1.0
    gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
    gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-nice gstreamer1.0-x
    gstreamer1.0-python3-plugin-loader libpython3-dev
)

gstreamer_works() {
    "$VENV/bin/python" -c 'import gi; gi.require_version("GstRtspServer", "1.0"); from gi.repository import Gst, GstRtspServer
Gst.init(None); Gst.MapInfo.__enter__; Gst.ElementFactory.find("nicesrc").get_name()' 2>/dev/null
}

# The camera's tests need GStreamer and PyGObject, which pip cannot bring: apt installs them for the system's Python, and
# an environment of the same version of Python is shown its `gi`. Where it failed once it is not tried again.
prepare_gstreamer() {
    local tried=$VENV/edgeseg-gstreamer.tried system mine packages
    gstreamer_works && return
    system=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
    mine=$("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    if [[ $system == "$mine" ]]; then
        # A link to what apt brings later does no harm, and a second run finds it.
        [[ -e $packages/gi ]] || ln -sfn /usr/lib/python3/dist-packages/gi "$packages/gi"
        gstreamer_works && return
        [[ -f $tried ]] || apt_install "${GSTREAMER_PACKAGES[@]}" || true
        gstreamer_works && return
    fi
    touch "$tried"
    say "GStreamer, or a part of it, cannot be used from Python $mine here (the system's is ${system:-absent}):" \
        "the camera's tests that need it will be skipped"
}

# A headless browser looks at the report; Ubuntu has Chromium only as a snap, which containers cannot install. Where it
# failed once it is not tried again before .venv is made anew.
prepare_browser() {
    local name tried=$VENV/edgeseg-browser.tried
    for name in chromium chromium-browser google-chrome; do
        "$name" --version >/dev/null 2>&1 && return
    done
    if [[ ! -f $tried ]] && apt_install chromium; then
        return
    fi
    touch "$tried"
    say "Chromium is not installed and apt cannot install it here: the tests that look at the report will be skipped"
}
