#!/usr/bin/env bash
# Sets up .venv and runs the tests. Arguments go to pytest: bash run_tests.sh -m slow; bash run_tests.sh tests/test_chat.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./setup_environment.sh
setup_environment requirements_training.txt requirements.txt requirements_dev.txt
exec "$python" -m pytest "$@"
