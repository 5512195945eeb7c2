package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/appliance/job"
)

const gib = 1 << 30

func fixed(name, bus, serial string, length int64) Disk {
	return Disk{Disk: job.Disk{Name: name, Bus: bus, Serial: serial, Length: length, SectorLength: 512}}
}

func with(d Disk, change func(*Disk)) Disk {
	change(&d)
	return d
}

func TestChoose(t *testing.T) {
	need := Need{Image: "debian:1", SectorLength: 512, Length: 2 * gib}
	vda, small := fixed("vda", "virtio", "A", 4*gib), fixed("vdb", "virtio", "B", gib)
	usb := fixed("sda", "usb", "STICK", 64*gib)
	card := with(fixed("mmcblk0", "mmc", "C", 64*gib), func(d *Disk) { d.Removable = true })
	locked := with(fixed("sdb", "sata", "D", 64*gib), func(d *Disk) { d.ReadOnly = true })
	native := with(fixed("nvme0n1", "nvme", "E", 64*gib), func(d *Disk) { d.SectorLength = 4096; d.WWN = "eui.1" })
	nvme := fixed("nvme1n1", "nvme", "F", 8*gib)
	for name, test := range map[string]struct {
		disks  []Disk
		serial string
		want   string // the disk's name, or the refusal's code
		wait   bool
		says   []string
	}{
		"the only disk":                {disks: []Disk{vda}, want: "vda"},
		"too small beside USB":         {disks: []Disk{small, usb, vda}, want: "vda"},
		"only removable ones":          {disks: []Disk{usb, card, locked}, want: CodeNoDisk, wait: true, says: []string{"sda", "mmcblk0", "sdb"}},
		"nothing at all":               {want: CodeNoDisk, wait: true, says: []string{"AHCI"}},
		"two would do":                 {disks: []Disk{vda, nvme}, want: CodeAmbiguous, says: []string{"vda", "nvme1n1", "serial F"}},
		"two would do, one is named":   {disks: []Disk{vda, nvme}, serial: "F", want: "nvme1n1"},
		"the named one is not here":    {disks: []Disk{vda, nvme}, serial: "Z", want: CodeNoDisk, wait: true, says: []string{"Z", "vda"}},
		"the named one is too small":   {disks: []Disk{vda, small}, serial: "B", want: CodeTooSmall, wait: true, says: []string{"1073741824", "2147483648"}},
		"the named one is USB":         {disks: []Disk{vda, usb}, serial: "STICK", want: CodeNoDisk, wait: true},
		"too small":                    {disks: []Disk{small}, want: CodeTooSmall, wait: true, says: []string{"1073741824", "2147483648", "vdb"}},
		"other sectors":                {disks: []Disk{native}, want: CodeSectorSize, wait: true, says: []string{"4096", "512"}},
		"other sectors beside a fit":   {disks: []Disk{native, vda}, want: "vda"},
		"named by WWN":                 {disks: []Disk{native, vda}, serial: "eui.1", want: CodeSectorSize, wait: true},
		"exactly as long as is needed": {disks: []Disk{with(small, func(d *Disk) { d.Length = 2 * gib })}, want: "vdb"},
		"one sector less than needed":  {disks: []Disk{with(small, func(d *Disk) { d.Length = 2*gib - 512 })}, want: CodeTooSmall, wait: true},
		"small with other sectors":     {disks: []Disk{with(native, func(d *Disk) { d.Length = gib })}, want: CodeTooSmall, wait: true},
	} {
		t.Run(name, func(t *testing.T) {
			n := need
			n.Serial = test.serial
			got, refusal := Choose(test.disks, n)
			if refusal == nil {
				if got.Name != test.want {
					t.Errorf("chose %s, want %s", got.Name, test.want)
				}
				return
			}
			if refusal.Code != test.want || refusal.Wait != test.wait {
				t.Errorf("refused with %s (wait %v): %s", refusal.Code, refusal.Wait, refusal.Sentence)
			}
			for _, s := range test.says {
				if !strings.Contains(refusal.Sentence, s) {
					t.Errorf("%q does not say %q", refusal.Sentence, s)
				}
			}
		})
	}
}

