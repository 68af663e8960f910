#!/usr/bin/env bash
# make demo: install the collection the way users do, into a virtualenv of its own, and run playbooks/demo.yml.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$PWD/.build/demo
collections=$build/collections
# What the tests use must not leak in: only the virtualenv and the installed collection count here.
export ANSIBLE_COLLECTIONS_PATH=$collections ANSIBLE_CONFIG=$PWD/tools/ansible.cfg ANSIBLE_HOME=$build/home ANSIBLE_NOCOLOR=1
export ANSIBLE_PIPELINING=1
export ANSIBLE_DISPLAY_SKIPPED_HOSTS=False
unset PYTHONDONTWRITEBYTECODE

mkdir -p "$build"
exec 9>"$build/.lock"
flock 9

say() { printf '\n== %s\n' "$*"; }

say "virtualenv with ansible-core and the pinned requirements in ${build#"$PWD"/}/venv"
[[ -x $build/venv/bin/python ]] || "${PYTHON:-python3}" -m venv "$build/venv"
"$build/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -r requirements.txt "$(grep '^ansible-core' requirements-dev.txt)"

say "build the collection's tarball and install it"
"$build/venv/bin/python" tools/tree.py "$build/tree/ansible_collections/wharf/engine"
rm -rf "$build/dist" "$collections"
(cd "$build/tree/ansible_collections/wharf/engine" &&
    "$build/venv/bin/ansible-galaxy" collection build --output-path "$build/dist")
"$build/venv/bin/ansible-galaxy" collection install --offline "$build"/dist/*.tar.gz -p "$collections"

play() { "$build/venv/bin/ansible-playbook" wharf.engine.demo "$@"; }

take_away() {
    local code=$?
    if [[ ${KEEP:-} == 1 ]]; then
        say "kept, as KEEP=1 asks: curl http://127.0.0.1:18080/; take it away with: make demo-clean"
    else
        say "take everything away"
        tools/demo-clean.sh
    fi
    exit "$code"
}
trap take_away EXIT

say "the first run puts everything in place"
play

say "the second run changes nothing"
play | tee "$build/second.log"
grep -q 'localhost *: .* changed=0 ' "$build/second.log" || {
    echo "The second run reported changes" >&2
    exit 1
}

say "what a changed port would mean: --check --diff -e demo_port=18081"
play --check --diff -e demo_port=18081
