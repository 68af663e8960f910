# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Info modules list what Docker's filters let through, and answer in Docker's template language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine, engine
from helpers.images import build_image, layer
from helpers.store_kit import wait_until
from module_utils._engine.errors import NotFound, UsageError

SLEEP = ["sleep", "1000"]


@pytest.fixture(scope="module")
def fleet(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(str(tmp_path_factory.mktemp("fleet"))) as one:
        one.busybox()
        one.busybox("other:1", changes=["CMD sh", "ENV A=1", "LABEL kind=base", "EXPOSE 9000/udp"])
        one.run("network", name="shop")
        one.container(
            "web",
            command=SLEEP,
            labels={"app": "shop", "tier": "front"},
            networks=[{"name": "shop"}],
            published_ports=["127.0.0.1:18080:80"],
            volumes=["data:/data", "/tmp:/host"],
        )
        one.container("failed", command=["sh", "-c", "exit 3"], labels={"app": "shop"})
        wait_until(lambda: one.inspect("failed")["State"]["Status"] == "exited")
        one.container("idle", image="other:1", command=SLEEP, state="present")
        yield one


def names(instance: Engine, **filters: Any) -> list[str]:
    return [one["Name"][1:] for one in instance.run("container_info", filters=filters)["containers"]]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["web", "failed", "idle"]),
        ({"status": "running"}, ["web"]),
        ({"status": ["created", "exited"]}, ["failed", "idle"]),
        ({"exited": 3}, ["failed"]),
        ({"exited": 0}, []),
        ({"label": "app"}, ["web", "failed"]),
        ({"label": ["app=shop", "tier=front"]}, ["web"]),
        ({"label": "kind=base"}, ["idle"]),
        ({"name": "e"}, ["web", "failed", "idle"]),
        ({"name": "^/web$"}, ["web"]),
        ({"since": "web"}, ["failed", "idle"]),
        ({"before": "idle"}, ["web", "failed"]),
        ({"since": "web", "before": "idle"}, ["failed"]),
        ({"ancestor": "other:1"}, ["idle"]),
        ({"ancestor": "bb:1"}, ["web", "failed"]),
        ({"ancestor": "bb"}, []),
        ({"network": "shop"}, ["web"]),
        ({"volume": "data"}, ["web"]),
        ({"volume": "/host"}, ["web"]),
        ({"publish": "18080"}, ["web"]),
        ({"publish": "18000-18100/tcp"}, ["web"]),
        ({"publish": "18080/udp"}, []),
        ({"expose": "80"}, ["web"]),
        ({"expose": "9000/udp"}, ["idle"]),
        ({"health": "none", "status": "running"}, ["web"]),
        ({"is-task": True}, []),
        ({"is-task": "false", "status": "running"}, ["web"]),
    ],
)
def test_containers_are_filtered_as_docker_ps_does(fleet: Engine, filters: Any, expected: list[str]) -> None:
    assert names(fleet, **filters) == expected


def test_an_image_is_the_ancestor_of_what_was_made_of_its_layers(fresh: Engine, tmp_path: Path) -> None:
    base, extra = layer({"f": b"1"}), layer({"g": b"2"})
    for name, layers in (("base", [base]), ("made", [base, extra]), ("foreign", [extra])):
        path = build_image(layers).write_layout(str(tmp_path / name), "1")
        fresh.run("image", name=name + ":1", source="load", path=path)
        fresh.container(name, image=name + ":1", command=["x"], state="present")
    assert names(fresh, ancestor="base:1") == ["base", "made"]
    assert names(fresh, ancestor=["made:1", "foreign:1"]) == ["made", "foreign"]


def test_containers_are_found_by_a_part_of_their_id(fleet: Engine) -> None:
    container_id = fleet.inspect("web")["Id"]
    assert names(fleet, id=container_id[:12]) == ["web"]
    assert names(fleet, id=fleet.inspect("idle")["Id"]) == ["idle"]


def test_a_container_or_image_that_does_not_exist_is_no_limit_to_a_list(fleet: Engine) -> None:
    with pytest.raises(NotFound, match="No such container: gone"):
        names(fleet, since="gone")
    with pytest.raises(NotFound, match="No such image: gone"):
        fleet.run("image_info", filters={"before": "gone"})


def test_images_networks_and_volumes_are_filtered_as_docker_does(fleet: Engine) -> None:
    def images(**filters: Any) -> list[str]:
        return sorted(one["RepoTags"][0] for one in fleet.run("image_info", filters=filters)["images"])

    def networks(**filters: Any) -> list[str]:
        return sorted(one["Name"] for one in fleet.run("network_info", filters=filters)["networks"])

    def volumes(**filters: Any) -> list[str]:
        return sorted(one["Name"] for one in fleet.run("volume_info", filters=filters)["volumes"])

    assert images(reference="o*") == ["other:1"] and images(reference="*:1") == ["bb:1", "other:1"]
    assert images(label="kind") == ["other:1"] and images(dangling=True) == [] and images(until="1969-12-31") == []
    assert images(dangling=False, reference=["bb", "nothing"]) == ["bb:1"]
    fleet.run("network", name="empty", labels={"a": "b"})
    assert networks(dangling=True) == ["empty"] and networks(label="a=b") == ["empty"]
    assert "bridge" not in networks(type="custom") and networks(scope="swarm") == []
    assert networks(name="sho") == ["shop"]
    fleet.run("volume", name="unused", labels={"keep": "yes"})
    assert volumes(dangling=True) == ["unused"] and volumes(dangling=False) == ["data"]
    assert volumes(label={"keep": "yes"}) == ["unused"] and volumes(name="^da") == ["data"]


