#!/usr/bin/env bash
# ansible-test sanity with nothing but a package index: ansible-test fetches get-pip.py from a host of Ansible's own CI
# unless it lies in its cache, and a get-pip made of ensurepip does. ansible-test also clears PIP_* from the
# environment, so an index or certificate setting must be in /etc/pip.conf.
set -euo pipefail
tree=$1
bin=${BIN:-$(dirname "$(command -v ansible-test)")}

cache="$HOME/.ansible/test/cache"
mkdir -p "$cache"
for version in 24_2 25_2; do
    [[ -e $cache/get_pip_$version.py ]] || cat >"$cache/get_pip_$version.py" <<'PY'
import subprocess, sys
# In a process of its own: ensurepip points PIP_CONFIG_FILE at /dev/null in the one it runs in.
subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
options = [arg for arg in sys.argv[1:] if arg not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--quiet", *options]))
PY
done

cd "$tree"
python=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PATH="$bin:$PATH" exec "$bin/ansible-test" sanity --local --python "$python" --color no "${@:2}"
