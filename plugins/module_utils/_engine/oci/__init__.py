# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runtime by itself: an executable with runc's command line, over the same stages the engine uses.

``main`` reads the command line, ``verbs`` says what there is, one file per verb (or family of verbs) does it:

    create, run        create.py → launch.py (this side of the clone) and init.py (the other side)
    exec               execute.py → join.py
    start, delete      lifecycle.py
    state, list, ps    report.py
    kill, pause, ...   control.py

What is known of a container stands in ``<root>/<id>/state.json``; ``states`` says what may be believed of it.
"""
