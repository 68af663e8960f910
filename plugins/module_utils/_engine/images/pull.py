# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pull: ask for the digest, fetch what is missing, unpack in order, commit in one transaction.

Nothing becomes visible half-done. Blobs are verified and linked into place one by one, layers are built in a stage and
renamed, and the image's row is written last; a process that dies in between leaves a partial blob that the next one
resumes, and blobs and layers that the next one finds (or the collector takes away).

Threads exist only inside ``pull``: a caller that will fork runs it through ``process.isolated``.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Optional, Union

from ..errors import IntegrityError, NotFound, Unsupported, UntrustedError
from ..tuples import NamedTuple
from . import config as configs
from . import resolve as resolving
from .platform import Platform
from .progress import Hook, Progress, Stopwatch
from .reference import Reference
from .routes import routed

if TYPE_CHECKING:
    from ..kernel.syscalls import Kernel
    from ..registry.client import RegistryClient
    from ..registry.transport import Transport
    from ..store.records import ImageRecord, LayerRef
    from ..store.state import Store
    from .download import Downloads, Fetcher
    from .manifest import Descriptor
    from .trust.policy import Policy
    from .workshop import Workshop


class PullCheck(NamedTuple):
    """``changed``: a pull would bring another image than the reference names now (or any, if it names none).
    ``digest`` is what the registry has; ``image_id`` what the reference would name, None where finding out would take
    more than asking for the digest."""

    changed: bool
    digest: str
    image_id: Optional[str]


class PullReport(NamedTuple):
    """``changed`` as in ``PullCheck``; ``received`` counts the bytes of blobs that came over the network; ``timings``
    are seconds for ``resolve config download unpack commit total`` (``download`` is the time that unpacking waited)."""

    image: ImageRecord
    digest: str
    changed: bool
    received: int
    layers_reused: int
    warnings: list[str]
    timings: dict[str, float]


def check(
    store: Store,
    transport: Transport,
    reference: Reference,
    *,
    platform: Union[str, Platform, None] = None,
    policy: Optional[Policy] = None,
) -> PullCheck:
    """What ``pull`` would do, without doing it. One HEAD as long as nothing changed (none for a digest that is here).
    When the digest differs from the one that was pulled, the manifests are read too: an index may have grown without
    the image for this host being another one. Raises as ``pull``."""
    wanted, asked = resolving.wanted_platform(platform)
    record = _present(store, reference, wanted, asked)
    if record is not None and reference.digest and policy is None:
        return PullCheck(False, reference.digest, record.id)

    def attempt(client: RegistryClient, source: Reference) -> PullCheck:
        if source.digest:
            client.head_manifest(source.path, source.digest)  # there is no telling a change that could not be made
        digest = resolving.current_digest(client, source)
        if policy is not None:
            policy.require(client, source, reference, digest)
        if record is not None and _known(store, reference, digest, record):
            return PullCheck(False, digest, record.id)
        named = store.images.by_reference(reference.canonical())
        if named is None:
            return PullCheck(True, digest, None)
        image_id = resolving.resolve(client, source, digest, wanted).manifest.config.digest
        return PullCheck(image_id != named.id, digest, image_id)

    return routed(reference, transport, attempt, [])


def pull(
    store: Store,
    kernel: Kernel,
    reference: Reference,
    *,
    transport: Transport,
    platform: Union[str, Platform, None] = None,
    progress: Optional[Hook] = None,
) -> ImageRecord:
    """Make ``reference`` name what it names at the registry now, and return that image. See ``pull_report``."""
    return pull_report(store, kernel, reference, transport=transport, platform=platform, progress=progress).image


def pull_report(
    store: Store,
    kernel: Kernel,
    reference: Reference,
    *,
    transport: Transport,
    platform: Union[str, Platform, None] = None,
    progress: Optional[Hook] = None,
    policy: Optional[Policy] = None,
    digest: Optional[str] = None,
) -> PullReport:
    """As ``pull``, with what it took. ``policy`` is held against the signatures before a manifest is read. ``digest``
    is what ``check`` has just found: that is pulled, and the tag is not asked for again. ``progress`` is called with an
    event at most four times a second, from any thread (``progress.Progress`` tells its shape).

    Raises ``UsageError`` (platform), ``NotFound`` (reference or platform), ``AuthError``, ``RegistryError``,
    ``IntegrityError``, ``UntrustedError``, ``Unsupported`` (artifact, compression), ``DiskFull``.
    """
    wanted, asked = resolving.wanted_platform(platform)
    watch = Stopwatch()
    record = _present(store, reference, wanted, asked)
    if record is not None and reference.digest and policy is None:
        return PullReport(record, reference.digest, False, 0, len(record.layers), [], watch.total())
    warnings: list[str] = []
    found = [digest] if digest else []

    def attempt(client: RegistryClient, source: Reference) -> PullReport:
        # Found at the first place that answers. Another one, asked when that fails, has its own mind.
        digest = found.pop() if found else resolving.current_digest(client, source)
        if policy is not None:
            policy.require(client, source, reference, digest)
        if record is not None and _known(store, reference, digest, record):
            watch.lap("resolve")
            return PullReport(record, digest, False, 0, len(record.layers), [], watch.total())
        # Whoever asks for signatures wants nothing touched that is not what was signed.
        one = _Pull(store, kernel, reference, source, client, transport, progress, watch, early=policy is None)
        return one.run(digest, wanted, asked)

    report = routed(reference, transport, attempt, warnings)
    return report._replace(warnings=[*warnings, *report.warnings])


