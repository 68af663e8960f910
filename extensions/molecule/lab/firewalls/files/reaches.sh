#!/bin/sh
# `reaches.sh WHAT`: does a packet get there? Tried for a while, because a firewall may be in the middle of a reload.
set -u
inside() { # the network namespace of the container called web
    id=$(python3 -c 'import sqlite3; print(sqlite3.connect("/var/lib/wharf/state.db").execute(
        "select id from containers where name = ?", ("web",)).fetchone()[0])')
    nsenter --net="/run/wharf/netns/$id" "$@"
}
try() {
    case $1 in
        out) inside busybox wget -q -T 5 -O - http://192.0.2.9/ | grep -q "outside speaks" ;;
        in) ip netns exec outside busybox wget -q -T 5 -O - http://192.0.2.1:8081/hello | grep -q "from the container" ;;
        unpublished) ip netns exec outside busybox wget -q -T 5 -O - "http://$2:80/hello" ;;
        docker) inside busybox wget -q -T 5 -O - "http://$2:80/passwd" ;;
        docker-published) inside busybox wget -q -T 5 -O - "http://192.0.2.1:8082/passwd" | grep -q root ;;
    esac
}
case $1 in
    out | in | docker-published)
        for _try in 1 2 3 4 5 6 7 8 9 10; do
            try "$@" && exit 0
            sleep 1
        done
        ;;
    *) try "$@" && exit 0 ;;
esac
exit 1