def test_a_volumes_size_is_what_it_takes_on_the_disk(fleet: Engine) -> None:
    fleet.sh("web", "dd if=/dev/zero of=/data/f bs=1024 count=64")
    shown = fleet.run("volume_info", name="data", size=True)["volume"]
    assert shown["UsageData"]["RefCount"] == 1 and 65536 <= shown["UsageData"]["Size"] < 131072
    assert "UsageData" not in fleet.run("volume_info", name="data")["volume"]


def test_format_is_dockers_template_language_over_the_whole_object(fleet: Engine) -> None:
    def shown(template: str, name: str = "web") -> str:
        return str(fleet.run("container_info", name=name, format=template)["container"])

    web = fleet.inspect("web")
    assert json.loads(shown("{{ json .Mounts }}")) == web["Mounts"]
    assert json.loads(shown("json")) == {**web, "MacAddress": web["NetworkSettings"]["Networks"]["shop"]["MacAddress"]}
    assert shown("{{ json .MacAddress }}") == '"%s"' % web["NetworkSettings"]["Networks"]["shop"]["MacAddress"]
    assert (
        shown("{{range $p, $conf := .NetworkSettings.Ports}}{{$p}} -> {{(index $conf 0).HostPort}}{{end}}")
        == "80/tcp -> 18080"
    )
    assert (
        shown("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
        == (web["NetworkSettings"]["Networks"]["shop"]["IPAddress"])
    )
    assert shown("{{.State.Status}} {{.State.Running}} {{.Config.Labels.tier}} {{.Config.Labels.nope}}") == (
        "running true front <no value>"
    )
    assert shown("{{if .State.Health}}{{.State.Health.Status}}{{else}}no check{{end}} {{.HostConfig.CapAdd}}") == (
        "no check []"
    )
    assert shown("{{.State.ExitCode}}", "failed") == "3"
    listed = fleet.run("container_info", filters={"label": "app"}, format="{{.Name}}")["containers"]
    assert listed == ["/web", "/failed"]
    assert fleet.run("container_info", name="gone", format="{{.Name}}")["container"] is None
    assert fleet.run("image_info", name=["bb:1"], format='{{join .RepoTags ","}}')["images"] == ["bb:1"]
    assert fleet.run("network_info", name="shop", format="{{(index .IPAM.Config 0).Gateway}}")["network"]
    assert fleet.run("volume_info", name="data", format="{{.Driver}}")["volume"] == "local"


def test_an_inspection_has_every_field_that_docker_28_shows(fleet: Engine) -> None:
    """Fields that Docker leaves out when they are empty (Annotations, StorageOpt, Health ...) are not in this list."""
    shown = fleet.inspect("web")
    top = (
        "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount "
        "Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config "
        "NetworkSettings"
    )
    assert list(shown) == top.split()
    host = (
        "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver "
        "VolumesFrom ConsoleSize CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd "
        "IpcMode Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt "
        "UTSMode UsernsMode ShmSize Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight "
        "BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps "
        "CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices "
        "DeviceCgroupRules DeviceRequests MemoryReservation MemorySwap MemorySwappiness OomKillDisable "
        "PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth MaskedPaths ReadonlyPaths"
    )
    assert set(host.split()) <= set(shown["HostConfig"])
    config = (
        "Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce "
        "Env Cmd Image Volumes WorkingDir Entrypoint Labels"
    )
    assert set(config.split()) <= set(shown["Config"])
    network = (
        "Bridge SandboxID SandboxKey Ports HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen "
        "SecondaryIPAddresses SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen "
        "IPAddress IPPrefixLen IPv6Gateway MacAddress Networks"
    )
    assert list(shown["NetworkSettings"]) == network.split()
    one = (
        "IPAMConfig Links Aliases MacAddress DriverOpts GwPriority NetworkID EndpointID Gateway IPAddress "
        "IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames"
    )
    assert list(shown["NetworkSettings"]["Networks"]["shop"]) == one.split()
    state = "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt"
    assert list(shown["State"]) == state.split()
    volume = next(mount for mount in shown["Mounts"] if mount["Type"] == "volume")
    assert list(volume) == ["Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation"]


def test_a_bad_template_or_filter_is_refused_before_the_state_is_opened(tmp_path: Path) -> None:
    instance = Engine(str(tmp_path))
    for params in ({"format": "{{.Name"}, {"filters": {"nope": 1}}, {"format": "{{.}}", "query": "Name"}):
        with pytest.raises(UsageError):
            instance.run("container_info", **params)
    assert not (tmp_path / "state").exists()
    instance.close()
