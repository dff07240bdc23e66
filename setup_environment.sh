# Sourced by run_persona.sh and run_tests.sh: makes .venv with the pinned packages and sets $python.
#
# PERSONA_PYTHON   use this interpreter and install nothing (a conda environment, an HPC module)
# PERSONA_VENV     where the virtual environment goes; default .venv beside this file

setup_environment() { # setup_environment REQUIREMENTS_FILE...
    if [ -n "${PERSONA_PYTHON:-}" ]; then
        python=$PERSONA_PYTHON
        return
    fi
    local venv=${PERSONA_VENV:-$PWD/.venv} base file wanted stamp
    python=$venv/bin/python
    if [ ! -x "$python" ]; then
        for base in python3.11 python3.12 python3.13 python3; do
            command -v "$base" >/dev/null && "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && break
            base=
        done
        [ -n "$base" ] || { echo "error: Python 3.11 or later is needed; set PERSONA_PYTHON to one" >&2; exit 2; }
        echo "making $venv with $base"
        "$base" -m venv "$venv" || { echo "error: cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 2; }
    fi
    for file in "$@"; do
        wanted=$(sha256sum "$file" | cut -d' ' -f1)
        stamp=$venv/.installed-$(basename "$file")
        if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
            echo "installing $file"
            "$python" -m pip install --quiet --disable-pip-version-check -r "$file" || { echo "error: installing $file failed" >&2; exit 2; }
            echo "$wanted" >"$stamp"
        fi
    done
}
