#!/bin/sh
# A machine outside: a network namespace on a wire, with a web server. 192.0.2.9 there, 192.0.2.1 here.
set -eu
ip netns add outside
ip link add out0 type veth peer name eth0 netns outside
ip addr add 192.0.2.1/24 dev out0
ip link set out0 up
ip -n outside addr add 192.0.2.9/24 dev eth0
ip -n outside link set lo up
ip -n outside link set eth0 up
# It knows the way to containers, so that it can try them directly.
ip -n outside route add default via 192.0.2.1
mkdir -p /run/neighbour
echo "outside speaks" >/run/neighbour/index.html
systemd-run --quiet --unit=neighbour ip netns exec outside busybox httpd -f -p 80 -h /run/neighbour
