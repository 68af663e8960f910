#!/usr/bin/env bash
# Takes away what make demo made: containers, image, volume, network, and the demo engine's own two directories.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$PWD/.build/demo
export ANSIBLE_COLLECTIONS_PATH=$build/collections ANSIBLE_CONFIG=$PWD/tools/ansible.cfg ANSIBLE_HOME=$build/home ANSIBLE_NOCOLOR=1
export ANSIBLE_DISPLAY_SKIPPED_HOSTS=False

"$build/venv/bin/ansible-playbook" wharf.engine.demo -e demo_state=absent
PYTHONDONTWRITEBYTECODE=1 "$build/venv/bin/python" tools/forget.py /var/lib/wharf-demo /run/wharf-demo
