# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual machines for what the development machine cannot show: see docs/lab.md."""