def _present(store: Store, reference: Reference, wanted: Platform, asked: bool) -> Optional[ImageRecord]:
    """The image the reference names now, unless another platform was asked for."""
    record = store.images.by_reference(reference.canonical())
    if record is not None and asked and not resolving.suits(record.config, wanted):
        return None
    return record


def _known(store: Store, reference: Reference, digest: str, record: ImageRecord) -> bool:
    return reference.repo_digest(digest) in store.images.repo_digests(record.id)


def require_present(
    store: Store, transport: Transport, reference: Reference, record: ImageRecord, policy: Policy
) -> None:
    """Hold an image that is here against its signatures, by the digest under which it came from the registry. Asks only
    for what was not verified before. Raises ``UntrustedError``."""
    prefix = reference.repo_digest("")
    here = [one[len(prefix) :] for one in store.images.repo_digests(record.id) if one.startswith(prefix)]
    if reference.digest:
        here = [digest for digest in here if digest == reference.digest]
    if any(policy.known(reference, digest) for digest in here):
        return
    if not here:
        raise UntrustedError(
            "%s did not come from its registry (it was loaded, imported, built or tagged here), so there is no digest "
            "to verify" % reference.familiar(),
            step="verify_image",
            subject="image %s" % reference.familiar(),
            path="verify",
            hint="With pull=always it is taken from the registry, and verified.",
            details={"reason": "local"},
        )

    def attempt(client: RegistryClient, source: Reference) -> None:
        for digest in here[:-1]:
            try:
                return policy.require(client, source, reference, digest)
            except UntrustedError:  # the image came under several digests, and one that is signed is enough
                continue
        policy.require(client, source, reference, here[-1])

    routed(reference, transport, attempt, [])


