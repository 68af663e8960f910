# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dockerfile instructions as configuration changes."""

from __future__ import annotations

import pytest
from module_utils._engine.errors import UsageError
from module_utils._engine.images.changes import apply

S = 10**9


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
        (["cmd echo $HOME"], {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
        (["CMD [broken"], {"Cmd": ["/bin/sh", "-c", "[broken"]}),
        (['ENTRYPOINT ["/init"]', "CMD x"], {"Entrypoint": ["/init"], "Cmd": ["/bin/sh", "-c", "x"]}),
        (["ENV A=1 B='two words' C=\"x y\" D=a\\ b"], {"Env": ["A=1", "B=two words", "C=x y", "D=a b"]}),
        (["ENV A old form, with  blanks"], {"Env": ["A=old form, with  blanks"]}),
        (["ENV A=1", "ENV A=2 B=$A", "ENV C=${B}x${NONE:-d}'$A'"], {"Env": ["A=2", "B=1", "C=1xd$A"]}),
        (["ENV P=/bin:$PATH Q=a$ R=\\$P"], {"Env": ["P=/bin:", "Q=a$", "R=$P"]}),
        (["EXPOSE 80 53/UDP 8000-8002"], {"ExposedPorts": {p: {} for p in (
            "80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")}}),
        (['LABEL a="b c" d=e', "LABEL f g h"], {"Labels": {"a": "b c", "d": "e", "f": "g h"}}),
        (["USER 1000:staff"], {"User": "1000:staff"}),
        (['VOLUME ["/a", "/b c"]', "VOLUME /d /e"], {"Volumes": {p: {} for p in ("/a", "/b c", "/d", "/e")}}),
        (["WORKDIR /a/../b//c", "WORKDIR d/."], {"WorkingDir": "/b/c/d"}),
        (["WORKDIR ../../x"], {"WorkingDir": "/x"}),
        (["STOPSIGNAL SIGQUIT"], {"StopSignal": "SIGQUIT"}),
        (["STOPSIGNAL 9"], {"StopSignal": "9"}),
        (["STOPSIGNAL SIGRTMIN+3"], {"StopSignal": "SIGRTMIN+3"}),
        (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (["HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=1.5h --retries=4 CMD curl -f x || exit 1"],
         {"Healthcheck": {"Test": ["CMD-SHELL", "curl -f x || exit 1"], "Interval": 90 * S, "Timeout": S // 2,
                          "StartPeriod": 5400 * S, "Retries": 4}}),
        (['HEALTHCHECK CMD ["a"]'], {"Healthcheck": {"Test": ["CMD", "a"]}}),
    ],
)  # fmt: skip
def test_instructions_become_configuration(changes, expected):
    assert apply(changes) == expected


@pytest.mark.parametrize(
    "change",
    ["", "RUN x", "FROM y", "CMD", "ENV", "ENV A", "ENV A=1 B", "ENV =x", "ENV A='x", "EXPOSE 0", "EXPOSE 65536",
     "EXPOSE a", "EXPOSE 9-8", "EXPOSE 80/icmp", "USER a b", "STOPSIGNAL SIGNOPE", "STOPSIGNAL 0", "HEALTHCHECK x",
     "HEALTHCHECK CMD", "HEALTHCHECK --interval=5 CMD x", "HEALTHCHECK --what=1s CMD x",
     "HEALTHCHECK --retries=x CMD x", "ONBUILD ONBUILD RUN x", "ONBUILD FROM x", "ENV A=${B",
     "ENV A=${B%x}", "LABEL a=b\0c", 'VOLUME [""]'],
)  # fmt: skip
def test_malformed_changes_are_refused_and_named(change):
    with pytest.raises(UsageError) as caught:
        apply(["ENV OK=1", change])
    assert caught.value.path == "changes" and repr(change) in caught.value.msg


def test_the_configuration_given_is_not_touched():
    config = {"Env": ["A=1"], "Labels": {"a": "b"}}
    assert apply(["ENV A=2", "LABEL a=c"], config) == {"Env": ["A=2"], "Labels": {"a": "c"}}
    assert config == {"Env": ["A=1"], "Labels": {"a": "b"}}