// put makes files below root; a value beginning with "-> " makes a link.
func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(to, file)
		} else {
			err = os.WriteFile(file, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

const (
	virtioPath = "sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda"
	sataPath   = "sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda"
	usbPath    = "sys/devices/pci0000:00/0000:00:07.0/usb1/1-1/1-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb"
	nvmePath   = "sys/devices/pci0000:00/0000:00:08.0/nvme/nvme0/nvme0n1"
)

func fakeSys(t *testing.T) string {
	root := t.TempDir()
	put(t, root, map[string]string{
		virtioPath + "/size": "8388608\n", virtioPath + "/queue/logical_block_size": "512\n", virtioPath + "/serial": "SN1",
		"sys/block/vda":    "-> ../../" + virtioPath,
		sataPath + "/size": "2097152\n", sataPath + "/queue/logical_block_size": "512\n", sataPath + "/queue/rotational": "1\n",
		sataPath + "/device/vpd_pg80": "\x00\x80\x00\x08QM00005 ", sataPath + "/device/model": "QEMU HARDDISK   \n",
		sataPath + "/device/wwid": "t10.ATA     QEMU HARDDISK   QM00005\n",
		"sys/block/sda":           "-> ../../" + sataPath,
		usbPath + "/size":         "4194304\n", usbPath + "/queue/logical_block_size": "512\n",
		"sys/devices/pci0000:00/0000:00:07.0/usb1/1-1/idVendor": "46f4\n", "sys/devices/pci0000:00/0000:00:07.0/usb1/1-1/serial": "STICK7\n",
		"sys/block/sdb":    "-> ../../" + usbPath,
		nvmePath + "/size": "16777216\n", nvmePath + "/queue/logical_block_size": "4096\n", nvmePath + "/wwid": "eui.0011\n",
		nvmePath + "/device/serial": "NV9 \n", nvmePath + "/device/model": "Fast\n",
		"sys/block/nvme0n1":    "-> ../../" + nvmePath,
		"sys/block/loop0/size": "100\n", "sys/block/sr0/size": "100\n", "sys/block/mmcblk0boot0/size": "100\n", "sys/block/sdc/size": "0\n",
	})
	return root
}

func TestListReadsSysfs(t *testing.T) {
	disks, err := List(fakeSys(t))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, d := range disks {
		lines = append(lines, fmt.Sprintf("%s %s %s %d %d %q %q %v", d.Name, d.Bus, d.Serial, d.Length, d.SectorLength, d.Model, d.WWN, d.Rotational))
	}
	const want = `nvme0n1 nvme NV9 8589934592 4096 "Fast" "eui.0011" false
sda sata QM00005 1073741824 512 "QEMU HARDDISK" "t10.ATA     QEMU HARDDISK   QM00005" true
sdb usb STICK7 2147483648 512 "" "" false
vda virtio SN1 4294967296 512 "" "" false`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestCardInASlotIsNeverChosen: sysfs says "removable 0" of an SD card, as of the eMMC that is soldered in.
func TestCardInASlotIsNeverChosen(t *testing.T) {
	const card, flash = "sys/devices/pci0000:00/0000:00:1a.0/mmc_host/mmc0/mmc0:e624/block/mmcblk0",
		"sys/devices/pci0000:00/0000:00:1b.0/mmc_host/mmc1/mmc1:0001/block/mmcblk1"
	root := t.TempDir()
	put(t, root, map[string]string{
		card + "/size": "8388608\n", card + "/removable": "0\n", card + "/queue/logical_block_size": "512\n", card + "/device/type": "SD\n",
		flash + "/size": "8388608\n", flash + "/removable": "0\n", flash + "/queue/logical_block_size": "512\n", flash + "/device/type": "MMC\n",
		flash + "/diskseq": "7\n", "sys/block/mmcblk0": "-> ../../" + card, "sys/block/mmcblk1": "-> ../../" + flash,
	})
	disks, err := List(root)
	if err != nil {
		t.Fatal(err)
	}
	chosen, refusal := Choose(disks, Need{Image: "test:1", SectorLength: 512, Length: 1 << 30})
	if refusal != nil || chosen.Name != "mmcblk1" || chosen.Bus != "mmc" || chosen.Sequence != 7 {
		t.Errorf("chosen %+v: %v", chosen, refusal)
	}
	if _, refusal := Choose(disks[:1], Need{Image: "test:1", SectorLength: 512, Length: 1 << 30}); refusal == nil ||
		!strings.Contains(refusal.Sentence, "mmcblk0 (mmc, removable") {
		t.Errorf("a card alone: %v", refusal)
	}
}

func TestBIOSDrivesAreNumbered(t *testing.T) {
	root := fakeSys(t)
	put(t, root, map[string]string{
		"sys/firmware/edd/int13_dev80/sectors": "8388608\n", "sys/firmware/edd/int13_dev80/mbr_signature": "0x11223344\n",
		"sys/firmware/edd/int13_dev81/sectors": "2097152\n", "sys/firmware/edd/int13_dev81/pci_dev": "-> ../../../devices/pci0000:00/0000:00:1f.2",
	})
	disks, err := List(root)
	if err != nil {
		t.Fatal(err)
	}
	edd := ReadEDD(root)
	numbered := func(signatures map[string]uint32) string {
		list := append([]Disk(nil), disks...)
		NumberDrives(list, edd, signatures)
		var out []string
		for _, d := range list {
			out = append(out, fmt.Sprintf("%s=%x", d.Name, d.BIOSDrive))
		}
		return strings.Join(out, " ")
	}
	if got := numbered(nil); got != "nvme0n1=0 sda=81 sdb=0 vda=80" {
		t.Error(got)
	}
	if got := numbered(map[string]uint32{"vda": 0x55667788}); got != "nvme0n1=0 sda=81 sdb=0 vda=0" {
		t.Errorf("with another disk signature: %s", got)
	}
}

// TestEqualDisksAreToldApartBySignature: two disks of one length on controllers that the BIOS does not name.
func TestEqualDisksAreToldApartBySignature(t *testing.T) {
	edd := []EDD{{Drive: 0x80, Sectors: 100, Signature: 1}, {Drive: 0x81, Sectors: 100, Signature: 2}}
	disks := []Disk{fixed("vda", "virtio", "", 51200), fixed("vdb", "virtio", "", 51200)}
	NumberDrives(disks, edd, map[string]uint32{"vda": 2, "vdb": 1})
	if disks[0].BIOSDrive != 0x81 || disks[1].BIOSDrive != 0x80 {
		t.Errorf("%x %x", disks[0].BIOSDrive, disks[1].BIOSDrive)
	}
	blank := []Disk{fixed("vda", "virtio", "", 51200), fixed("vdb", "virtio", "", 51200)}
	NumberDrives(blank, []EDD{{Drive: 0x80, Sectors: 100}, {Drive: 0x81, Sectors: 100}}, nil)
	if blank[0].BIOSDrive != 0 || blank[1].BIOSDrive != 0 {
		t.Errorf("two blank disks were numbered: %x %x", blank[0].BIOSDrive, blank[1].BIOSDrive)
	}
}