class _Pull:
    """One pull that has something to do. ``source``: the reference as the mirror names it that is asked. ``early``:
    layers may be unpacked before their blobs are verified (and count for nothing until then)."""

    def __init__(
        self,
        store: Store,
        kernel: Kernel,
        reference: Reference,
        source: Reference,
        client: RegistryClient,
        transport: Transport,
        hook: Optional[Hook],
        watch: Stopwatch,
        early: bool,
    ) -> None:
        from .download import Fetcher

        self._store = store
        self._kernel = kernel
        self._reference = reference
        self._source = source
        self._client = client
        self._transport = transport
        self._progress = Progress(hook, str(reference), transport.clock)
        self._watch = watch
        self._early = early
        self._reused = 0
        self._fetcher: Fetcher = Fetcher(client, source.path, transport, store.blobs, self._progress)

    def run(self, digest: str, wanted: Platform, asked: bool) -> PullReport:
        reference, store = self._reference, self._store
        self._progress.phase("resolve")
        resolution = resolving.resolve(self._client, self._source, digest, wanted)
        self._watch.lap("resolve")
        manifest = resolution.manifest
        check_depth(len(manifest.layers), str(reference))
        config = self._config(manifest.config, len(manifest.layers))
        warning = resolving.check_platform(config, wanted, asked and not resolution.indexed, str(reference))
        self._watch.lap("config")
        layers = self._layers(config, manifest.layers)
        size = self._bring_in(layers)
        for data in resolution.documents:
            store.blobs.put_bytes(data)
        record = _record(manifest.config.digest, resolution, config, size, layers)
        before = store.images.by_reference(reference.canonical())
        store.images.put(
            record, references=[reference.canonical()], repo_digests=[reference.repo_digest(resolution.digest)]
        )
        for document in (resolution.digest, resolution.manifest_digest):
            store.blobs.unpin(document)  # reachable from here on
        self._watch.lap("commit")
        self._progress.phase("done")
        changed = before is None or before.id != record.id
        warnings = [warning] if warning else []
        received = self._progress.received
        return PullReport(record, resolution.digest, changed, received, self._reused, warnings, self._watch.total())

    def _config(self, descriptor: Descriptor, layers: int) -> dict[str, object]:
        subject = str(self._reference)
        if descriptor.size > configs.CONFIG_LIMIT:
            raise IntegrityError(
                "The config of %s is said to have %d bytes; more than %d are not read"
                % (subject, descriptor.size, configs.CONFIG_LIMIT),
                step="pull_config",
                subject=subject,
            )
        self._fetcher.fetch(descriptor.digest, descriptor.size)
        data = self._store.blobs.read(descriptor.digest, configs.CONFIG_LIMIT)
        return configs.parse_config(data, layers=layers, subject=subject)

    def _layers(self, config: dict[str, object], descriptors: tuple[Descriptor, ...]) -> tuple[LayerRef, ...]:
        from ..store.records import LayerRef

        rootfs = config["rootfs"]
        diff_ids: list[str] = rootfs["diff_ids"] if isinstance(rootfs, dict) else []
        chains = configs.chain_ids(diff_ids)
        return tuple(
            LayerRef(diff_id, chain, one.digest, one.size, one.media_type)
            for diff_id, chain, one in zip(diff_ids, chains, descriptors)
        )

    def _bring_in(self, layers: tuple[LayerRef, ...]) -> int:
        """Download and unpack what is missing. Returns the size of all layers, unpacked."""
        from .download import Downloads, Wanted

        # What is there is pinned by asking, so that no collector takes it away before the commit.
        missing = [layer for layer in layers if not self._have(layer)]
        self._reused = len(layers) - len(missing)
        for layer in layers:
            self._progress.blob(layer.blob_digest, layer.blob_size, "waiting" if layer in missing else "exists")
        self._progress.phase("layers")
        wanted = [Wanted(layer.blob_digest, layer.blob_size) for layer in missing]
        size = 0
        with self._builders(layers, missing) as workshop:
            if workshop is not None:
                self._fetcher.tell = workshop.tell
            with Downloads(self._fetcher, self._transport, wanted) as downloads:
                for position in range(len(layers)):
                    size += self._one_layer(layers, position, downloads, workshop)
        return size

    def _builders(
        self, layers: tuple[LayerRef, ...], missing: list[LayerRef]
    ) -> AbstractContextManager[Optional[Workshop]]:
        """Processes that unpack while blobs arrive, if that is worth while."""
        from . import workshop

        if sum(layer.blob_size for layer in missing) < workshop.WORTH_IT:
            return nullcontext()
        numbers = [number for number, layer in enumerate(layers) if layer in missing]
        subject = str(self._reference)
        return workshop.Workshop(self._store.paths, self._kernel, layers, numbers, subject, self._early)

    def _have(self, layer: LayerRef) -> bool:
        return self._store.layers.get(layer.chain_id) is not None and self._store.layers.pin(layer.chain_id)

    def _one_layer(
        self, layers: tuple[LayerRef, ...], position: int, downloads: Downloads, workshop: Optional[Workshop]
    ) -> int:
        layer = layers[position]
        if not self._have(layer):
            downloads.wait(layer.blob_digest)
            self._watch.lap("download")
            self._progress.state(layer.blob_digest, "unpacking")
            self._unpack(layers, position, workshop)
            self._watch.lap("unpack")
        self._progress.state(layer.blob_digest, "done")
        found = self._store.layers.get(layer.chain_id)
        return found.size if found is not None else 0

    def _unpack(self, layers: tuple[LayerRef, ...], position: int, workshop: Optional[Workshop]) -> None:
        from .apply import apply_layer
        from .workshop import NoBuilder

        layer = layers[position]
        if workshop is not None:
            error = workshop.wait(position)
            if error is None and self._have(layer):
                return
            # What a builder read was not verified yet, so what it thinks of it does not count. A blob can be gone when
            # another layer found it damaged.
            if error is not None and not isinstance(error, (IntegrityError, NotFound, NoBuilder)):
                raise error
        apply_layer(self._store, self._kernel, layer, layers[:position], self._fetcher, subject=str(self._reference))
        if workshop is not None:
            workshop.done(position)


def check_depth(layers: int, subject: str) -> None:
    """Before anything is downloaded: an image that no root can be mounted from is of no use."""
    from ..storage.overlay import MAX_LAYERS

    if layers > MAX_LAYERS:
        raise Unsupported(
            "%s has %d layers, and more than %d cannot be mounted" % (subject, layers, MAX_LAYERS),
            step="pull_manifest",
            subject=subject,
            hint="Build the image with fewer layers, or squash it.",
        )


def _record(
    image_id: str,
    resolution: resolving.Resolution,
    config: dict[str, object],
    size: int,
    layers: tuple[LayerRef, ...],
) -> ImageRecord:
    from ..store.records import ImageRecord

    return ImageRecord(
        image_id, resolution.manifest_digest, resolution.manifest.media_type, config, size, time.time(), layers
    )
