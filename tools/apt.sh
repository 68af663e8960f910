#!/usr/bin/env bash
# Installs the Debian packages that tests and the demo use and that are missing. The engine itself needs none of them:
# they are oracles (nft, ip, getfattr, skopeo, umoci), things to test against (sshd, docker-registry, libisal), or material for
# images (a static busybox, mmdebstrap).
set -euo pipefail

packages=(
    apache2-utils attr busybox-static dbus-daemon docker-registry git iproute2 iptables libcap2-bin libisal2
    mmdebstrap nftables openssh-server python3 python3-venv skopeo sudo umoci
)
read -r -a extra <<<"${EXTRA:-}"
packages+=("${extra[@]}")

if ! command -v dpkg-query >/dev/null; then
    echo "Not a Debian system: please see that these are installed: ${packages[*]}"
    exit 0
fi
missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [[ $status == *"ok installed"* ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0
if ((EUID != 0)); then
    echo "These packages are missing and I am not root: ${missing[*]}" >&2
    exit 1
fi
echo "== apt-get install ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Packages must not start services here (docker-registry and sshd would take ports).
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
