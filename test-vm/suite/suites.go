package main

import (
	"slices"
	"time"
)

// suites lists what `make test` runs, in order. Adding a suite is an entry here.
func suites(full bool) []suite {
	e2e := step{
		env:  []string{"SEEDBED_E2E=1"},
		args: []string{"go", "test", "-count=1", "-timeout", "40m", "-v", "./test-vm/e2e/"},
	}
	if full {
		e2e.args = slices.Insert(e2e.args, 2, "-tags", "full")
		e2e.args[slices.Index(e2e.args, "-timeout")+1] = "2h"
	}
	// The whole program, as users run it: what races in it its packages' tests find too.
	// What machines in network namespaces tell has its place where there is time: the fleet's has little.
	const slow, adds = "TestAMachineThatIsSlowAndThenSilentIsToldOf", "TestTheJournalAddsUp"
	told := "^(" + slow + "|" + adds + ")$"
	program := run("go", "test", "-count=1", "-timeout", "2h", "-skip", told, "./appliance/")
	if full {
		program = run("go", "test", "-count=1", "-race", "-timeout", "2h", "-skip", told, "./appliance/")
	}
	var wine []step
	if full { // 700 MB of packages
		wine = []step{run("make", "setup", "PACKAGES=wine64"), run("go", "test", "-tags", "full", "-count=1", "-run", "^TestWindows$", "-v", "./appliance/")}
	}
	return []suite{
		{name: "set-up", budget: 10 * time.Minute, needs: true, steps: []step{
			run("make", "setup", "console", "build", "programs", "assets", "initramfs", "golden"),
			run("go", "test", "-count=1", "./images/judge/"),
			run("go", "vet", "./..."),
			run("go", "vet", "-tags", "full", "./test-vm/e2e/", "./appliance/"),
		}},
		{name: "images", budget: 6 * time.Minute, steps: append([]step{
			run("go", "test", "-count=1", "-timeout", "2h", "./images/", "./images/tile/", "./images/layout/", "./images/parttable/", "./images/fsmap/",
				"./images/intake/", "./images/source/", "./images/capture/", "./images/repository/...", "./images/restore/",
				"./images/torrent/", "./images/bencode/", "./images/packed/"),
			run("go", "test", "-count=1", "-race", "./images/repository/", "./images/capture/", "./images/restore/", "./images/tile/"),
		}, fuzz(full, "./images/", "./images/tile/", "./images/parttable/", "./images/fsmap/", "./images/intake/", "./images/source/",
			"./images/repository/", "./images/torrent/", "./images/bencode/")...)},
		{name: "swarm", budget: 5 * time.Minute, steps: append([]step{
			run("go", "test", "-count=1", "./images/schedule/", "./images/peerwire/", "./images/announce/", "./appliance/tracker/"),
			run("go", "test", "-count=1", "-race", "./images/swarm/", "./images/relay/", "./images/file/", "./images/trust/"),
			run("go", "test", "-count=1", "./test-vm/bench/"),
			run("go", "test", "-count=1", "-timeout", "2h", "-run", "^"+slow+"$", "./appliance/"),
			run("go", "test", "-count=1", "-timeout", "3h", "./test-vm/simulator/..."),
		}, fuzz(full, "./images/peerwire/", "./images/relay/", "./images/announce/", "./images/schedule/", "./appliance/tracker/")...)},
		{name: "fleet", budget: 5 * time.Minute, steps: append([]step{
			run("go", "test", "-count=1", "-race", "-timeout", "2h", "./appliance/api/", "./appliance/boot/", "./appliance/bootdoctor/", "./appliance/boothistory/", "./appliance/client/", "./appliance/configuration/",
				"./appliance/dhcp/", "./appliance/doctor/", "./appliance/fleet/", "./appliance/heal/", "./appliance/limit/", "./appliance/metrics/", "./appliance/queue/", "./appliance/seed/",
				"./appliance/site/", "./appliance/store/", "./appliance/tftp/", "./appliance/tracker/", "./appliance/upload/", "./appliance/wake/", "./test-vm/powercut/"),
			program,
			run("go", "test", "-count=1", "./test-vm/agents/"),
		}, fuzz(full, "./appliance/dhcp/", "./appliance/tftp/", "./appliance/boot/", "./appliance/fleet/", "./appliance/api/", "./appliance/configuration/", "./appliance/site/")...)},
		{name: "console", budget: 5 * time.Minute, steps: []step{
			run("go", "test", "-count=1", "-race", "-timeout", "2h", "./appliance/alert/", "./appliance/journal/", "./appliance/monitor/"),
			run("go", "test", "-count=1", "-timeout", "2h", "./appliance/console/"),
			run("go", "test", "-count=1", "-timeout", "2h", "-run", "^"+adds+"$", "./appliance/"),
		}},
		{name: "machines", budget: 4 * time.Minute, steps: append([]step{
			run("go", "test", "-count=1", "./bootloader-configs/...", "./initramfs/..."),
			run("go", "test", "-count=1", "-race", "./initramfs/agent/", "./initramfs/disk/"),
		}, wine...)},
		{name: "road", budget: 10 * time.Minute, steps: []step{
			run("go", "test", "-count=1", "./test-vm/lab/...", "./test-vm/golden/...", "./test-vm/demo/...", "./test-vm/suite/..."),
			run("go", "test", "-count=1", "./test-vm/storm/"),
			e2e,
		}},
	}
}
