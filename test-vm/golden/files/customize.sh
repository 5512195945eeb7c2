#!/bin/sh
# Runs after all packages are installed: what makes the system the golden one.
set -e
echo golden > "$1/etc/hostname"
printf '127.0.0.1 localhost golden\n' > "$1/etc/hosts"
# A first boot would enable every unit anew and rebuild caches: 10 s of an emulated processor that show nothing.
echo 5eedbed0000040008000000000000000 > "$1/etc/machine-id"
printf 'TIMESTAMP_NSEC=9000000000000000000\n' | tee "$1/etc/.updated" > "$1/var/.updated"
touch -d 2100-01-01 "$1/etc/.updated" "$1/var/.updated"
printf 'blacklist %s\n' kvm kvm_amd kvm_intel powernow_k8 acpi_cpufreq > "$1/etc/modprobe.d/golden.conf"
chroot "$1" passwd -d root
cat > "$1/etc/fstab" <<F
UUID=5eedbed0-0000-4000-8000-000000000003 /         ext4 defaults,errors=remount-ro 0 1
UUID=5EED-BED2                            /boot/efi vfat umask=0077,noauto          0 0
UUID=5eedbed0-0000-4000-8000-000000000004 none      swap sw                         0 0
F
mkdir -p "$1/boot/efi" "$1/boot/grub"
cat > "$1/boot/grub/grub.cfg" <<F
set timeout=0
search --no-floppy --fs-uuid --set=root 5eedbed0-0000-4000-8000-000000000003
echo "golden: GRUB on \$grub_platform, lockdown=\$lockdown"
linux /boot/vmlinuz root=UUID=5eedbed0-0000-4000-8000-000000000003 ro console=tty0 console=ttyS0,115200 lsm=lockdown,capability quiet
initrd /boot/initrd.img
boot
F
ln -sf "$(cd "$1/boot" && ls vmlinuz-*)" "$1/boot/vmlinuz"
ln -sf "$(cd "$1/boot" && ls initrd.img-*)" "$1/boot/initrd.img"
rm -f "$1"/vmlinuz* "$1"/initrd.img* "$1"/var/log/*.log "$1"/var/cache/debconf/*-old
# Units which only cost time on a lab machine.
chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-networkd-wait-online.service \
  getty-static.service systemd-hwdb-update.service ldconfig.service systemd-journal-catalog-update.service
