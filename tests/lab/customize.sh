#!/bin/sh
# Makes a Debian root a lab guest: `customize.sh ROOT PUBLIC_KEY_FILE HOSTNAME NUMBER`; mmdebstrap calls it.
# Everything is static, because a guest has no network but the lab's.
set -eu
root=$1 key=$2 name=$3 number=$4

echo "$name" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$name" >"$root/etc/hosts"
echo "/dev/vda / ext4 defaults 0 1" >"$root/etc/fstab"
echo "nameserver 10.0.2.3" >"$root/etc/resolv.conf"

# An administrator who is not root: tasks come in as this user and become root.
chroot "$root" useradd --create-home --shell /bin/bash --uid 1000 wharf
echo "wharf ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/wharf"
chmod 440 "$root/etc/sudoers.d/wharf"
install -d -m 700 -o 1000 -g 1000 "$root/home/wharf/.ssh"
install -m 600 -o 1000 -g 1000 "$key" "$root/home/wharf/.ssh/authorized_keys"
printf 'UseDNS no\nPasswordAuthentication no\n' >"$root/etc/ssh/sshd_config.d/lab.conf"

cat >"$root/etc/systemd/network/10-control.network" <<END
[Match]
Name=eth0
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
END
cat >"$root/etc/systemd/network/10-lab.network" <<END
[Match]
Name=eth1
[Network]
Address=10.77.0.$number/24
Address=fd77::$number/64
END
chroot "$root" systemctl enable --quiet systemd-networkd.service
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer \
    man-db.timer systemd-networkd-wait-online.service e2scrub_reap.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
install -d "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=persistent\nSystemMaxUse=32M\n' >"$root/etc/systemd/journald.conf.d/lab.conf"

# The emulated processor is slow: a small initial RAM disk saves half a minute a boot.
printf 'MODULES=list\nCOMPRESS=gzip\nRESUME=none\n' >"$root/etc/initramfs-tools/conf.d/lab"
printf 'virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n' >>"$root/etc/initramfs-tools/modules"
chroot "$root" update-initramfs -u -k all
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
