# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who says that an image is what it is called: public keys, signatures, and where registries keep them.

Only verifying is done here. It needs no secret, so plain integer arithmetic may do it (what leaks through its timing is
public already), and a target needs neither openssl nor a package.
"""
